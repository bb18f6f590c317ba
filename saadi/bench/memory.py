"""Peak memory of a whole compact alignment, and of `make app` while nobody uses it; each in processes of their own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from saadi.config import Home

ROOT = Path(__file__).resolve().parent.parent.parent
CHILD = """
import json, resource
import numpy as np
from saadi import devices
from saadi.alignment.gate import Gate
from saadi.alignment.recipe import align
from saadi.alignment.settings import AlignmentConfig, TrainingPair
from saadi.downstream.segmenter import Segmenter, default_architecture as scorer
from saadi.engines.compact import CompactEngine, default_architecture
from saadi.errors import AlignmentStoppedError
from saadi.jobs import silent
devices.use_all_threads()
draw = np.random.default_rng(0)
side = {side}
image = lambda: draw.integers(0, 256, (side, side, 3)).astype(np.uint8)
pairs = [TrainingPair(image()[..., 0] % 7, image(), image(), 1.0, False, str(i)) for i in range(256)]
gate = Gate([image()[..., 0] % 7 for _ in range(32)], *[Segmenter(scorer(kind, num_classes=7)) for kind in ("selector", "judge")],
            num_classes=7, real=[image() for _ in range(200)], training=[image() for _ in range(200)])
engine = CompactEngine(default_architecture(num_classes=7, resolution=side))
anchors = [(image(), image()[..., 0] % 7) for _ in range(128)]
try:
    align(engine, pairs, gate, AlignmentConfig(num_steps=6, gate_every=3), silent, seeds=range(32), anchors=anchors)
except AlignmentStoppedError:
    pass
try:  # a child inherits ru_maxrss from its parent, through exec as well; VmHWM begins anew
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    peak_kib = int(lines["VmHWM"].split()[0])
except (OSError, KeyError):
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(peak_kib / 2**20))
"""
STEP_CHILD = """
import json, psutil, torch
import numpy as np
from saadi import devices
from saadi.alignment.settings import AlignmentConfig, TrainingPair
from saadi.alignment.trainer import PairTrainer
from saadi.bench import alignment as bench
from saadi.engines.compact import CompactEngine, default_architecture
devices.use_all_threads()
draw = np.random.default_rng(0)
side, form = {side}, {form!r}
image = lambda: draw.integers(0, 256, (side, side, 3)).astype(np.uint8)
pairs = [TrainingPair(image()[..., 0] % 7, image(), image(), 1.0, False, str(i)) for i in range(16)]
def peak():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0]) / 2**20
torch.manual_seed(0)
before = psutil.Process().memory_info().rss / 2**30
engine = CompactEngine(default_architecture(num_classes=7, resolution=side))
stock = [bench._stock_engine(engine) for _ in range(2)] if form == "straightforward" else []
if stock:
    engine = stock[0]
trainer = PairTrainer(engine, pairs, AlignmentConfig(batch_size=8, sft_weight=0.0, checkpointing=form == "recomputed"))
keys = [(trainer.train_ids[i % len(trainer.train_ids)], 0) for i in range(8)]
for _ in range(4):
    trainer.optimizer.zero_grad(set_to_none=True)
    if stock:
        bench._plain_loss(trainer, stock, keys).backward()
    else:
        trainer.add_gradient(keys)
    trainer.optimizer.step()
print(json.dumps(peak() - before))
"""
STEP_FORMS = ("straightforward", "ours", "recomputed")
START_TIMEOUT_S = 300


def run() -> dict[str, Any]:
    """Peak resident memory (GiB) of an alignment with its gate on 256 pairs at 128 and 256 px, and of the idle app."""
    peaks = {}
    for side in (128, 256):
        command = [sys.executable, "-c", CHILD.format(side=side)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        peaks[str(side)] = round(json.loads(done.stdout.splitlines()[-1]), 2)
    steps = step_peaks()
    idle = idle_app()
    print(f"peak memory of a compact alignment with its gate: {peaks['128']} GiB at 128 px, {peaks['256']} GiB at 256 px; "
          f"idle app: {idle['total_gib']} GiB (page {idle['page_gib']}, worker {idle['worker_gib']})")  # fmt: skip
    return {"alignment_peak_gib": peaks, "step": steps, "idle_app": idle}


def step_peaks(side: int = 256) -> dict[str, Any]:
    """Memory (GiB) that a step of 8 pairs takes beyond what importing the program takes: models, activations, optimiser.

    'straightforward' = policy and a second frozen U-Net by peft and diffusers alone, each arm in a forward of its own; 'ours' =
    as `align` does it; 'recomputed' = with `--checkpointing`.
    """
    found = {}
    for form in STEP_FORMS:
        command = [sys.executable, "-c", STEP_CHILD.format(side=side, form=form)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        found[form] = round(json.loads(done.stdout.splitlines()[-1]), 3)
    shares = {form: round(found[form] / found["straightforward"], 2) for form in STEP_FORMS[1:]}
    print(f"memory of an alignment step of 8 pairs at {side} px: {found['ours']} GiB = {shares['ours']:.0%} of the "
          f"straightforward form's {found['straightforward']} GiB, {found['recomputed']} GiB = {shares['recomputed']:.0%} with "
          "--checkpointing")  # fmt: skip
    return {"side_px": side, "gib": found, "share_of_straightforward": shares}


def idle_app() -> dict[str, float]:
    """Resident memory (GiB) of page and worker once the demo project stands and the engine is warm."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        # The demo project first: the worker warms the engine of a project that is there when it starts.
        subprocess.run([sys.executable, "-m", "saadi", "demo", "--home", folder], check=True, capture_output=True, cwd=ROOT)
        command = [sys.executable, str(ROOT / "app.py"), "--home", folder, "--port", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        try:
            _wait_until_idle(process, f"http://127.0.0.1:{port}/", Home(Path(folder)))
            page = psutil.Process(process.pid)
            worker = sum(child.memory_info().rss for child in page.children(recursive=True))
            own = page.memory_info().rss
        finally:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.terminate()
                process.terminate()
            process.wait(30)
    return {name: round(size / 2**30, 2) for name, size in
            (("page_gib", own), ("worker_gib", worker), ("total_gib", own + worker))}  # fmt: skip


def _wait_until_idle(process: subprocess.Popen[bytes], address: str, home: Home) -> None:
    """Until the page answers and the worker has its engine warm; both may still be starting."""
    end = time.monotonic() + START_TIMEOUT_S
    missing, reason = "the page", ""
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=10).read()
            missing = "the worker's engine"
            if "engine_warm" in home.worker_log.read_text():
                time.sleep(5)
                return
        except OSError as error:
            reason = str(error)
        time.sleep(1)
    raise TimeoutError(f"not ready within {START_TIMEOUT_S} s: {missing} {reason}")
