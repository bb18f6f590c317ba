"""Fast paths for reviewers: the end of a block of votes, thumbs on single images, agreement, and what the lead decides."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Path

from saadi.records import Vote
from saadi.store import Store
from ui.context import Context
from ui.payloads import GiveThumb, NextThumbs
from ui.views import asked_classes, told_class

if TYPE_CHECKING:
    from saadi.agreement import Contest

MAX_CONTESTS = 40
"""Pairs in the lead's queue; the rest follows when these are settled."""


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api for blocks, thumbs and agreement."""
    router = APIRouter(prefix="/api")

    # scipy and evalica would slow the start: `agreement` and `pairing` are imported where they are used.

    @router.get("/projects/{project_id}/blocks/{block}")
    def end_of_block(project_id: int, block: str = Path(pattern=r"^[A-Za-z0-9._:-]{8,80}$")) -> dict[str, Any]:
        """What one's votes of one block came to; asked for once they are stored, so that nothing is told beforehand."""
        from saadi import agreement, pairing

        with context.open() as store:
            votes = store.votes(store.project(project_id).id)
            own = [vote for vote in votes if vote.voter == context.actor and vote.block == block]
            repeats = [item for item in store.repeats(project_id, voter=context.actor) if item[0].block == block]
            compared = {vote.pair for vote in own}
            names = store.project(project_id).class_names
            weak = pairing.doubted_votes(store, project_id, own)
            return {
                "votes": len(own) + len(repeats),
                "repeats": asdict(agreement.consistency(repeats)),
                "agreement": asdict(agreement.agreement_of(context.actor, [vote for vote in votes if vote.pair in compared])),
                "weak": [{"class": names[index], "votes": count, "dice": dice} for index, count, dice in weak],
                "changed_pairs": pairing.num_changed_pairs(store, project_id, voter=context.actor, block=block),
            }

    @router.get("/projects/{project_id}/agreement")
    def agreement_of_all(project_id: int) -> dict[str, Any]:
        """The group's numbers and one's own; nobody else's."""
        from saadi import agreement

        with context.open() as store:
            votes, repeats = store.votes_and_repeats(store.project(project_id).id)
        people = agreement.reviewers(votes, repeats)
        return {
            "alpha": asdict(agreement.krippendorff(votes)),
            "enough_pairs": agreement.ENOUGH_PAIRS,
            "raw": asdict(agreement.raw_agreement(votes)),
            "consistency": asdict(agreement.consistency(repeats)),
            "me": next((asdict(person) for person in people if person.voter == context.actor), None),
        }

    @router.get("/projects/{project_id}/agreement/lead")
    def for_the_lead(project_id: int) -> dict[str, Any]:
        """Every reviewer's numbers, and the pairs that wait for a ruling."""
        from saadi import agreement, pairing

        with context.open() as store:
            votes, repeats = store.votes_and_repeats(store.project(project_id).id)
            found = pairing.contests(store, project_id)
            cast: dict[tuple[int, int], list[Vote]] = {}
            for vote in votes:
                cast.setdefault(vote.pair, []).append(vote)
            return {
                "reviewers": [asdict(person) for person in agreement.reviewers(votes, repeats)],
                "num_contests": len(found),
                "contests": [_contest(store, item, cast[item.first_id, item.second_id]) for item in found[:MAX_CONTESTS]],
            }

    @router.post("/thumbs/next")
    def next_thumbs(body: NextThumbs) -> dict[str, Any]:
        from saadi import pairing

        with context.open() as store:
            store.project(body.project_id)
            chosen = pairing.next_thumbs(
                store, body.project_id, voter=context.actor, count=body.count, exclude=set(body.exclude)
            )
            samples = [store.sample(sample_id) for sample_id in chosen]
            asked = asked_classes(store, body.project_id, [sample.label_map_blob for sample in samples])
            mine = sum(thumb.voter == context.actor for thumb in store.thumbs(body.project_id))
        # Blind, as the pairs are: the image and its mask, nothing else.
        items = [
            {"id": sample.id, "blob": sample.blob, "label_map_blob": sample.label_map_blob}
            | told_class(asked, sample.label_map_blob)
            for sample in samples
        ]
        return {"items": items, "mine": mine}

    @router.post("/thumbs")
    def thumb(body: GiveThumb) -> dict[str, Any]:
        with context.open() as store:
            store.add_thumb(
                body.project_id, sample_id=body.sample_id, value=body.value, voter=context.actor, request_id=body.request_id
            )
            return _thumbs(store, body.sample_id, context.actor)

    @router.get("/samples/{sample_id}/thumbs")
    def thumbs(sample_id: int) -> dict[str, Any]:
        with context.open() as store:
            return _thumbs(store, sample_id, context.actor)

    return router


def _thumbs(store: Store, sample_id: int, voter: str) -> dict[str, Any]:
    """Own verdict and how many each way; the page shows the counts once one has judged oneself."""
    given = store.thumbs(store.sample(sample_id).project_id, sample_id=sample_id)
    mine = next((item.value for item in given if item.voter == voter), "none")
    return {
        "sample_id": sample_id,
        "mine": mine,
        "up": sum(item.value == "up" for item in given),
        "down": sum(item.value == "down" for item in given),
    }


def _contest(store: Store, contest: Contest, votes: list[Vote]) -> dict[str, Any]:
    """A contested pair, the sample with the smaller id on the left; each answer in terms of these sides."""
    turned = {"left": "right", "right": "left"}
    said = [
        {
            "voter": vote.voter,
            "answer": vote.answer if vote.left_id == contest.first_id else turned.get(vote.answer, vote.answer),
            "reasons": vote.reasons,
        }
        for vote in votes
        if vote.answer != "skip"
    ]
    return {
        "left": _scored(store, contest.first_id),
        "right": _scored(store, contest.second_id),
        "label_map_blob": contest.label_map_blob,
        "votes": said,
    }


def _scored(store: Store, sample_id: int) -> dict[str, Any]:
    sample = store.sample(sample_id)
    dice = next(score.dice for score in store.scores(sample.project_id, sample_id=sample_id) if score.kind == "selector")
    return {"id": sample_id, "blob": sample.blob, "dice": dice}
