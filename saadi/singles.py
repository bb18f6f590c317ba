"""Verdicts on one image by itself: thumbs, 'both good' and 'both bad' become single labels for the KTO loss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from saadi.conditions import asked_blob
from saadi.preferences import as_they_count
from saadi.records import Single, Thumb, Vote
from saadi.store import Store


@dataclass(frozen=True)
class Verdict:
    """What people say about one image."""

    is_liked: bool
    source: Literal["people", "ruling"]
    num_people: int
    weight: float
    """Of these people together, at most 1: somebody who contradicts themselves and others counts less."""


def verdicts(
    votes: Iterable[Vote], thumbs: Iterable[Thumb], weights: Mapping[str, float]
) -> tuple[dict[int, Verdict], set[int]]:
    """What people say about images by themselves.

    A thumb is somebody's word on the image and stands above their own 'both good' and 'both bad' on pairs with it. A ruling on a
    pair stands for everybody's votes on it, and above all thumbs. Where people disagree about an image, or one person says both
    in two pairs, nothing is learnt from it until they agree or the lead rules.

    Args:
        votes: In force, without repeats, oldest first.
        thumbs: The newest of each voter and sample.
        weights: Voter -> weight, as `agreement.weights` gives them; 1 where nothing is said.

    Returns:
        Sample id -> verdict, and the sample ids that are disputed.
    """
    said: dict[int, dict[str, set[bool]]] = defaultdict(lambda: defaultdict(set))
    ruled: dict[int, set[bool]] = defaultdict(set)
    for vote in as_they_count(votes):
        if vote.answer in ("both_good", "both_bad"):
            for sample_id in vote.pair:
                if vote.kind == "ruling":
                    ruled[sample_id].add(vote.answer == "both_good")
                else:
                    said[sample_id][vote.voter].add(vote.answer == "both_good")
    for thumb in thumbs:
        said[thumb.sample_id][thumb.voter] = {thumb.value == "up"}
    found: dict[int, Verdict] = {}
    disputed: set[int] = set()
    for sample_id in sorted(said.keys() | ruled.keys()):
        people = said.get(sample_id, {})
        opinions = ruled.get(sample_id) or {opinion for own in people.values() for opinion in own}
        if len(opinions) > 1:
            disputed.add(sample_id)
        elif sample_id in ruled:
            found[sample_id] = Verdict(opinions.pop(), "ruling", 1, 1.0)
        else:
            weight = min(1.0, sum(weights.get(voter, 1.0) for voter in people))
            found[sample_id] = Verdict(opinions.pop(), "people", len(people), round(weight, 4))
    return found, disputed


def settle_singles(
    store: Store, project_id: int, *, votes: Sequence[Vote], weights: Mapping[str, float], reals: Mapping[str, str]
) -> tuple[list[Single], int]:
    """The single images from which an alignment may learn, and the number of disputed ones.

    With the same care as pairs: only whole images of the present generator, none in quarantine, none under the mask of a
    validation or test patient. Learning only what to avoid ruins a model (docs/design.md), so where more images are disliked than
    liked, real training images stand for liked ones, as many as are missing and as there are.

    Args:
        reals: Condition (`saadi.conditions`) -> blob of the real training image it belongs to.
    """
    held_ids, held_blobs = store.held_out_label_maps(project_id)
    found, disputed = verdicts(votes, store.thumbs(project_id), weights)
    singles: list[Single] = []
    num_disputed = 0
    for sample in store.usable_samples(project_id) if found or disputed else []:
        if sample.label_map_id in held_ids or sample.label_map_blob in held_blobs:
            continue
        num_disputed += sample.sample_id in disputed
        if verdict := found.get(sample.sample_id):
            singles.append(Single(sample.label_map_blob, sample.blob, verdict.is_liked, verdict.source, verdict.num_people,
                                  verdict.weight))  # fmt: skip
    lacking = sum(1 if not single.is_liked else -1 for single in singles)
    # By the images' hashes: as good as by lot, and the same again; conditions would bring class after class.
    stand_ins = sorted({(blob, asked_blob(name)) for name, blob in reals.items()})[: max(0, lacking)]
    return singles + [Single(asked, blob, True, "real", 0, 1.0) for blob, asked in stand_ins], num_disputed
