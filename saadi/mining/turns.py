"""Which label maps get images in the next turn of a search. Pure counting; imports no torch.

In the demo nearly all of what decides whether an image is hard and right lies in its label map, not in its seed: of 46 label maps
20 gave nothing in four images, and one that gave something gave it in half of them. So a label map without a find makes room for
one that nobody has looked at, and one with a find gets one more turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class Turns:
    """The course of a search for one hard image each on `wanted` of `num_maps` label maps, in their order.

    Args:
        turns: of one label map at most; all label maps together get `wanted` times as many.
    """

    def __init__(self, *, wanted: int, num_maps: int, turns: int) -> None:
        self._waiting = deque(range(num_maps))
        self._looks = [0] * num_maps
        self._found: set[int] = set()
        self._again: list[int] = []
        self._wanted, self._turns, self._left = wanted, turns, wanted * turns

    @property
    def share_taken(self) -> float:
        """Of all turns that the search may take, with those of the last `next`."""
        return 1 - self._left / max(1, self._wanted * self._turns)

    def next(self) -> list[int]:
        """Places of the label maps that get images now; none at the end."""
        open_ones = min(self._wanted - len(self._found), len(self._waiting))
        places = [*self._again, *(self._waiting.popleft() for _ in range(open_ones))]
        places = places[: self._left]
        self._again, self._left = [], self._left - len(places)
        return places

    def tell(self, places: Sequence[int], found: Sequence[bool]) -> None:
        """What came of them: whether there is a hard and right image among those of this turn."""
        for place, is_found in zip(places, found, strict=True):
            self._looks[place] += 1
            is_over = self._looks[place] >= self._turns
            if place in self._found:
                continue
            if is_found:
                self._found.add(place)
                self._again += [] if is_over else [place]
            elif not is_over:
                self._waiting.append(place)  # behind all that nobody has looked at
