"""The queue in words, lineage, history, revisions and favourites, through the routes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient

from saadi import orders, previews
from saadi.config import Home
from saadi.jobs import JobContext, Outcome, run_job
from saadi.mining import seen
from saadi.mining.weakness import Part
from saadi.records import Job, Project, RealImage, Sample
from saadi.store import Store
from tests import builders
from ui import queue_words
from ui.views import job_view, sample_detail

BOB = {"X-Saadi-Person": "bob"}


@pytest.fixture
def waiting(store: Store, project: Project, image: RealImage) -> list[Job]:
    """Bob's pool of 12 images runs, Ann's fit of a drawing waits behind it."""
    builders.add_engine(store, project)
    pool = orders.order(orders.GenerateOrder, project_id=project.id, count=3, candidates=4, seed=7)
    draw = orders.order(orders.DrawOrder, project_id=project.id, label_map_ids=[image.label_map_id])
    first, _ = orders.place(store, pool, actor="bob")
    claimed = store.claim_job("worker")
    assert claimed is not None
    return [first, orders.place(store, draw, actor="ann")[0], orders.place(store, pool, actor="ann")[0]]


def test_a_waiting_job_says_whose_turn_it_is(store: Store, waiting: list[Job]):
    running = store.job(waiting[0].id)
    store.report_job(running, step=1, total=10, message="image 1", eta_s=40.4)
    turns = [job_view(store, store.job(job.id), viewer="ann")["turn"] for job in waiting]
    assert turns == [
        None,
        "2nd in the queue, after bob's pool of 12 images (about 40 s)",
        "3rd in the queue, after bob's pool of 12 images and 1 more (at least 40 s)",
    ]
    assert job_view(store, store.job(waiting[1].id), viewer="bob")["turn"].startswith("2nd in the queue, after your pool")


def test_turns_read_well_without_an_estimate_and_far_behind(waiting: list[Job]):
    fit = replace(waiting[0], kind="fit", eta_s=None)
    assert queue_words.turn([], viewer="ann") == "next; it starts in a moment"
    assert queue_words.turn([fit], viewer="ann") == "2nd in the queue, after bob's fitting"
    known = replace(fit, eta_s=300)
    assert queue_words.turn([known] * 11, viewer=None).startswith("12th in the queue, after bob's fitting and 10 more")
    assert queue_words.turn([known], viewer=None).endswith("(about 5 min)")
    assert queue_words.turn([fit] * 20, viewer=None).startswith("21st")


def test_the_queue_is_listed_in_its_turn(client: TestClient, store: Store, waiting: list[Job]):
    last = orders.place(
        store, orders.order(orders.DrawOrder, project_id=1, label_map_ids=waiting[1].params["label_map_ids"]), actor="bob"
    )[0]
    active = client.get("/api/jobs").json()["active"]
    assert [job["id"] for job in active] == [waiting[0].id, waiting[1].id, last.id, waiting[2].id]
    assert active[0]["what"] == "3 masks \u00d7 4 \u00b7 version in use \u00b7 seed 7" and active[0]["num_images"] == 12


def test_clearing_stops_my_drawings_only(client: TestClient, store: Store, project: Project, waiting: list[Job]):
    wanted = orders.order(orders.DrawOrder, project_id=project.id, label_map_ids=waiting[1].params["label_map_ids"])
    bobs = orders.place(store, wanted, actor="bob")[0]
    stopped = client.post("/api/jobs/clear", json={"project_id": project.id}).json()["stopped"]
    assert [job["id"] for job in stopped] == [waiting[1].id]
    assert [store.job(job.id).state for job in (*waiting, bobs)] == ["running", "cancelled", "queued", "queued"]
    assert client.post("/api/jobs/clear", json={"project_id": project.id}).json() == {"stopped": []}


def test_previews_are_served_while_the_job_runs_and_gone_after(client: TestClient, store: Store, home: Home, waiting: list[Job]):
    seen = {}

    def handler(context: JobContext) -> Outcome:
        writer = previews.Previews(context.dir)
        writer._last = -1e9  # long ago
        writer.offer(lambda: [np.full((16, 16, 3), shade, np.uint8) for shade in (40, 200)])
        writer.made([sample.id for sample in builders.add_samples(store, store.project(1), count=3)])
        seen["view"] = client.get(f"/api/jobs/{context.job.id}").json()["previews"]
        seen["picture"] = client.get(f"/api/jobs/{context.job.id}/preview/1.jpg")
        seen["made"] = client.get(f"/api/jobs/{context.job.id}/made?limit=2").json()
        return Outcome("done")

    running = store.job(waiting[0].id)
    run_job(store, running, {"generate": handler})
    assert seen["view"]["count"] == 2 and int(seen["view"]["stamp"]) > 0
    assert seen["picture"].headers["content-type"] == "image/jpeg" and seen["picture"].headers["cache-control"] == "no-store"
    assert seen["made"]["count"] == 3 and [item["id"] for item in seen["made"]["items"]] == [3, 2]
    assert client.get(f"/api/jobs/{running.id}").json()["previews"]["count"] == 0
    answer = client.get(f"/api/jobs/{running.id}/preview/1.jpg")
    assert answer.status_code == 404 and answer.json()["error"] == "this preview is gone; the job has ended"


def made_by_job(store: Store, project: Project, image: RealImage, samples: list[Sample], **values: object) -> Job:
    """A finished generation whose images are these."""
    wanted = orders.order(orders.DrawOrder, project_id=project.id, label_map_ids=[image.label_map_id], **values)
    placed, _ = orders.place(store, wanted, actor="ann")
    claimed = store.claim_job("worker")
    assert claimed is not None and claimed.id == placed.id
    store.finish_job(orders.freeze(store, claimed), state="done", message="", result={"sample_ids": [s.id for s in samples]})
    return store.job(placed.id)


def add(store: Store, project: Project, image: RealImage, seed: int, **more: object) -> Sample:
    record, model = store.label_map(image.label_map_id or 0), store.active_model(project.id, "engine")
    assert model is not None
    settings = {"num_inference_steps": 4, "guidance_scale": 1.5, "sampler": "euler", **more.pop("settings", {})}
    return store.add_sample(
        project.id, label_map_id=record.id, label_map_rev=record.rev, label_map_blob=record.blob,
        blob=store.blobs.put_image(np.full((16, 16, 3), seed, np.uint8)), seed=seed, engine="compact", model_id=model.id,
        adapter_id=more.pop("adapter_id", None), settings=settings, purpose="draw", **more)  # fmt: skip


def test_history_holds_all_revisions_and_what_was_asked(client: TestClient, store: Store, project: Project, image: RealImage):
    builders.add_engine(store, project)
    old = made_by_job(store, project, image, [add(store, project, image, 5), add(store, project, image, 6)], seed=5)
    new_blob = store.blobs.put_label_map(np.ones((16, 24), np.uint8))
    store.save_label_map(image.label_map_id or 0, blob=new_blob, rev=1, author="ann", request_id="second-rev")
    new = made_by_job(store, project, image, [add(store, project, image, 5)], seed=5, settings={"num_inference_steps": 9})
    items = client.get(f"/api/projects/{project.id}/generations?label_maps={image.label_map_id}").json()["items"]
    assert [(item["job_id"], item["label_map_rev"], len(item["samples"])) for item in items] == [(new.id, 2, 1), (old.id, 1, 2)]
    assert items[0]["settings"] == {"num_inference_steps": 9, "guidance_scale": None} and items[0]["version"] == "base"
    assert items[1]["settings"]["num_inference_steps"] is None and items[1]["created_by"] == "ann"  # 'auto' stays 'auto'


def test_history_of_another_project_is_refused(client: TestClient, store: Store, project: Project, image: RealImage):
    other = store.create_project("other", task="segmentation", classes=project.classes, resolution=16, actor="ann")
    answer = client.get(f"/api/projects/{other.id}/generations?label_maps={image.label_map_id}")
    assert answer.status_code == 404 and "belongs to another project" in answer.json()["error"]


def test_lineage_leads_from_the_image_to_the_weights(store: Store, project: Project, image: RealImage):
    engine = builders.add_engine(store, project)
    names, parent = [], None
    for number in range(2):
        made = store.add_adapter(
            project.id, model_id=engine.id, parent_id=parent, file=store.files.put(bytes([number])), scale=1, config={},
            metrics={}, actor="ann")  # fmt: skip
        names, parent = [made.name, *names], made.id
    steps = sample_detail(store, add(store, project, image, 5, adapter_id=parent))["lineage"]
    assert [step["kind"] for step in steps] == ["image", "mask", "settings", "version", "weights"]
    titles = {step["kind"]: step["title"] for step in steps}
    assert titles["mask"] == "Mask \u201ca.png\u201d, revision 1 of 1" and titles["settings"] == "Seed 5"
    assert titles["version"] == "v2 \u2190 v1 \u2190 base" and titles["weights"] == f"Weights {engine.id}: {engine.file[:12]}"


def test_an_edited_image_says_what_is_real_in_it(client: TestClient, store: Store, project: Project, image: RealImage):
    builders.add_engine(store, project)
    part = {"image_id": image.id, "class_index": 1, "dilate_px": 4}
    made = add(store, project, image, 5, source_blob=image.blob, is_composite=True, settings={"inpaint": part})
    child = add(store, project, image, 6, source_blob=made.blob, is_composite=True, parent_id=made.id, settings={"inpaint": part})
    detail = client.get(f"/api/samples/{made.id}").json()
    assert detail["badge"] == "edited" and detail["facts"]["pixels"] == "real pixels outside the regenerated region"
    source = next(step for step in detail["lineage"] if step["kind"] == "source")
    assert source["title"] == f"Only polyp, in real image {image.id}" and source["badge"] == "real"
    source = next(step for step in client.get(f"/api/samples/{child.id}").json()["lineage"] if step["kind"] == "source")
    assert source["title"] == f"Only polyp, in image {made.id}" and source["badge"] == "edited"


def test_what_was_painted_as_a_whole_is_no_part(client: TestClient, store: Store, project: Project, image: RealImage):
    builders.add_engine(store, project)
    recipe = {"image_id": image.id, "class_index": None, "dilate_px": 8}
    made = [add(store, project, image, seed, source_blob=image.blob, is_composite=True, settings={"inpaint": recipe | more})
            for seed, more in enumerate(({"is_whole": True}, {}))]  # fmt: skip
    made.append(add(store, project, image, 9))
    made_by_job(store, project, image, made)
    [item] = client.get(f"/api/projects/{project.id}/generations?label_maps={image.label_map_id}").json()["items"]
    assert [sample["is_part"] for sample in item["samples"]] == [False, True, False]
    assert [client.get(f"/api/samples/{sample.id}").json()["is_part"] for sample in made] == [False, True, False]


def test_an_old_revision_becomes_a_new_mask(client: TestClient, store: Store, image: RealImage):
    number = image.label_map_id or 0
    first = store.label_map(number)
    store.save_label_map(
        number, blob=store.blobs.put_label_map(np.ones((16, 24), np.uint8)), rev=1, author="ann", request_id="second-rev"
    )
    body = {"label_map_id": number, "rev": 1, "request_id": "request-1"}
    made = client.post("/api/label_maps/from_revision", json=body).json()
    assert made["blob"] == first.blob and made["id"] != number and made["name"] == "a.png (revision 1)"
    assert client.post("/api/label_maps/from_revision", json=body).json()["id"] == made["id"]  # a resend
    assert store.label_map(number).rev == 2 and store.label_map(made["id"]).image_id is None
    answer = client.post("/api/label_maps/from_revision", json=body | {"rev": 3, "request_id": "request-2"})
    assert answer.status_code == 404 and f"mask {number} has no revision 3" in answer.json()["error"]


def test_favourites_are_my_own(client: TestClient, scored: list[int]):
    def mark(on: bool, headers: dict[str, str], sample_id: int = scored[0]) -> None:
        body = {"project_id": 1, "sample_ids": [sample_id], "kind": "favourite", "is_set": on}
        assert client.post("/api/samples/mark", json=body, headers=headers).status_code == 200

    mark(True, {})
    mark(True, BOB)
    mark(True, {}, scored[1])
    mark(False, {})
    answer = client.get("/api/projects/1/marks").json()
    assert [(item["sample_id"], item["person"]) for item in answer["items"]] == [(scored[0], "bob"), (scored[1], "ann")]
    assert answer["me"] == "ann"


def test_a_mark_on_another_projects_image_is_refused(client: TestClient, store: Store, project: Project, scored: list[int]):
    other = store.create_project("other", task="segmentation", classes=project.classes, resolution=16, actor="ann")
    body = {"project_id": other.id, "sample_ids": [scored[0]], "kind": "favourite", "is_set": True}
    answer = client.post("/api/samples/mark", json=body)
    assert answer.status_code == 400 and store.marks(project.id) == []


def test_what_the_selector_misses_is_told_or_why_it_is_not_known(client: TestClient, store: Store, project: Project):
    path = f"/api/projects/{project.id}/weakness"
    first = client.get(path).json()
    assert first["missing"] == "no_selector" and "no generator yet" in first["cannot_search"]
    model = store.add_model(project.id, kind="selector", architecture={"folds": 2}, file=store.files.put(b"w"), metrics={},
                            actor="test")  # fmt: skip
    assert client.get(path).json()["missing"] == "too_few"
    blob = store.blobs.put_label_map(np.full((16, 16), 1, np.uint8))
    for number in range(6):
        pixels = np.full((16, 16, 3), 30 * number, np.uint8)
        store.add_image(project.id, blob=store.blobs.put_image(pixels), size=(16, 16), group_id=f"g{number}", split="train",
                        source_name=f"{number}", label_map_blob=blob, actor="test")  # fmt: skip
    assert client.get(path).json()["missing"] == "not_looked"
    for number, one in enumerate(seen.labelled(store, project)):
        size, recall = (0.01, 0.2) if number < 3 else (0.3, 1.0)
        part = Part(1, size, 10.0 * number, 4, recall, one.image.group_id)
        store.put_descriptors(seen.space(model), {one.key: seen.pack(seen.Seen(0.5, (part,)))})
    found = client.get(path).json()
    name = project.class_names[1]
    assert (found["missing"], found["num_patients"], found["num_images"]) == (None, 6, 6)
    assert found["classes"][name]["recall"] == 0.6
    assert {(gap["axis"], gap["name"]) for gap in found["gaps"]} == {("size", "small")} and found["gaps"][0]["class"] == name
    assert client.get("/api/projects/99/weakness").status_code == 404


def test_references_are_training_images_with_most_of_the_class_first(client: TestClient, store: Store, project: Project):
    def add(name: str, split: str, rows: int) -> int:
        label_map = np.zeros((32, 32), np.uint8)
        label_map[:rows] = 1
        added = store.add_image(project.id, blob=store.blobs.put_image(np.full((32, 32, 3), rows, np.uint8)), size=(32, 32),
                                group_id=name, split=split, source_name=name, actor="test",
                                label_map_blob=store.blobs.put_label_map(label_map))  # fmt: skip
        assert added is not None
        return added.id

    few, many = add("few", "train", 4), add("many", "train", 20)
    add("none", "train", 0)
    add("held out", "val", 30)
    path = f"/api/projects/{project.id}/references"
    assert [item["id"] for item in client.get(path, params={"class_index": 1}).json()["items"]] == [many, few]
    assert client.get(path, params={"class_index": 2}).json()["items"] == []
    assert client.get(path, params={"class_index": 100}).status_code == 422


def test_a_list_of_jobs_leaves_out_thousands_of_numbers(store: Store, project: Project) -> None:
    placed, _ = store.add_job("surrogates", {}, project_id=project.id, actor="ann", request_id="long")
    claimed = store.claim_job("worker")
    assert claimed is not None and claimed.id == placed.id
    store.finish_job(claimed, state="done", message="x", result={"kept_ids": [1], "unfilled_label_map_ids": [2], "num": 3})
    assert job_view(store, store.job(placed.id))["result"] == {"num": 3}
    assert job_view(store, store.job(placed.id), full=True)["result"]["kept_ids"] == [1]
