"""Rounds: each is a pool and an alignment, each starts from what won, and a killed worker neither loses nor doubles one."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from saadi import orders, worker
from saadi.alignment import rounds
from saadi.config import Home
from saadi.errors import AlignmentStoppedError, BadInputError
from saadi.jobs import JobContext, Outcome, run_job, run_worker
from saadi.orders import training
from saadi.records import Job, Project, Score
from saadi.store import Store
from tests import builders

GOOD = {"win_rate": 0.8, "win_rate_interval": [0.6, 0.9], "num_masks": 8, "dice_before": 0.8, "dice_after": 0.82,
        "dice_interval": [0.01, 0.03], "feature_distance_before": 1.0, "feature_distance_after": 1.0, "features_moved": False,
        "appearance_distance_before": 1.0, "appearance_distance_after": 1.0, "appearance_moved": False, "vendi_before": 5.0,
        "vendi_after": 5.0, "nearest_before": 3.0, "nearest_after": 3.0, "winner_ratio": 1.0}  # fmt: skip
FEWER_KINDS = {"vendi_after": 3.0}
"""Variety collapses: a question of the card says no."""


class Scripted:
    """Handlers that need no torch: pools of scored images, and versions with the metrics that a test names."""

    def __init__(self, *endings: dict[str, Any] | Exception) -> None:
        self.endings = list(endings)

    def generate(self, context: JobContext) -> Outcome:
        store, order = context.store, context.params
        selector = store.active_model(order["project_id"], "selector")
        engine = store.active_model(order["project_id"], "engine")
        for label_map_id in order["label_map_ids"]:
            record = store.label_map(label_map_id)
            for offset in range(order["candidates"]):
                seed = order["seed"] + offset
                sample = store.add_sample(
                    order["project_id"], label_map_id=record.id, label_map_rev=1, label_map_blob=record.blob, seed=seed,
                    blob=store.blobs.put_image(np.full((16, 16, 3), seed % 251, np.uint8)), engine="compact", model_id=engine.id,
                    adapter_id=None, settings={}, purpose="pool")  # fmt: skip
                store.add_scores([Score(sample.id, selector.id, "selector", 0.9 - 0.4 * offset, 0.5, 0.9, {}, record.blob)])
        return Outcome("a pool", lambda store: {"made": len(order["label_map_ids"]) * order["candidates"]})

    def align(self, context: JobContext) -> Outcome:
        ending = self.endings.pop(0)
        if isinstance(ending, Exception):
            raise ending
        order = context.params

        def publish(store: Store) -> dict[str, Any]:
            made = store.add_adapter(order["project_id"], model_id=order["model_id"], parent_id=order["parent_id"],
                                     file=store.files.put(f"lora {context.job.id}".encode()), scale=1.0, config={},
                                     metrics=GOOD | ending, actor=context.job.created_by, job_id=context.job.id)  # fmt: skip
            return {"adapter_id": made.id}

        return Outcome("a version", publish)


@pytest.fixture
def ready(store: Store, project: Project) -> Project:
    for number in range(12):
        label_map = np.zeros((16, 16), np.uint8)
        label_map[number : number + 3, 2:8] = 1
        store.add_image(project.id, blob=store.blobs.put_image(np.full((16, 16, 3), number, np.uint8)), size=(16, 16),
                        group_id=f"p{number}", split="train", source_name=f"{number}.png",
                        label_map_blob=store.blobs.put_label_map(label_map), actor="ann")  # fmt: skip
    builders.add_engine(store, project)
    for kind in ("selector", "judge"):
        store.add_model(project.id, kind=kind, architecture={}, file=kind, metrics={}, actor="ann")
    return project


def script(monkeypatch: pytest.MonkeyPatch, scripted: Scripted) -> None:
    """The worker finds these instead of the recipes that need torch."""
    recipes = {"saadi.generation": scripted.generate, "saadi.alignment.job": scripted.align}
    monkeypatch.setattr(worker, "import_module", lambda name: SimpleNamespace(run_job=recipes[name]) if name in recipes
                        else import_module(name))  # fmt: skip


def run(
    store: Store, home: Home, project: Project, monkeypatch: pytest.MonkeyPatch, *endings: dict[str, Any] | Exception, of: int = 3
) -> list[Job]:
    scripted = Scripted(*endings)
    script(monkeypatch, scripted)
    orders.place(store, rounds.first_order(project.id, rounds=of, masks=10, candidates=2, settings={"steps": 7}), actor="ann")
    run_worker(home, worker.HANDLERS, exit_when_idle=True)
    return list(reversed(store.jobs(project.id)))


def test_each_round_starts_from_the_version_that_won(store, home, ready, monkeypatch):
    jobs = run(store, home, ready, monkeypatch, {}, {}, {})
    assert [(job.kind, job.state) for job in jobs] == [("generate", "done"), ("align", "done")] * 3
    versions = store.adapters(ready.id)
    assert [version.parent_id for version in versions] == [None, versions[0].id, versions[1].id]
    assert [version.state for version in versions] == ["retired", "retired", "accepted"]
    assert [job.params["adapter"] for job in jobs if job.kind == "generate"] == ["none", versions[0].id, versions[1].id]
    assert len({job.params["seed"] for job in jobs if job.kind == "generate"}) == 3  # other images each time
    assert all(job.params["steps"] == 7 for job in jobs if job.kind == "align")
    assert jobs[-1].result["series_ended"] == "all 3 rounds are done"
    assert "round 2 of 3: 4 of 4 say yes" in store.adapter_decisions(ready.id)[1].details["reason"]


def test_a_round_that_brings_nothing_better_is_the_last(store, home, ready, monkeypatch):
    jobs = run(store, home, ready, monkeypatch, {}, AlignmentStoppedError("no checkpoint was better"))
    assert [(job.kind, job.state) for job in jobs] == [("generate", "done"), ("align", "done"), ("generate", "done"),
                                                       ("align", "failed")]  # fmt: skip
    assert store.accepted_adapter(ready.id) == store.adapters(ready.id)[0]


def test_a_version_against_which_a_question_speaks_waits_for_a_person(store, home, ready, monkeypatch):
    jobs = run(store, home, ready, monkeypatch, FEWER_KINDS)
    assert len(jobs) == 2 and "v1 waits for a person" in jobs[-1].result["series_ended"]
    assert store.accepted_adapter(ready.id) is None and store.adapters(ready.id)[0].state == "candidate"


def test_variety_lost_round_by_round_stops_the_series(store, home, ready, monkeypatch):
    """Each round keeps 92 %: no question of the card objects, but after three of them a fifth is gone."""
    loses_some = {"vendi_before": 5.0, "vendi_after": 4.6}
    jobs = run(store, home, ready, monkeypatch, loses_some, loses_some, loses_some, of=4)
    assert [job.kind for job in jobs] == ["generate", "align"] * 3
    assert jobs[-1].result["series_ended"] == (
        "v3 waits for a person: Variety fell to 78% of what it was before the first of 3 rounds."
    )
    assert [adapter.state for adapter in store.adapters(ready.id)] == ["retired", "accepted", "candidate"]


def test_real_images_left_behind_step_by_step_stop_the_series(store, home, ready, monkeypatch):
    """Each round is hardly further from real images than the one before, all together are."""
    drifts = {"appearance_distance_before": 1.0, "appearance_distance_after": 1.2}
    jobs = run(store, home, ready, monkeypatch, drifts, drifts, drifts, of=4)
    assert [job.kind for job in jobs] == ["generate", "align"] * 3
    assert jobs[-1].result["series_ended"] == (
        "v3 waits for a person: The distance to real images in colour and texture grew to 1.73 times what it was before the "
        "first of 3 rounds."
    )


def test_too_few_pairs_end_the_series_and_keep_the_pool(store, home, ready, monkeypatch):
    monkeypatch.setattr(training, "MIN_PAIRS_TO_ALIGN", 1000)
    jobs = run(store, home, ready, monkeypatch, {})
    assert len(jobs) == 1 and jobs[0].state == "done" and "1000 needed" in jobs[0].result["series_ended"]
    assert len(store.samples(ready.id)) == 20


def test_the_next_job_is_placed_with_the_end_of_the_last_or_not_at_all(store, home, ready, monkeypatch):
    """A worker that dies between publishing and ending leaves neither a pool that counts twice nor a lost round."""
    scripted = Scripted({})
    script(monkeypatch, scripted)
    orders.place(store, rounds.first_order(ready.id, rounds=2, masks=10, candidates=2), actor="ann")
    job = store.claim_job("w")
    with monkeypatch.context() as dying:
        dying.setattr(Store, "finish_job", lambda *args, **more: (_ for _ in ()).throw(SystemExit(1)))
        with pytest.raises(SystemExit):
            run_job(store, job, worker.HANDLERS)
    assert [(one.kind, one.state) for one in store.jobs(ready.id)] == [("generate", "queued")]
    run_job(store, store.claim_job("w"), worker.HANDLERS)
    assert [one.kind for one in store.jobs(ready.id)] == ["align", "generate"]


def test_wrong_settings_are_told_before_the_first_round(ready):
    with pytest.raises(BadInputError, match="sdpo_mu"):
        rounds.first_order(ready.id, rounds=2, settings={"sdpo_mu": 3.0})
    for odd in ({"pair_set_id": 1}, ["steps"]):
        with pytest.raises(BadInputError, match="settings of an alignment are steps"):
            rounds.first_order(ready.id, rounds=2, settings=odd)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match=r"series\.of"):
        rounds.first_order(ready.id, rounds=99)
