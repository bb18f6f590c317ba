"""How long an export takes beside a plain copy of what it writes, and whether its memory grows with the number of images."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from saadi import orders
from saadi.config import Home
from saadi.errors import StorageError
from saadi.exports import recipe
from saadi.jobs import run_job
from saadi.records import Image, LabelClass, LabelMap
from saadi.store import Store
from saadi.store.blobs import BlobStore, encode_png

ROOT = Path(__file__).resolve().parent.parent.parent
SIDE = 256
FEW, MANY = 1_000, 10_000
REPEATS = 3
REAL_SHARE = 0.1
NUM_PATIENTS = 20
BUDGET_S = 120.0
"""For `MANY` images on two cores."""
CLASSES = (LabelClass(0, "background", "#000000"), LabelClass(1, "organ", "#d55e00"), LabelClass(2, "tool", "#0072b2"))
CHILD = """
import json, sys
from pathlib import Path
from saadi.bench.exports import export_once
print(json.dumps(export_once(Path(sys.argv[1]), Path(sys.argv[2]))))
"""


def run() -> dict[str, Any]:
    """Seconds of an export to nnU-Net (counted, written, read again by its rules and against the store) over those of
    shutil.copytree and sync of the same folder, one after the other; and peak memory at a thousand and ten thousand images."""
    found: dict[str, Any] = {"side_px": SIDE, "budget_s": BUDGET_S}
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder) / "few", Path(folder) / "many"
        fill(Home(few), FEW)
        turns = [_turn(few, Path(folder)) for _ in range(REPEATS)]
        fill(Home(many), MANY)
        at_many, copied = _turn(many, Path(folder))
    found["few"] = {"num_images": FEW, "export_s": round(median(export["seconds"] for export, _ in turns), 2),
                    "copy_s": round(median(copy_s for _, copy_s in turns), 2),
                    "ratio_to_copy": round(median(export["seconds"] / copy_s for export, copy_s in turns), 1),
                    "peak_growth_mib": round(median(export["growth_mib"] for export, _ in turns), 1)}  # fmt: skip
    found["many"] = {"num_images": MANY, "export_s": round(at_many["seconds"], 1), "copy_s": round(copied, 1),
                     "ratio_to_copy": round(at_many["seconds"] / copied, 1), "mib": round(at_many["mib"], 1),
                     "peak_growth_mib": round(at_many["growth_mib"], 1)}  # fmt: skip
    found["growth_kib_per_image"] = round(
        1024 * (found["many"]["peak_growth_mib"] - found["few"]["peak_growth_mib"]) / (MANY - FEW), 1)  # fmt: skip
    for one in (found["few"], found["many"]):
        print(f"export of {one['num_images']} images at {SIDE} px to nnU-Net: {one['export_s']} s = {one['ratio_to_copy']} times "
              f"shutil.copytree and sync; memory grew by {one['peak_growth_mib']} MiB at most")  # fmt: skip
    print(f"{found['growth_kib_per_image']} KiB of memory an image; budget for {MANY}: {BUDGET_S:g} s")
    return found


def _turn(home: Path, folder: Path) -> tuple[dict[str, float], float]:
    """An export in a process of its own, and the seconds of a copy of its folder."""
    made, copy = folder / "made", folder / "copy"
    os.sync()
    command = [sys.executable, "-c", CHILD, str(home), str(made)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    began = time.perf_counter()
    shutil.copytree(made, copy)
    os.sync()
    copy_s = time.perf_counter() - began
    for one in (made, copy):
        shutil.rmtree(one)
    return json.loads(done.stdout.splitlines()[-1]), copy_s


def export_once(home: Path, target: Path) -> dict[str, float]:
    """Run one export as the worker does; seconds, MiB written, and by how many MiB memory grew at most.

    Raises:
        StorageError: The export failed.
    """
    with Store.open(Home(home)) as store:
        wanted = orders.ExportOrder(project_id=store.project("bench").id, format="nnunet", out_dir=str(target))
        orders.place(store, wanted, actor="bench")
        before, began = _memory("VmRSS"), time.perf_counter()
        claimed = store.claim_job("bench")
        assert claimed is not None, "placed just now"
        run_job(store, claimed, {"export": recipe.run_job})
        seconds = time.perf_counter() - began
        ended = store.job(claimed.id)
    if ended.state != "done":
        raise StorageError(f"the export of the benchmark ended as {ended.state}: {ended.error}")
    written = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return {"seconds": seconds, "mib": written / 2**20, "growth_mib": (_memory("VmHWM") - before) / 1024}


def _memory(name: str) -> int:
    """KiB from /proc; ru_maxrss is inherited from the parent, through exec as well."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0])


def fill(home: Home, num_images: int, *, num_real: int | None = None, num_patients: int = NUM_PATIENTS,
         weights: Callable[[int], tuple[dict[str, Any], bytes]] = lambda num_classes: ({}, b"weights")) -> None:
    """A project with so many images of its own content, real ones (by default a tenth) and accepted samples of drawings.

    Args:
        weights: Number of classes -> architecture and weights of the generator.
    """
    architecture, content = weights(len(CLASSES))
    with Store.open(home) as store, store.write():
        project = store.create_project("bench", task="segmentation", classes=CLASSES, resolution=SIDE, actor="bench")
        model = store.add_model(project.id, kind="engine", architecture=architecture, file=store.files.put(content), metrics={},
                                actor="bench")  # fmt: skip
        num_real = int(REAL_SHARE * num_images) if num_real is None else num_real
        made = []
        for number, (image, label_map) in enumerate(_pictures(num_images)):
            blob, mask = (_put(store.blobs, pixels) for pixels in (image[..., ::-1], label_map))
            if number < num_real:
                patient = number % num_patients
                store.add_image(project.id, blob=blob, size=(SIDE, SIDE), group_id=f"p{patient}",
                                split="val" if patient % NUM_PATIENTS == 0 else "train", source_name=f"{number}.png",
                                label_map_blob=mask, actor="bench")  # fmt: skip
                continue
            drawn = store.add_label_map(project.id, blob=mask, name="d", author="bench", request_id=f"drawing-{number}",
                                        origin="drawn")  # fmt: skip
            made.append(store.add_sample(
                project.id, label_map_id=drawn.id, label_map_rev=1, label_map_blob=mask, blob=blob, seed=number,
                engine="compact", model_id=model.id, adapter_id=None, settings={}, purpose="pool").id)  # fmt: skip
        store.curate(made, "accepted", actor="bench")


def _pictures(count: int) -> Iterator[tuple[Image, LabelMap]]:
    """Smooth light with the grain of a camera, and two shapes: about as large as PNG as a frame of an operation."""
    draw = np.random.default_rng(0)
    grain = draw.integers(0, 12, (2 * SIDE, 2 * SIDE, 3), dtype=np.uint8)
    for _ in range(count):
        light = cv2.resize(draw.integers(30, 200, (4, 4, 3), dtype=np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        y, x = draw.integers(0, SIDE, 2)
        label_map = np.zeros((SIDE, SIDE), np.uint8)
        for index in (1, 2):
            centre, axes = draw.integers(60, SIDE - 60, 2).tolist(), draw.integers(10, 60, 2).tolist()
            cv2.ellipse(label_map, centre, axes, float(draw.integers(180)), 0, 360, index, -1)
        yield cv2.add(light, grain[y : y + SIDE, x : x + SIDE]), label_map


def _put(blobs: BlobStore, pixels: np.ndarray) -> str:
    """As `BlobStore.put`, without waiting for the disk: that is not what is measured here."""
    png = encode_png(np.ascontiguousarray(pixels))
    sha256 = hashlib.sha256(png).hexdigest()
    path = blobs.path(sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png)
    return sha256
