"""A process of a crew on tiny invented pairs: `python -m tests.crew_member LOSS RANK SIZE MEETING`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from saadi import devices
from saadi.alignment.crew import ALONE, READY, Crew, Member, end_with_the_leader, say
from saadi.alignment.settings import AlignmentConfig, TrainingPair, TrainingSingle
from saadi.alignment.trainer import PairTrainer
from tests import tiny

CONFIG = AlignmentConfig(batch_size=6, lora_rank=2, learning_rate=1e-3, held_out_share=0.25, sft_weight=0.5, beta=20.0,
                         accumulation=2)  # fmt: skip


def trainer(loss: str, crew: Crew = ALONE) -> PairTrainer:
    """With anchors and single images; real winners in some batches only."""
    pairs, singles = [], []
    for seed in range(8):
        (image, label_map), (other, _) = tiny.scene(seed), tiny.scene(seed + 100)
        pairs.append(TrainingPair(label_map, image, other, weight=0.25 + seed / 8, is_real=seed == 7, group=str(seed // 2)))
        singles.append(TrainingSingle(label_map, other, seed % 2 == 0, 0.5 + seed / 8, f"s{seed}"))
    return PairTrainer(tiny.engine(), pairs, replace(CONFIG, loss=loss), crew=crew, singles=singles,  # type: ignore[arg-type]
                       anchors=[tiny.scene(seed) for seed in range(4)])  # fmt: skip


if __name__ == "__main__":
    end_with_the_leader()
    devices.fast_dtype = lambda on: torch.float32  # bfloat16 rounds by the shape of a batch
    _, loss, rank, size, meeting = sys.argv
    member = Member(int(rank), int(size), Path(meeting))
    made = trainer(loss, member)
    say(READY)
    member.join()
    made.follow()
