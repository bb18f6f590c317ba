"""Peak memory of a compact alignment, in a process of its own; the idle page is measured by `scripts/measure_app.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

CHILD = """
import json, resource
import numpy as np
from saadi.alignment.trainer import AlignmentConfig, PairTrainer, TrainingPair
from saadi.engines.compact import CompactEngine, default_architecture
draw = np.random.default_rng(0)
side = {side}
image = lambda: draw.integers(0, 256, (side, side, 3)).astype(np.uint8)
pairs = [TrainingPair(image()[..., 0] % 7, image(), image(), 1.0, True, str(i)) for i in range(128)]
trainer = PairTrainer(CompactEngine(default_architecture(num_classes=7, resolution=side)), pairs, AlignmentConfig())
for _ in range(3):
    trainer.train_step()
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))
"""


def run() -> dict[str, Any]:
    """Peak resident memory (GiB) of three steps on 128 pairs at 128 and 256 px."""
    peaks = {}
    for side in (128, 256):
        done = subprocess.run([sys.executable, "-c", CHILD.format(side=side)], check=True, capture_output=True, text=True)
        peaks[str(side)] = round(json.loads(done.stdout.splitlines()[-1]), 2)
    print(f"peak memory of a compact alignment: {peaks['128']} GiB at 128 px, {peaks['256']} GiB at 256 px")
    return {"alignment_peak_gib": peaks}
