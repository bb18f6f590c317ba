"""Fast paths for synthetic images: the grid, curation, blind votes and the pairs made of them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query

from saadi.records import Curation
from ui.context import Context
from ui.payloads import CastVote, Curate, NextPairs, UndoVote
from ui.views import asked_classes, sample_detail, sample_views, told_class


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api for samples, votes and pairs."""
    router = APIRouter(prefix="/api")

    @router.get("/projects/{project_id}/samples")
    def samples(
        project_id: int,
        limit: int = Query(default=10_000, ge=1, le=100_000),
        label_map: str | None = Query(default=None, pattern="^[0-9a-f]{64}$"),
    ) -> dict[str, Any]:
        """Newest first; `label_map` keeps those made for exactly these pixels."""
        with context.open() as store:
            store.project(project_id)
            return {
                "items": sample_views(store, store.samples(project_id, label_map_blob=label_map, limit=limit, newest_first=True))
            }

    @router.get("/samples")
    def some_samples(ids: str = Query(pattern="^[0-9]+(,[0-9]+)*$", max_length=2000)) -> dict[str, Any]:
        """Samples of one order, with their scores, in the given order."""
        with context.open() as store:
            return {"items": sample_views(store, [store.sample(min(int(part), 2**62)) for part in ids.split(",")])}

    @router.get("/samples/{sample_id}")
    def detail(sample_id: int) -> dict[str, Any]:
        with context.open() as store:
            return sample_detail(store, store.sample(sample_id))

    @router.post("/samples/curate")
    def curate(body: Curate) -> dict[str, Any]:
        by_state: dict[Curation, list[int]] = {}
        kept: dict[int, Curation] = {}
        with context.open() as store, store.write():
            store.need_own_samples(body.project_id, body.states)
            if body.expected:
                now = {row.id: row.curation for row in store.sample_rows(body.project_id) if row.id in body.expected}
                kept = {sample_id: state for sample_id, state in now.items() if state != body.expected[sample_id]}
            for sample_id, state in body.states.items():
                if sample_id not in kept:
                    by_state.setdefault(state, []).append(sample_id)
            before: dict[int, Curation] = {}
            for state, ids in by_state.items():
                before |= store.curate(ids, state, actor=context.actor)
        return {"before": before, "kept": kept}

    @router.post("/pairs/next")
    def next_pairs(body: NextPairs) -> dict[str, Any]:
        from saadi.pairing import next_vote_pairs  # here, because scikit-learn and evalica would slow the start

        with context.open() as store:
            exclude = {(min(pair), max(pair)) for pair in body.exclude}
            chosen = next_vote_pairs(store, body.project_id, voter=context.actor, count=body.count, exclude=exclude)
            pairs = [(store.sample(item.left_id), store.sample(item.right_id), item.kind) for item in chosen]
            asked = asked_classes(store, body.project_id, [left.label_map_blob for left, _, _ in pairs])
            # Blind: no score, no adapter and no seed leaves the server before the vote is stored.
            return {
                "pairs": [
                    {
                        "left_id": left.id,
                        "right_id": right.id,
                        "left": left.blob,
                        "right": right.blob,
                        "label_map_blob": left.label_map_blob,
                        "kind": kind,
                    }
                    | told_class(asked, left.label_map_blob)
                    for left, right, kind in pairs
                ],
                "my_votes": store.count_votes(body.project_id, voter=context.actor),
            }

    @router.post("/pairs/build")
    def build(body: dict[str, int]) -> dict[str, Any]:
        from saadi.pairing import build_pairs

        with context.open() as store:
            project = store.project(int(body.get("project_id", 0)))
            built = build_pairs(store, project.id, actor=context.actor)
            return {"pair_set_id": built.id, "num_pairs": len(built.pairs), "summary": built.summary}

    @router.post("/votes")
    def vote(body: CastVote) -> dict[str, Any]:
        from saadi.asking import checked_kind

        with context.open() as store:
            cast = store.add_vote(
                body.project_id,
                left_id=body.left_id,
                right_id=body.right_id,
                answer=body.answer,
                voter=context.actor,
                request_id=body.request_id,
                response_ms=body.response_ms,
                reasons=body.reasons,
                kind=checked_kind(body.kind, body.left_id, body.right_id),
                block=body.block,
            )
            return {"vote_id": cast.id}

    @router.post("/votes/undo")
    def undo(body: UndoVote) -> dict[str, Any]:
        with context.open() as store:
            return {"vote_id": store.undo_vote(body.vote_id, voter=context.actor, request_id=body.request_id).id}

    return router
