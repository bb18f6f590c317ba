"""How long an audit of a thousand images against a thousand training images takes, beside one plain pass over all pairs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from saadi import orders
from saadi.bench.exports import ROOT, fill
from saadi.config import Home
from saadi.engines import weights
from saadi.engines.compact import CompactEngine, default_architecture
from saadi.errors import StorageError
from saadi.jobs import run_job
from saadi.store import Store

NUM_ITEMS, NUM_TRAINING, NUM_PATIENTS = 1_000, 1_000, 120
SIDE = 128
BUDGET_S = 180.0
"""On two cores."""
CHILD = """
import json, sys
from pathlib import Path
from saadi.bench.audit import audit_once
print(json.dumps(audit_once(Path(sys.argv[1]))))
"""


def run() -> dict[str, Any]:
    """Seconds of a whole audit (images read, a verifier of the patients fitted, the generator asked what it remembers, copies in
    all orientations and crops, nearness, planted copies) over those of correlating every pair of images once as OpenCV reduces
    them to 24 x 24 grey; and its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Home(Path(folder)), NUM_ITEMS + NUM_TRAINING, num_real=NUM_TRAINING, num_patients=NUM_PATIENTS,
             weights=_generator)  # fmt: skip
        command = [sys.executable, "-c", CHILD, folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found |= {"num_items": NUM_ITEMS, "num_training": NUM_TRAINING, "budget_s": BUDGET_S,
              "ratio_to_plain": round(found["audit_s"] / found["plain_s"], 1)}  # fmt: skip
    print(f"audit of {NUM_ITEMS} images against {NUM_TRAINING} training images: {found['audit_s']} s (budget {BUDGET_S:g} s) = "
          f"{found['ratio_to_plain']} times one plain pass over all pairs; peak memory {found['peak_mib']} MiB")  # fmt: skip
    return found


def audit_once(home: Path) -> dict[str, float]:
    """Run one audit of the accepted images as the worker does, and the plain pass beside it.

    Raises:
        StorageError: The audit failed.
    """
    from saadi.release import job

    with Store.open(Home(home)) as store:
        project = store.project("bench")
        orders.place(store, orders.AuditOrder(project_id=project.id), actor="bench")
        claimed = store.claim_job("bench")
        assert claimed is not None, "placed just now"
        began = time.perf_counter()
        run_job(store, orders.freeze(store, claimed), {"audit": job.run_job})
        seconds = time.perf_counter() - began
        ended = store.job(claimed.id)
        if ended.state != "done":
            raise StorageError(f"the audit of the benchmark ended as {ended.state}: {ended.error}")
        began = time.perf_counter()
        plain = [_reduced(store, blobs) for blobs in ([image.blob for image in store.images(project.id)],
                                                      [sample.blob for sample in store.samples(project.id)])]  # fmt: skip
        nearest = (plain[1] @ plain[0].T).max(1)
        plain_s = time.perf_counter() - began
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"audit_s": round(seconds, 1), "plain_s": round(plain_s, 2), "nearest": round(float(nearest.mean()), 3),
            "peak_mib": round(int(lines["VmHWM"].split()[0]) / 1024)}  # fmt: skip


def _reduced(store: Store, blobs: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(N, 576) of zero mean and unit length."""
    rows = [cv2.resize(cv2.cvtColor(store.blobs.image(blob), cv2.COLOR_RGB2GRAY), (24, 24), interpolation=cv2.INTER_AREA)
            for blob in blobs]  # fmt: skip
    flat = np.stack(rows).reshape(len(rows), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-6), dtype=np.float32)


def _generator(num_classes: int) -> tuple[dict[str, Any], bytes]:
    """The program's own, with the weights that it begins with."""
    engine = CompactEngine(default_architecture(num_classes=num_classes, resolution=SIDE))
    return engine.architecture, weights.to_bytes(engine.denoiser.state_dict())
