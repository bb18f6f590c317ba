"""What the page promises before an alignment: counts on a constructed project, and minutes from measured paces."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from saadi import pairing, preferences
from saadi.alignment import plan
from saadi.preferences import merge
from saadi.records import LabelMapRecord, Project, Sample, Score
from saadi.store import Store
from tests import builders
from tests.test_preferences import candidates, vote


def left_out(group, votes) -> dict[str, int]:
    return dict(Counter(item.reason for item in preferences.left_out(group, votes, merge(group, votes))))


@pytest.mark.parametrize(("scores", "votes", "expected"), [
    ((0.9, 0.5), [], {}),
    ((0.80, 0.82), [], {"undecided": 1}),
    ((0.9, 0.4), [vote(1, 2, "right")], {"conflict": 1}),
    ((0.9, 0.4), [vote(1, 2, "both_bad")], {"both_bad": 1}),
    ((0.9, 0.4), [vote(1, 2, "both_good")], {"both_good": 1}),
    ((0.7, 0.7, 0.7), [vote(1, 2, "left"), vote(1, 3, "both_bad", voter="bob")], {"both_bad": 2}),
    ((0.9, 0.8, 0.7, 0.3), [vote(1, 2, "left"), vote(1, 3, "left"), vote(2, 3, "left")], {"cap": 2}),
    # Beyond the cap although somebody called an image of it bad: one reason.
    ((0.9, 0.8, 0.7, 0.3), [vote(1, 2, "left"), vote(1, 3, "left"), vote(1, 4, "left"), vote(2, 3, "both_bad")],
     {"cap": 1, "both_bad": 1}),
    # A ruling stands for what others said of the pair.
    ((0.9, 0.4), [vote(1, 2, "both_bad"), vote(1, 2, "left", voter="lead", kind="ruling")], {}),
    ((0.9, 0.4), [vote(1, 2, "left"), vote(1, 2, "both_good", voter="lead", kind="ruling")], {"both_good": 1}),
    ((0.9, 0.4), [vote(1, 2, "skip")], {}),
    ((0.9, 0.4), [vote(7, 8, "both_bad")], {}),
])  # fmt: skip
def test_every_comparison_left_out_has_one_reason(scores, votes, expected) -> None:
    assert left_out(candidates(*scores), votes) == expected


class Pool:
    """A project with an engine, a selector and a judge, and samples with chosen scores."""

    def __init__(self, store: Store, project: Project) -> None:
        self.store, self.project = store, project
        self.engine = builders.add_engine(store, project)
        self.models = {kind: store.add_model(project.id, kind=kind, architecture={}, file=kind, metrics={}, actor="test")
                       for kind in ("selector", "judge")}  # fmt: skip
        self.seed = 0

    def label_map(self, *, split: str | None = None) -> LabelMapRecord:
        """A mask of its own; `split` = drawn over a real image of that split."""
        self.seed += 1
        pixels = np.zeros((16, 16), np.uint8)
        pixels[self.seed % 12 : self.seed % 12 + 4, 0 : 1 + self.seed // 12] = 1
        blob = self.store.blobs.put_label_map(pixels)
        if split is None:
            return self.store.add_label_map(self.project.id, blob=blob, name="free", author="ann",
                                            request_id=builders.new_request(), origin="drawn")  # fmt: skip
        real = self.store.blobs.put_image(np.full((16, 16, 3), 100 + self.seed, np.uint8))
        image = self.store.add_image(self.project.id, blob=real, size=(16, 16), group_id="p", split=split, source_name="x",
                                     label_map_blob=blob, actor="test")  # fmt: skip
        return self.store.label_map(image.label_map_id)

    def samples(self, record: LabelMapRecord, *scores: float | None) -> list[Sample]:
        made = []
        for score in scores:
            self.seed += 1
            sample = self.store.add_sample(
                self.project.id, label_map_id=record.id, label_map_rev=record.rev, label_map_blob=record.blob, seed=self.seed,
                blob=self.store.blobs.put_image(np.full((16, 16, 3), self.seed, np.uint8)), engine="compact", adapter_id=None,
                model_id=self.store.active_model(self.project.id, "engine").id, settings={}, purpose="pool")  # fmt: skip
            made.append(sample)
            if score is not None:
                selector = self.models["selector"].id
                self.store.add_scores([Score(sample.id, selector, "selector", score, score, 0.9, {}, record.blob)])
        return made

    def part_of(self, sample: Sample, score: float) -> None:
        self.seed += 1
        part = self.store.add_sample(
            self.project.id, label_map_id=sample.label_map_id, label_map_rev=1, label_map_blob=sample.label_map_blob,
            seed=self.seed,
            blob=self.store.blobs.put_image(np.full((16, 16, 3), self.seed, np.uint8)), engine="compact", adapter_id=None,
            model_id=sample.model_id, settings={}, purpose="draw", parent_id=sample.id, source_blob=sample.blob)  # fmt: skip
        selector = self.models["selector"].id
        self.store.add_scores([Score(part.id, selector, "selector", score, score, 0.9, {}, sample.label_map_blob)])


@pytest.fixture
def pool(store: Store, project: Project) -> Pool:
    return Pool(store, project)


def test_each_unusable_image_is_counted_once_and_the_rest_are_the_candidates(pool: Pool) -> None:
    store, project = pool.store, pool.project
    pool.samples(pool.label_map(split="train"), 0.9, 0.4, None)
    pool.samples(pool.label_map(split="test"), 0.9, 0.4)
    pool.samples(pool.label_map(), 0.9)
    quarantined = pool.samples(pool.label_map(), 0.9, 0.8, 0.2)
    store.curate([quarantined[0].id], "quarantined", actor="ann")
    earlier = builders.add_engine(store, project, content=b"earlier")
    builders.add_engine(store, project, content=b"newest")
    assert earlier.id != store.active_model(project.id, "engine").id
    now = pool.samples(pool.label_map(split="train"), 0.9, 0.5)
    found = plan.images_left_out(store, project.id)
    assert found == {"held_out": 2, "other_generator": 7}
    usable = {candidate.sample_id for group in pairing._candidates(store, project.id).values() for candidate in group}
    assert usable == {sample.id for sample in now}
    assert len(usable) + sum(found.values()) == len(store.samples(project.id))


def test_the_other_reasons_too(pool: Pool) -> None:
    pool.samples(pool.label_map(), 0.9, 0.4, None)
    pool.samples(pool.label_map(), 0.9)
    quarantined = pool.samples(pool.label_map(), 0.9, 0.8, 0.2)
    pool.store.curate([quarantined[0].id], "quarantined", actor="ann")
    whole = pool.samples(pool.label_map(), 0.9, 0.8, 0.3)
    pool.part_of(whole[0], 0.95)  # only a part was made anew: compared with the others it would compare their surroundings
    found = plan.images_left_out(pool.store, pool.project.id)
    assert found == {"unscored": 1, "alone": 1, "quarantined": 1, "part": 1}
    usable = sum(len(group) for group in pairing._candidates(pool.store, pool.project.id).values())
    assert usable + sum(found.values()) == len(pool.store.samples(pool.project.id))


def test_the_plan_of_a_small_project_counts_what_it_would_learn(pool: Pool) -> None:
    store, project = pool.store, pool.project
    first, second = pool.samples(pool.label_map(split="train"), 0.9, 0.4)
    close = pool.samples(pool.label_map(), 0.70, 0.71)
    store.add_vote(project.id, left_id=first.id, right_id=second.id, answer="left", voter="ann", request_id="v1")
    found = plan.plan(store, project)
    assert found["by_source"] == {"agreed": 1, "real": 1} and found["num_pairs"] == 2
    assert found["pairs_left_out"] == {"undecided": 1} and found["images_left_out"] == {}
    assert found["votes"] == {"num": 1, "left_out": 0, "agreed": 1, "overruled": 0, "tipped": 0, "people": 1}
    polyp = found["classes"][0]
    # The voted mask has no second pair to vote on; the close one has one.
    assert (polyp["num_pairs"], polyp["num_label_maps"], polyp["is_thin"], polyp["votes_that_help"]) == (2, 2, True, 1)
    assert found["missing"] == {"tab": "vote", "text": "2 usable pairs, 16 needed: 14 missing. Vote on pairs that are too close "
                                "to call, or generate images for more masks."}  # fmt: skip
    assert store.pair_sets(project.id) == []  # looking changes nothing
    store.add_vote(project.id, left_id=close[0].id, right_id=close[1].id, answer="left", voter="bob", request_id="v2")
    assert plan.plan(store, project)["votes"] | {"num": 0} == {"num": 0, "left_out": 0, "agreed": 1, "overruled": 0, "tipped": 1,
                                                                "people": 2}  # fmt: skip


def test_fidelity_is_told_class_by_class_against_real_images(store: Store, project: Project) -> None:
    def knows(**val: object) -> None:
        metrics = {"val": val} if val else {}
        store.add_model(project.id, kind="selector", architecture={}, file=f"{val}", actor="test", metrics=metrics)

    two = [preferences.Candidate(k, "b", 0.5, class_dice=(0.9, dice)) for k, dice in enumerate((0.2, 0.6))]

    def found(candidates: list[preferences.Candidate], *, masks: int) -> dict | None:
        groups = {f"{mask}": candidates for mask in range(masks)}
        settled = pairing.Settled(pairs=[], merged={}, groups=groups, votes={}, summary={})
        return plan.fidelity(store, project, settled)

    assert found(two, masks=4) is None  # there is no selector
    knows(num_images=12, dice_per_class={"background": 0.9, "polyp": 0.7})
    weakest = {"class": 1, "synthetic": pytest.approx(0.4), "real": 0.7}
    assert found(two, masks=4) == {"synthetic": pytest.approx(0.4), "real": 0.7, "weakest": weakest}
    assert found(two, masks=3) is None
    assert found([candidate._replace(class_dice=(0.9, None)) for candidate in two], masks=4) is None
    knows()
    assert found(two, masks=4) is None  # no real image that it has not seen


def test_two_people_overrule_a_score(pool: Pool) -> None:
    first, second = pool.samples(pool.label_map(), 0.9, 0.4)
    for voter in ("ann", "bob"):
        pool.store.add_vote(pool.project.id, left_id=first.id, right_id=second.id, answer="right", voter=voter, request_id=voter)
    assert plan.votes(pairing.settle(pool.store, pool.project.id))["overruled"] == 1


def test_an_empty_project_is_told_where_to_begin(store: Store, project: Project) -> None:
    found = plan.plan(store, project)
    assert found["num_pairs"] == 0 and found["missing"]["tab"] == "generate" and "generator" in found["missing"]["text"]
    builders.add_engine(store, project)
    assert "Train the scorers" in plan.plan(store, project)["missing"]["text"]


def run_job(store: Store, project: Project, params: dict, *, step_s: list[float], check_s: list[float]) -> None:
    job, _ = store.add_job("align", params, project_id=project.id, actor="ann", request_id=builders.new_request())
    job = store.claim_job("w")
    store.report_job(job, step=0, total=9, message="", eta_s=None, metrics={"start_s": 8.0})
    for step, value in enumerate(step_s, start=1):
        store.report_job(job, step=step, total=9, message="", eta_s=None, metrics={"step_s": value})
    for step, value in enumerate(check_s, start=1):
        store.report_job(job, step=step, total=9, message="", eta_s=None, metrics={"check_s": value})
    store.finish_job(job, state="failed", message="x", error="x")


def test_minutes_come_from_what_ran_here(store: Store, project: Project) -> None:
    shipped = plan.pace(store, project)
    assert shipped.num_jobs == 0 and shipped.step_s == pytest.approx(plan.SHIPPED.step_s * (16 / 256) ** 2)
    run_job(store, project, {"batch_size": 4, "gate_masks": 16}, step_s=[1.0, 2.0, 3.0], check_s=[5.0, 7.0, 6.0])
    found = plan.pace(store, project)
    assert (found.step_s, found.check_s, found.start_s, found.batch_size, found.gate_masks) == (2.0, 6.0, 8.0, 4, 16)
    # Another batch and test, brought to those of the newest: 4 s per 8 pairs is 2 s per 4.
    run_job(store, project, {"batch_size": 8, "gate_masks": 32}, step_s=[4.0] * 3, check_s=[12.0])
    found = plan.pace(store, project)
    assert (found.step_s, found.check_s, found.num_jobs, found.batch_size) == (4.0, 12.0, 2, 8)


def test_an_alignment_that_ended_before_its_first_test_tells_nothing(store: Store, project: Project) -> None:
    run_job(store, project, {}, step_s=[1.0] * 5, check_s=[])
    assert plan.pace(store, project).num_jobs == 0


def test_other_image_sizes_are_not_taken_for_a_measure(store: Store, project: Project) -> None:
    other = store.create_project("large", task="segmentation", classes=project.classes, resolution=256, actor="test")
    run_job(store, other, {}, step_s=[9.0] * 5, check_s=[9.0])
    assert plan.pace(store, project).num_jobs == 0 and plan.pace(store, other).num_jobs == 1


def test_the_plan_needs_no_torch() -> None:
    code = "import sys; from saadi.alignment import acceptance, plan, resume, trial; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
