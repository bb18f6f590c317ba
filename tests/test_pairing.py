"""From a store: what is asked next, what a block changed, what waits for the lead."""

from __future__ import annotations

import numpy as np
import pytest

from saadi import pairing
from saadi.asking import is_in_shared_set, purpose
from saadi.errors import BadInputError
from saadi.records import Answer, LabelClass, Project, Sample, Score
from saadi.store import Store
from tests.builders import add_label_map, add_samples, new_request

DICE = (0.8, 0.7, 0.7, 0.3)


@pytest.fixture
def samples(store: Store, project: Project) -> list[Sample]:
    """Four scored samples of each of ten label maps."""
    models = {kind: store.add_model(project.id, kind=kind, architecture={}, file=store.files.put(kind.encode()), metrics={},
                                    actor="test") for kind in ("selector", "judge")}  # fmt: skip
    made = []
    for number in range(10):
        group = add_samples(store, project, count=4, label_map=add_label_map(store, project, value=1, size_px=16 + number))
        for dice, sample in zip(DICE, group, strict=True):
            store.add_scores([Score(sample.id, models["selector"].id, "selector", dice, dice, 1, {}, sample.label_map_blob),
                              Score(sample.id, models["judge"].id, "judge", 0.7, 0.7, 1, {}, sample.label_map_blob)])  # fmt: skip
        made += group
    return made


def vote(store: Store, left: Sample, right: Sample, answer: Answer, voter: str = "ann", **values) -> None:
    sides = {"left_id": left.id, "right_id": right.id}
    store.add_vote(left.project_id, **sides, answer=answer, voter=voter, request_id=new_request(), **values)


def test_two_reviewers_overlap_and_repeats_come_back(store: Store, project: Project, samples: list[Sample]):
    for voter in ("ann", "bob"):
        for _ in range(40):
            asked = pairing.next_vote_pairs(store, project.id, voter=voter, count=1, exclude=set())[0]
            store.add_vote(project.id, left_id=asked.left_id, right_id=asked.right_id, answer="left", voter=voter,
                           request_id=new_request(), kind=asked.kind)  # fmt: skip
    assert all(1 <= len(store.repeats(project.id, voter=voter)) <= 3 for voter in ("ann", "bob"))
    shared = {vote.pair for vote in store.votes(project.id) if vote.kind == "shared"}
    assert shared and all(is_in_shared_set(*pair) for pair in shared)
    both = [{vote.pair for vote in store.votes(project.id, voter=voter)} for voter in ("ann", "bob")]
    assert len(both[0] & both[1]) >= 5


def test_what_the_browser_holds_and_what_is_ruled_is_not_asked(store: Store, project: Project, samples: list[Sample]):
    held = {(samples[0].id, samples[1].id)}
    vote(store, samples[2], samples[3], "left", "bob")
    vote(store, samples[2], samples[3], "left", "lead", kind="ruling")
    asked = pairing.next_vote_pairs(store, project.id, voter="ann", count=20, exclude=held)
    pairs = {tuple(sorted((item.left_id, item.right_id))) for item in asked}
    assert len(pairs) == 20 and not pairs & {(samples[0].id, samples[1].id), (samples[2].id, samples[3].id)}


def test_a_block_counts_the_training_pairs_it_changed(store: Store, project: Project, samples: list[Sample]):
    # First label map: 0 against 3 is the automatic pair. A vote for it changes its weight; one on 1 and 2 adds a pair.
    vote(store, samples[0], samples[3], "left", block="block-01")
    assert pairing.num_changed_pairs(store, project.id, voter="ann", block="block-01") == 1
    vote(store, samples[1], samples[2], "left", block="block-01")
    assert pairing.num_changed_pairs(store, project.id, voter="ann", block="block-01") == 2
    # Another label map: a tie removes its automatic pair. A skip and another person's vote change nothing.
    vote(store, samples[4], samples[7], "both_good", block="block-01")
    vote(store, samples[8], samples[9], "skip", block="block-01")
    vote(store, samples[13], samples[14], "left", "bob", block="block-01")
    assert pairing.num_changed_pairs(store, project.id, voter="ann", block="block-01") == 3
    assert pairing.num_changed_pairs(store, project.id, voter="ann", block="block-02") == 0


def test_the_count_is_the_difference_of_two_frozen_sets(store: Store, project: Project, samples: list[Sample]):
    before = pairing.build_pairs(store, project.id, actor="t").pairs
    vote(store, samples[1], samples[2], "right", block="block-01")
    vote(store, samples[4], samples[7], "left", block="block-01")
    after = pairing.build_pairs(store, project.id, actor="t").pairs
    differing = {(pair.chosen_blob, pair.rejected_blob, pair.label_map_blob, pair.weight) for pair in after} - {
        (pair.chosen_blob, pair.rejected_blob, pair.label_map_blob, pair.weight) for pair in before
    }
    assert pairing.num_changed_pairs(store, project.id, voter="ann", block="block-01") == len(differing) == 2


def test_repeats_do_not_count_twice_in_the_pairs(store: Store, project: Project, samples: list[Sample]):
    vote(store, samples[1], samples[2], "left")
    once = pairing.build_pairs(store, project.id, actor="t")
    vote(store, samples[2], samples[1], "right", kind="repeat")
    assert pairing.build_pairs(store, project.id, actor="t").id == once.id


def test_a_contested_pair_waits_for_the_lead(store: Store, project: Project, samples: list[Sample]):
    vote(store, samples[1], samples[2], "left")
    vote(store, samples[1], samples[2], "right", "bob")
    assert pairing.build_pairs(store, project.id, actor="t").summary["num_conflicts"] == 1
    assert [(item.first_id, item.second_id) for item in pairing.contests(store, project.id)] == [(samples[1].id, samples[2].id)]
    vote(store, samples[1], samples[2], "right", "lead", kind="ruling")
    assert pairing.contests(store, project.id) == []
    built = pairing.build_pairs(store, project.id, actor="t")
    assert built.summary["num_conflicts"] == 0
    assert (samples[2].blob, samples[1].blob) in [(pair.chosen_blob, pair.rejected_blob) for pair in built.pairs]


def held(*classes: int) -> np.ndarray:
    return np.isin(np.arange(100), classes)


def test_the_rarest_quarter_of_the_classes_is_rare_unless_it_is_everywhere():
    everywhere = {f"m{n}": held(1) for n in range(4)}
    assert pairing.rarest_classes(everywhere) == () == pairing.rarest_classes({})
    mixed = {f"m{n}": held(1, 2, *([3] if n < 4 else []), *([4] if n < 1 else [])) for n in range(10)}
    assert pairing.rarest_classes(mixed) == (4,)  # a quarter of four classes
    assert pairing.rarest_classes(mixed | {"x": held(5)}) == (4, 5)  # of five: rounded up


def test_a_quarter_of_the_scored_pairs_tells_the_rare_class_apart(store: Store, project: Project):
    """Eight label maps that the common class decides, two more that hold a rare one as well."""
    classes = [*project.classes, LabelClass(2, "rare", "#00ff00")]
    wide = store.create_project("wide", task="segmentation", classes=classes, resolution=64, actor="test")
    selector = store.add_model(wide.id, kind="selector", architecture={}, file="s", metrics={}, actor="test")
    common = classes[1].name
    for number in range(10):
        pixels = np.zeros((16, 16), np.uint8)
        pixels[:8, : 4 + number], pixels[12:, :4] = 1, 2 * (number >= 8)
        record = store.add_label_map(wide.id, blob=store.blobs.put_label_map(pixels), name="x", author="ann",
                                     request_id=new_request(), origin="drawn")  # fmt: skip
        group = add_samples(store, wide, count=3, label_map=record)
        for sample, dice in zip(group, ((0.9, 0.6), (0.4, 0.6), (0.88, 0.2)), strict=True):
            parts = {common: {"dice": dice[0]}} | ({"rare": {"dice": dice[1]}} if number >= 8 else {})
            score = np.mean([part["dice"] for part in parts.values()])
            store.add_scores([Score(sample.id, selector.id, "selector", float(score), 0, 0.9, parts, record.blob)])
    found = pairing.settle(store, wide.id)
    assert found.summary["num_pairs"] == 12 and found.summary["num_rare"] == 2  # all that there are
    assert found.pairs == pairing.settle(store, wide.id).pairs


def test_single_images_without_a_verdict_come_first_then_those_the_models_dispute(
    store: Store, project: Project, samples: list[Sample]
):
    # |selector - judge| is 0.1, 0, 0, 0.4 in each label map.
    store.add_thumb(project.id, sample_id=samples[3].id, value="up", voter="bob", request_id=new_request())
    asked = pairing.next_thumbs(store, project.id, voter="ann", count=40, exclude={samples[7].id})
    assert asked[:8] == [sample.id for sample in samples[11::4]] and asked[-1] == samples[3].id
    assert samples[7].id not in asked and len(asked) == 39
    assert samples[3].id not in pairing.next_thumbs(store, project.id, voter="bob", count=40, exclude=set())


@pytest.fixture
def weak_on_bleeding(store: Store) -> tuple[Project, list[list[Sample]]]:
    """Two label maps: the liver tells the images of the first apart, bleeding, on which the selector is weak, the second's."""
    names = [LabelClass(index, name, "#000000") for index, name in enumerate(("tissue", "liver", "bleeding"))]
    project = store.create_project("weak", task="segmentation", classes=names, resolution=64, actor="test")
    metrics = {"val": {"dice_per_class": {"liver": 0.95, "bleeding": 0.45}}}
    selector = store.add_model(project.id, kind="selector", architecture={}, file="s", metrics=metrics, actor="test")
    made = []
    for number, dice in enumerate(([(0.9, 0.5), (0.5, 0.5)], [(0.9, 0.9), (0.9, 0.2)])):
        group = add_samples(store, project, count=2, label_map=add_label_map(store, project, size_px=16 + number))
        for sample, (liver, bleeding) in zip(group, dice, strict=True):
            parts = {"liver": {"dice": liver}, "bleeding": {"dice": bleeding}}
            mean = (liver + bleeding) / 2
            store.add_scores([Score(sample.id, selector.id, "selector", mean, 0, 0.9, parts, sample.label_map_blob)])
        made.append(group)
    return project, made


def test_a_pair_that_hangs_on_a_weak_class_is_asked_first_and_weighs_less(store: Store, weak_on_bleeding):
    project, (clear, doubtful) = weak_on_bleeding
    settled = pairing.settle(store, project.id)
    by_map = {pair.label_map_blob: pair.weight for pair in settled.pairs}
    assert by_map == {clear[0].label_map_blob: 0.5, doubtful[0].label_map_blob: 0.25} and settled.summary["num_doubted"] == 1
    voters = [f"v{number}" for number in range(40) if purpose(f"v{number}", 0) == "certain"]
    for voter in voters:
        [asked] = pairing.next_vote_pairs(store, project.id, voter=voter, count=1, exclude=set())
        assert {asked.left_id, asked.right_id} == {sample.id for sample in doubtful}
    assert len(voters) > 10


def test_after_a_block_it_is_told_on_how_many_pairs_the_selector_was_weak(store: Store, weak_on_bleeding):
    project, (clear, doubtful) = weak_on_bleeding
    vote(store, *clear, "left")
    vote(store, *doubtful, "right")
    vote(store, *doubtful, "skip", "bob")
    assert pairing.doubted_votes(store, project.id, store.votes(project.id)) == [(2, 1, 0.45)]
    assert pairing.doubted_votes(store, project.id, []) == []


def test_images_painted_into_other_pictures_are_not_compared(store: Store, project: Project):
    """The same mask lies over two real images: what surrounds it is no preference."""
    mask = np.eye(16, dtype=np.uint8)
    pictures = [store.blobs.put_image(np.full((16, 16, 3), value, np.uint8)) for value in (200, 210)]
    for number, picture in enumerate(pictures):
        store.add_image(project.id, blob=picture, size=(16, 16), group_id=f"patient {number}", split="train", actor="test",
                        source_name=f"{number}.png", label_map_blob=store.blobs.put_label_map(mask))  # fmt: skip
    records = store.label_maps(project.id, splits=["train"])
    assert len(records) == 2 and records[0].blob == records[1].blob
    engine = add_samples(store, project, count=1)[0].model_id
    selector = store.add_model(project.id, kind="selector", architecture={}, file=store.files.put(b"s"), metrics={}, actor="test")
    for number, (record, picture) in enumerate(zip(records, pictures, strict=True)):
        for index, dice in enumerate((0.9, 0.3)):
            made = store.add_sample(
                project.id, label_map_id=record.id, label_map_rev=1, label_map_blob=record.blob, seed=index, purpose="pool",
                blob=store.blobs.put_image(np.full((16, 16, 3), 10 * number + index, np.uint8)), engine="stable-diffusion",
                model_id=engine, adapter_id=None, source_blob=picture, is_composite=True,
                settings={"inpaint": {"is_whole": True, "source_blob": picture}})  # fmt: skip
            store.add_scores([Score(made.id, selector.id, "selector", dice, dice, 1, {}, record.blob)])
    pairs = pairing.settle(store, project.id).pairs
    made = {sample.blob: sample.source_blob for sample in store.samples(project.id)}
    assert {(made[pair.chosen_blob], made[pair.rejected_blob]) for pair in pairs if pair.source == "score"} == {
        (picture, picture) for picture in pictures}  # fmt: skip
    assert {(pair.chosen_blob, made[pair.rejected_blob]) for pair in pairs if pair.source == "real"} == {
        (picture, picture) for picture in pictures}  # fmt: skip

    # Nor are they voted on; a vote of an earlier version is neither asked again nor ruled on.
    first, second = (next(sample for sample in store.samples(project.id) if sample.source_blob == one) for one in pictures)
    with pytest.raises(BadInputError, match="painted into different pictures"):
        vote(store, first, second, "left")
    values = {"left_id": first.id, "right_id": second.id, "label_map_blob": first.label_map_blob, "voter": "ann"}
    with store.write():
        store._append_vote(project.id, **values, answer="right", request_id=new_request(), response_ms=None, reasons="[]",
                           kind="fresh", block=None, supersedes=None, is_undo=0)  # fmt: skip
    assert len(store.votes(project.id)) == 1 and pairing.contests(store, project.id) == []
    same = next(sample for sample in store.samples(project.id) if sample.source_blob == pictures[0] and sample.id != first.id)
    vote(store, first, same, "right")
    (contest,) = pairing.contests(store, project.id)
    assert {contest.first_id, contest.second_id} == {first.id, same.id}
