"""Are two images of the same patient? A Siamese network, fitted to a project's own training patients.

After the privacy net of Dombrowski and Kainz (arXiv:2506.17975) and LCMem (arXiv:2512.14421), made small enough for a project of
some hundred images on a CPU: one encoder for both images, unit vectors, and a contrastive loss (SimCLR's NT-Xent, Chen et al.
2020) in place of a binary one, since a batch then gives every image all other patients as negatives. Two images of one patient
are those farthest apart in time, because neighbouring frames would teach nothing but neighbourhood; both are changed as copies
are (flips, quarter turns, crops, brightness, JPEG, blur).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from saadi.records import Image

SIDE = 64
WIDTHS = (32, 64, 96, 128)
NUM_DIMENSIONS = 64
STEPS = 400
BATCH = 48
LEARNING_RATE = 2e-3
TEMPERATURE = 0.1
MIN_GROUPS = 4
"""Patients below which there is too little to tell apart."""
EMBED_BATCH = 128


class Verifier(nn.Module):
    """(B, 3, 64, 64) in [-1, 1] -> (B, 64) unit vectors."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * WIDTHS[-1], NUM_DIMENSIONS)

    def forward(self, pixels: Tensor) -> Tensor:
        found = self.body(pixels)
        return F.normalize(self.head(torch.cat([found.mean((2, 3)), found.amax((2, 3))], dim=1)), dim=1)

    @torch.no_grad()
    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """(N, 64) of (H, W, 3) uint8 images of any size: mean over the image and its mirror image, of unit length."""
        self.eval()
        parts = []
        for first in range(0, len(images), EMBED_BATCH):
            pixels = tensor([small(image) for image in images[first : first + EMBED_BATCH]])
            parts.append(F.normalize(self(pixels) + self(pixels.flip(3)), dim=1))
        return np.asarray(torch.cat(parts).numpy(), np.float32) if parts else np.empty((0, NUM_DIMENSIONS), np.float32)


def small(image: Image) -> Image:
    """At the size that is worked on; a little larger than what the network sees, for crops."""
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def tensor(images: Sequence[Image]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def partners(groups: Sequence[str]) -> list[int]:
    """Place of each image's partner: the one of the same patient that is farthest from it in order; itself where it is alone."""
    of_group: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        of_group.setdefault(group, []).append(place)
    return [max((abs(other - place), other) for other in of_group[group])[1] for place, group in enumerate(groups)]


def changed(image: Image, draw: np.random.Generator) -> Image:
    """As a copy might be: turned, cropped, brighter or darker, recompressed, blurred; (64, 64, 3)."""
    side = min(image.shape[:2])
    kept = round(side * draw.uniform(0.85, 1.0))
    top, left = (int(draw.integers(size - kept + 1)) for size in image.shape[:2])
    part = image[top : top + kept, left : left + kept]
    part = np.rot90(part[:, ::-1] if draw.random() < 0.5 else part, int(draw.integers(4)) if draw.random() < 0.5 else 0)
    part = cv2.resize(np.ascontiguousarray(part), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if draw.random() < 0.8:
        gains = draw.uniform(0.75, 1.3) * draw.uniform(0.95, 1.05, size=3)
        part = np.clip(part * gains + draw.uniform(-20, 20), 0, 255).astype(np.uint8)
    if draw.random() < 0.3:
        part = cv2.GaussianBlur(part, (3, 3), 0)
    if draw.random() < 0.5:
        _, coded = cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, int(draw.integers(25, 95))])
        part = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(part, np.uint8)


def fit(
    images: Sequence[Image], groups: Sequence[str], *, steps: int = STEPS, seed: int = 0,
    report: Callable[[int, int, str], None] = lambda step, total, message: None,
) -> tuple[Verifier, dict[str, Any]]:  # fmt: skip
    """Learn to tell patients apart.

    Args:
        images: (H, W, 3) uint8 of any size, in order of time within a patient.
        groups: Patient of each.

    Returns:
        The verifier, and 'steps', 'num_patients', 'num_images', 'loss'.

    Raises:
        ValueError: Fewer than MIN_GROUPS patients.
    """
    names = sorted(set(groups))
    if len(names) < MIN_GROUPS:
        raise ValueError(f"{MIN_GROUPS} patients or more are needed to tell patients apart; got {len(names)}")
    reduced = [cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA) for image in images]
    of_group = {name: [place for place, group in enumerate(groups) if group == name] for name in names}
    others = partners(groups)
    draw = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        verifier = Verifier()
    verifier.train()
    optimizer = torch.optim.AdamW(verifier.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    losses: list[float] = []
    for step in range(steps):
        chosen = draw.permutation(len(names))[:BATCH]
        first = [int(draw.choice(of_group[names[index]])) for index in chosen]
        second = [others[place] if draw.random() < 0.5 else place for place in first]
        views = tensor([changed(reduced[place], draw) for place in (*first, *second)])
        loss = contrast(verifier(views))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 20 == 0 or step == steps - 1:
            report(step + 1, steps, f"learning to tell patients apart, step {step + 1} of {steps}")
    verifier.eval()
    return verifier, {"steps": steps, "num_patients": len(names), "num_images": len(images),
                      "loss": round(float(np.mean(losses[-20:])), 4)}  # fmt: skip


def contrast(vectors: Tensor) -> Tensor:
    """NT-Xent of 2 B unit vectors, of which row i and row i + B belong together."""
    count = len(vectors) // 2
    alike = vectors @ vectors.T / TEMPERATURE
    alike = alike.masked_fill(torch.eye(2 * count, dtype=torch.bool), -1e9)
    return F.cross_entropy(alike, torch.arange(2 * count).roll(count))


def from_state(state: Mapping[str, Tensor]) -> Verifier:
    """A verifier with these weights."""
    verifier = Verifier()
    verifier.load_state_dict(dict(state))
    verifier.eval()
    return verifier
