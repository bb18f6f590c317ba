"""Orders that make only a part of a picture anew, through the real worker with a tiny engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saadi import generation, orders, previews
from saadi.config import Home
from saadi.engines import weights
from saadi.engines.regions import named_region
from saadi.errors import BadInputError, CancelledError
from saadi.inpainting import is_part, real_image_of
from saadi.jobs import JobContext, run_worker
from saadi.orders import DrawOrder, GenerateOrder
from saadi.orders.generating import SamplingSettings
from saadi.pairing import _candidates
from saadi.records import Job, LabelClass, LabelMapRecord, Project, RealImage, Score
from saadi.store import Store
from saadi.worker import HANDLERS
from tests import builders, tiny

CLASSES = [LabelClass(0, "tissue", "#000000"), LabelClass(1, "organ", "#009e73"), LabelClass(2, "bar", "#0072b2")]


@pytest.fixture
def real(store: Store) -> RealImage:
    """A real image of 32 x 32 pixels with an organ and a bar, in a project of 16 pixels with a tiny random generator."""
    project = store.create_project("parts", task="segmentation", classes=CLASSES, resolution=16, actor="test")
    made = tiny.engine()
    file = store.files.put(weights.to_bytes(made.denoiser.state_dict()))
    store.add_model(project.id, kind="engine", architecture=made.architecture, file=file, metrics={}, actor="test")
    image, label_map = tiny.scene(1, side=32)
    label_map[4:8] = 2
    added = store.add_image(
        project.id, blob=store.blobs.put_image(image), size=(32, 32), group_id="p1", split="train", source_name="a",
        label_map_blob=store.blobs.put_label_map(label_map), actor="test")  # fmt: skip
    assert added is not None
    return added


def moved(store: Store, real: RealImage, *, class_index: int = 2, also: bool = False) -> LabelMapRecord:
    """The image's mask with the bar further down; `also` with a stroke elsewhere."""
    assert real.label_map_id is not None
    pixels = store.blobs.label_map(store.label_map(real.label_map_id).blob).copy()
    pixels[pixels == class_index] = 0
    pixels[10:14, 20:] = class_index
    if also:
        pixels[28:, :6] = 1
    blob = store.blobs.put_label_map(pixels)
    return store.add_label_map(
        real.project_id, blob=blob, name="moved", author="ann", request_id=builders.new_request(), origin="drawn"
    )


def run(store: Store, home: Home, record: LabelMapRecord, **inpaint: object) -> Job:
    wanted = orders.order(DrawOrder, project_id=record.project_id, label_map_ids=[record.id], seed=3, inpaint=inpaint)
    job, _ = orders.place(store, wanted, actor="ann")
    assert run_worker(home, HANDLERS, exit_when_idle=True)
    assert store.job(job.id).state == "done", store.job_traceback(job.id)
    return store.job(job.id)


def pixels_of(store: Store, blob: str) -> np.ndarray:
    from saadi.masks import fit_image_to

    return fit_image_to(store.blobs.image(blob), side=16)


def test_a_part_of_a_real_image_keeps_its_pixels_and_says_so(store: Store, home: Home, real: RealImage) -> None:
    job = run(store, home, moved(store, real), source={"image_id": real.id}, class_index=2, dilate_px=1)
    samples = [store.sample(number) for number in job.result["sample_ids"]]
    assert len(samples) == 4 and all(sample.is_composite and sample.source_blob == real.blob for sample in samples)
    assert {real_image_of(sample) for sample in samples} == {real.id} and {sample.parent_id for sample in samples} == {None}
    source = pixels_of(store, real.blob)
    changed = [(store.blobs.image(sample.blob) != source).any(axis=-1) for sample in samples]
    assert all(where[:9].any() for where in changed) and not np.stack(changed)[:, 9:].any()  # the bars are in rows 2-6
    assert len({sample.blob for sample in samples}) == 4


def test_the_same_part_again_is_the_same_sample_and_another_source_is_another(store: Store, home: Home, real: RealImage) -> None:
    record = moved(store, real)
    first = run(store, home, record, source={"image_id": real.id}, class_index=2, dilate_px=1)
    again = run(store, home, record, source={"image_id": real.id}, class_index=2, dilate_px=1)
    wider = run(store, home, record, source={"image_id": real.id}, class_index=2, dilate_px=2)
    assert first.result == again.result and not set(first.result["sample_ids"]) & set(wider.result["sample_ids"])


def test_an_edited_image_that_is_edited_again_still_holds_real_pixels(store: Store, home: Home, real: RealImage) -> None:
    record = moved(store, real)
    first = run(store, home, record, source={"image_id": real.id}, class_index=2).result["sample_ids"][0]
    second = run(store, home, record, source={"sample_id": first}, class_index=1).result["sample_ids"][0]
    sample = store.sample(second)
    assert sample.is_composite and sample.parent_id == first and real_image_of(sample) == real.id


def test_a_part_of_a_synthetic_image_stays_synthetic(store: Store, home: Home, real: RealImage) -> None:
    whole, _ = orders.place(
        store, orders.order(DrawOrder, project_id=real.project_id, label_map_ids=[real.label_map_id]), actor="ann"
    )
    run_worker(home, HANDLERS, exit_when_idle=True)
    parent = store.sample(store.job(whole.id).result["sample_ids"][0])
    child = store.sample(run(store, home, moved(store, real), source={"sample_id": parent.id}).result["sample_ids"][0])
    assert (child.parent_id, child.source_blob, child.is_composite) == (parent.id, parent.blob, False)


def test_a_part_is_no_candidate_for_votes_and_alignment(store: Store, home: Home, real: RealImage) -> None:
    record = moved(store, real)
    part = run(store, home, record, source={"image_id": real.id}, class_index=2).result["sample_ids"]
    whole, _ = orders.place(
        store, orders.order(DrawOrder, project_id=real.project_id, label_map_ids=[record.id], seed=3), actor="ann"
    )
    run_worker(home, HANDLERS, exit_when_idle=True)
    selector = store.add_model(real.project_id, kind="selector", architecture={}, file="f", metrics={}, actor="test")
    store.add_scores(
        Score(sample.id, selector.id, "selector", 0.5, 0.5, 0.5, {}, record.blob) for sample in store.samples(real.project_id)
    )
    found = {candidate.sample_id for group in _candidates(store, real.project_id).values() for candidate in group}
    assert found == set(store.job(whole.id).result["sample_ids"]) and not found & set(part)


def painted(store: Store, home: Home, record: LabelMapRecord, **settings: object) -> Job:
    wanted = orders.order(GenerateOrder, project_id=record.project_id, label_map_ids=[record.id], seed=3, candidates=2,
                          settings={"surroundings": "real", **settings})  # fmt: skip
    job, _ = orders.place(store, wanted, actor="ann")
    assert run_worker(home, HANDLERS, exit_when_idle=True)
    assert store.job(job.id).state == "done", store.job_traceback(job.id)
    return store.job(job.id)


def test_a_pool_in_real_surroundings_paints_what_masks_name_and_says_whose_pixels_stay(
    store: Store, home: Home, real: RealImage
) -> None:
    assert real.label_map_id is not None
    record = store.label_map(real.label_map_id)
    samples = [store.sample(number) for number in painted(store, home, record).result["sample_ids"]]
    source = pixels_of(store, real.blob)
    region = named_region(store.blobs.label_map(record.blob), source, side=16)
    for sample in samples:
        assert sample.is_composite and sample.source_blob == real.blob and real_image_of(sample) == real.id
        assert sample.settings["surroundings"] == "real" and not is_part(sample)
        image = store.blobs.image(sample.blob)
        np.testing.assert_array_equal(image[region.weight == 0], source[region.weight == 0])
    assert samples[0].blob != samples[1].blob
    assert {candidate for group in _groups_of(store, real.project_id) for candidate in group} == {item.id for item in samples}


def _groups_of(store: Store, project_id: int) -> list[set[int]]:
    selector = store.add_model(project_id, kind="selector", architecture={}, file="f", metrics={}, actor="test")
    store.add_scores(Score(sample.id, selector.id, "selector", 0.5, 0.5, 0.5, {}, sample.label_map_blob)
                     for sample in store.samples(project_id))  # fmt: skip
    return [{candidate.sample_id for candidate in group} for group in _candidates(store, project_id).values()]


def test_a_guide_is_part_of_the_recipe_and_changes_the_image(store: Store, home: Home, real: RealImage) -> None:
    assert real.label_map_id is not None
    record = store.label_map(real.label_map_id)
    plain = painted(store, home, record).result["sample_ids"]
    guided = painted(store, home, record, guide={"reach_px": 4, "until": 0.5}).result["sample_ids"]
    assert not set(plain) & set(guided)
    assert store.sample(guided[0]).settings["guide"] == {"reach_px": 4, "until": 0.5}
    assert store.sample(guided[0]).blob != store.sample(plain[0]).blob
    assert painted(store, home, record, guide={"reach_px": 4, "until": 0.5}).result["sample_ids"] == guided


def test_recipes_without_later_settings_are_those_of_before() -> None:
    assert SamplingSettings().model_dump() == {"num_inference_steps": None, "guidance_scale": None}


def test_a_mask_that_names_nothing_is_not_painted(store: Store, home: Home, real: RealImage) -> None:
    empty = store.blobs.put_label_map(np.zeros((32, 32), np.uint8))
    calm = store.add_image(real.project_id, blob=store.blobs.put_image(tiny.scene(9, side=32)[0]), size=(32, 32), group_id="p2",
                           split="train", source_name="calm", label_map_blob=empty, actor="test")  # fmt: skip
    assert calm is not None
    with pytest.raises(BadInputError, match="names no class, so that nothing would be painted and a real image would come back"):
        orders.place(store, orders.order(GenerateOrder, project_id=real.project_id, label_map_ids=[calm.label_map_id],
                                         settings={"surroundings": "real"}), actor="ann")  # fmt: skip
    drawn, _ = orders.place(store, orders.order(GenerateOrder, project_id=real.project_id, count=4, candidates=1,
                                                settings={"surroundings": "real"}), actor="ann")  # fmt: skip
    assert run_worker(home, HANDLERS, exit_when_idle=True)
    made = [store.sample(number) for number in store.job(drawn.id).result["sample_ids"]]
    assert made and {sample.label_map_id for sample in made} == {real.label_map_id}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"guide": {"reach_px": 4}}, "shrinks towards the part that is made, and whole images have none"),
        ({"surroundings": "real", "guide": {"reach_px": 65}}, "reach_px"),
        ({"surroundings": "real", "guide": {"reach_px": 4, "until": 1.5}}, "until"),
        ({"surroundings": "painted"}, "surroundings"),
    ],
)
def test_wrong_surroundings_are_refused_in_words(store: Store, real: RealImage, settings: dict, words: str) -> None:
    with pytest.raises((BadInputError, ValueError), match=words):
        orders.place(store, orders.order(GenerateOrder, project_id=real.project_id, label_map_ids=[real.label_map_id],
                                         settings=settings), actor="ann")  # fmt: skip
    assert store.jobs() == []


def test_real_surroundings_need_an_image_under_the_mask(store: Store, real: RealImage) -> None:
    with pytest.raises(BadInputError, match=r"is to be painted into a picture, and mask \d+ has none under it"):
        orders.place(store, orders.order(GenerateOrder, project_id=real.project_id, label_map_ids=[moved(store, real).id],
                                         settings={"surroundings": "real"}), actor="ann")  # fmt: skip


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"source": {"image_id": 1}, "class_index": 9}, "class 9 is not in this project; it has classes 0 to 2"),
        ({"source": {"image_id": 99}, "class_index": 2}, "no image 99"),
        ({"source": {"sample_id": 99}, "class_index": 2}, "no sample 99"),
        ({"source": {}}, "name one picture, by sample_id or by image_id"),
        ({"source": {"image_id": 1, "sample_id": 1}}, "name one picture"),
        ({"source": {"image_id": 1}, "dilate_px": -1}, "dilate_px"),
        ({"source": {"image_id": 1}, "class_index": 2, "speed": 1}, "speed"),
    ],
)
def test_a_wrong_part_is_refused_in_words(store: Store, real: RealImage, values: dict, words: str) -> None:
    with pytest.raises((BadInputError, LookupError, ValueError), match=words):
        wanted = orders.order(
            GenerateOrder, project_id=real.project_id, label_map_ids=[moved(store, real).id], inpaint=values
        )
        orders.place(store, wanted, actor="ann")
    assert store.jobs() == []


def refused(store: Store, real: RealImage, record: LabelMapRecord | None, **inpaint: object) -> None:
    ids = [record.id] if record else None
    wanted = orders.order(GenerateOrder, project_id=real.project_id, label_map_ids=ids, inpaint=inpaint)
    orders.place(store, wanted, actor="ann")


def test_a_mask_that_changed_elsewhere_would_lie_about_the_picture(store: Store, real: RealImage) -> None:
    source = {"image_id": real.id}
    with pytest.raises(BadInputError, match=r"changed elsewhere, too \(now organ\); choose 'What changed'"):
        refused(store, real, moved(store, real, also=True), source=source, class_index=2)
    refused(store, real, moved(store, real, also=True), source=source)  # what changed: both
    with pytest.raises(BadInputError, match="nothing would change; draw the change first"):
        refused(store, real, store.label_map(real.label_map_id), source=source)
    with pytest.raises(BadInputError, match="a part is made anew under one label map; got 0"):
        refused(store, real, None, source=source)


def test_a_picture_of_another_project_is_refused(store: Store, real: RealImage, project: Project) -> None:
    foreign = builders.add_samples(store, project, count=1)[0]
    with pytest.raises(BadInputError, match="belongs to another project"):
        refused(store, real, moved(store, real), source={"sample_id": foreign.id})


def test_a_stop_keeps_whole_batches_only(store: Store, real: RealImage) -> None:
    project, model, reported = store.project(real.project_id), store.active_model(real.project_id, "engine"), []

    def report(step: int, total: int, message: str, **more: object) -> None:
        reported.append(message)
        if message == "images 5 to 8 of 12, step 2 of 3":
            raise CancelledError("cancelled")

    wanted = generation.plan(
        store, project, model=model, adapter=None, settings={"guidance_scale": 1.0}, purpose="draw"
    )
    with pytest.raises(CancelledError):
        generation.generate_samples(store, wanted, [moved(store, real)], candidates=12, seed=0, report=report)
    assert len(reported) == 5 and [sample.seed for sample in store.samples(project.id)] == [0, 1, 2, 3]


def test_a_stop_is_noticed_at_the_very_next_step(store: Store, real: RealImage) -> None:
    wanted = orders.order(DrawOrder, project_id=real.project_id, label_map_ids=[real.label_map_id])
    placed, _ = orders.place(store, wanted, actor="ann")
    context = JobContext(store, store.claim_job("worker"))
    context.report(1, 100, "one")
    context.report(2, 100, "two")
    store.cancel_job(placed.id, actor="ann")
    with pytest.raises(CancelledError):
        context.report(3, 100, "three")  # within the quarter second in which no progress is written


def test_pictures_of_the_work_come_when_due_and_go_with_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(previews.time, "monotonic", lambda: clock[0])
    writer, looks = previews.Previews(tmp_path), []

    def look() -> list[np.ndarray]:
        looks.append(clock[0])
        return [np.full((8, 8, 3), 10 * len(looks), np.uint8)] * (3 - len(looks) // 2)

    for seconds in (0.0, 0.3, 0.6, 0.65, 0.9):
        clock[0] = 100 + seconds
        writer.offer(look)
    assert looks == [100.6, 100.9]  # not in the first half second, and not more often than is shown
    assert previews.found(tmp_path)[0] == 2 and previews.read(tmp_path, 0).startswith(b"\xff\xd8")
    writer.made([4, 5])
    writer.made([6])
    assert previews.made_so_far(tmp_path) == [4, 5, 6]
    previews.Previews(tmp_path)  # the next attempt
    assert previews.found(tmp_path) == (0, 0) and previews.made_so_far(tmp_path) == []
    with pytest.raises(LookupError, match="the job has ended"):
        previews.read(tmp_path, 0)
