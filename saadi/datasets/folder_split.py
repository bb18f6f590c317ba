"""Splits by group: no patient, video or operation on two sides, and no change when images are added later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from saadi.errors import BadInputError
from saadi.records import Split

SIDES: tuple[Split, ...] = ("train", "val", "test")


def check_fractions(fractions: tuple[float, float, float]) -> None:
    """Raises: BadInputError: not three shares from 0 to 1 that add up to 1, with something to train on."""
    shares_are_sane = len(fractions) == 3 and all(0 <= share <= 1 for share in fractions) and abs(sum(fractions) - 1) < 1e-6
    if not shares_are_sane or fractions[0] == 0:
        raise BadInputError(f"the shares of train, val and test add up to 1 with train above 0; got {tuple(fractions)}")


def position(group: str, seed: int) -> float:
    """A place in [0, 1) that depends on nothing but the group's name and the seed."""
    digest = hashlib.sha256(f"{seed}:{group}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign_splits(groups: Iterable[str], *, known: Mapping[str, Split], fractions: tuple[float, float, float],
                  seed: int) -> dict[str, Split]:
    """Give every group a side.

    A group keeps the side it has in `known`. A new one falls on a side by the hash of its name, so that the same groups get the
    same sides whatever else is imported. Where few groups leave a wanted side empty, one group moves there from the fullest side.

    Returns:
        Group -> side, for `groups` only.
    """
    check_fractions(fractions)
    fresh = sorted(set(groups) - set(known))
    sides: dict[str, Split] = {}
    for group in fresh:
        place = position(group, seed)
        sides[group] = "train" if place < fractions[0] else "val" if place < fractions[0] + fractions[1] else "test"
    wanted = [side for side, share in zip(SIDES, fractions, strict=True) if share > 0]
    everywhere: dict[str, Split] = dict(known) | sides
    for side in wanted[:len(everywhere)]:
        if side in everywhere.values():
            continue
        counts = {other: sum(1 for value in everywhere.values() if value == other) for other in SIDES}
        movable = [group for group in fresh if counts[everywhere[group]] > 1]
        if movable:
            moved = max(movable, key=lambda group: (counts[everywhere[group]], position(group, seed)))
            everywhere[moved] = side
    return {group: everywhere[group] for group in groups}
