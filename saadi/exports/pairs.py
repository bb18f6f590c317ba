"""Which preference pairs go into an export: those that the next alignment would learn from, as far as both images may leave.

Each image of a pair is an item of the export, once, whatever curation says of it: a rejected image teaches as a loser. In which
pairs it stands is part of its lineage, so that `items.jsonl` alone tells every pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saadi.errors import TooFewError
from saadi.exports.selection import SHOWS_TEXT, Item, Selection, SyntheticRules, real_item, refusals
from saadi.records import Project, Vote
from saadi.store import Store

if TYPE_CHECKING:
    from saadi.settled import Picture, Row

PAIRS = "pairs"
"""Key of a lineage: one entry for each pair that the image stands in."""
CHOSEN, REJECTED = "chosen", "rejected"
LEFT_OUT = {"conflict": "pair, waits for a second opinion", "undecided": "pair, too close to call",
            "both_bad": "pair, a tie: both bad", "both_good": "pair, a tie: both good", "cap": "pair, beyond two for one mask"}
COPY = "very near to a real image"


def select_pairs(store: Store, project: Project, *, include_real: bool, include_refused: bool = False,
                 with_tied_versions: bool = False) -> Selection:  # fmt: skip
    """Choose the pairs of an export, by who decided them, and their images.

    Args:
        include_real: Also pairs in which a real training image is the chosen one.
        include_refused: Also pairs with an image that the quality gate holds for a copy. One that looks unlike real images stays
            in any case: it loses, and that is what is learnt.
        with_tied_versions: As in `saadi.exports.selection.select`.

    Raises:
        TooFewError: No scored candidates, or no pair may leave.
    """
    from saadi import pairing, settled  # scipy and evalica take a second

    found = pairing.settle(store, project.id, real_winners=include_real)
    rows = settled.rows(found)
    selection = Selection(left_out=Counter(LEFT_OUT[row.reason] for row in rows if row.reason is not None))
    pairs = [row for row in rows if row.decider is not None]
    sides = _Sides(store, project, include_refused=include_refused, with_tied_versions=with_tied_versions)
    votes = _by_pair(vote for group in found.votes.values() for vote in group)
    raters = _numbers(votes)
    items: dict[str, Item] = {}
    number = 0
    for row in pairs:
        reason = sides.reason_against(row.first) or sides.reason_against(row.second)
        if reason is not None:
            selection.left_out[f"pair, {reason}"] += 1
            continue
        number += 1
        told = {"pair": number, "side": CHOSEN, **_opinions(row, votes, raters)}
        for picture, entry in ((row.first, told), (row.second, {"pair": number, "side": REJECTED})):
            item = sides.item(picture)
            known = items.get(item.name, item)
            items[item.name] = replace(known, lineage=known.lineage | {PAIRS: [*known.lineage.get(PAIRS, ()), entry]})
    if not items:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(selection.left_out.items())) or "none was decided"
        raise TooFewError(f"there is no pair that may be exported ({reasons}); vote on more pairs, or score more candidates")
    selection.items = [items[name] for name in sorted(items)]
    return selection


def without_broken_pairs(items: Sequence[Item]) -> list[Item]:
    """The same items with those pairs alone of which both images are there; an image that is left in none is left out."""
    sides = Counter(entry["pair"] for item in items for entry in item.lineage.get(PAIRS, ()))
    kept = []
    for item in items:
        if PAIRS not in item.lineage:
            kept.append(item)
        elif entries := [entry for entry in item.lineage[PAIRS] if sides[entry["pair"]] == len((CHOSEN, REJECTED))]:
            kept.append(replace(item, lineage=item.lineage | {PAIRS: entries}))
    return kept


def num_pairs(rows: Iterable[Mapping[str, Any]]) -> int:
    """Of the rows of items.jsonl; 0 in an export of single images."""
    return sum(entry["side"] == CHOSEN for row in rows for entry in row["lineage"].get(PAIRS, ()))


class _Sides:
    """The images of pairs, as items of an export."""

    def __init__(self, store: Store, project: Project, *, include_refused: bool, with_tied_versions: bool) -> None:
        self.store, self.project = store, project
        images = store.images(project.id)
        self.rules = SyntheticRules(store, project, images, with_tied_versions=with_tied_versions)
        self.samples = {sample.id: sample for sample in store.samples(project.id)}
        self.images = {image.blob: image for image in images}
        found = {} if include_refused else refusals(store, project, list(self.samples.values()))
        self.copies = {sample_id for sample_id, words in found.items() if words == COPY}

    def reason_against(self, picture: Picture) -> str | None:
        if picture.sample_id is None:
            # A training image: `pairing` takes no other.
            return f"real, {SHOWS_TEXT}" if picture.blob in self.rules.held else None
        if picture.sample_id in self.copies:
            return f"an image {COPY}"
        return self.rules.reason_against(self.samples[picture.sample_id])

    def item(self, picture: Picture) -> Item:
        if picture.sample_id is not None:
            return self.rules.item(self.samples[picture.sample_id])
        image = self.images[picture.blob]
        record = self.store.label_map(image.label_map_id) if image.label_map_id is not None else None
        return real_item(self.project, image, record, self.rules.names[image.group_id])


def _by_pair(votes: Iterable[Vote]) -> dict[tuple[int, int], list[Vote]]:
    found: dict[tuple[int, int], list[Vote]] = {}
    for vote in sorted(votes, key=lambda vote: vote.id):
        if vote.answer != "skip":
            found.setdefault(vote.pair, []).append(vote)
    return found


def _numbers(votes: Mapping[tuple[int, int], Sequence[Vote]]) -> dict[str, int]:
    """Voter -> a number, in the order in which they first voted: names would tell who it was, and so would their order."""
    ordered = sorted((vote for group in votes.values() for vote in group), key=lambda vote: vote.id)
    return {voter: number for number, voter in enumerate(dict.fromkeys(vote.voter for vote in ordered), start=1)}


def _opinions(row: Row, votes: Mapping[tuple[int, int], Sequence[Vote]], raters: Mapping[str, int]) -> dict[str, Any]:
    """How sure the pair is, and who said so; a real image wins by rule."""
    first, second = row.first.sample_id, row.second.sample_id
    own: Sequence[Vote] = ()
    if first is not None and second is not None:
        own = votes.get((min(first, second), max(first, second)), ())
    return {"p_chosen": 1.0 if row.decider == "real" else round(0.5 + row.margin / 2, 4), "n_votes": len(own),
            "raters": sorted({raters[vote.voter] for vote in own}), "source": row.decider}  # fmt: skip
