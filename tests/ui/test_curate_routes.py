"""The fast paths of Curate: facts, marks, the nearest real image, the map, thousands of decisions at once."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest

from saadi import curation
from saadi.jobs import run_worker, silent
from saadi.worker import HANDLERS
from tests import builders
from tests.conftest import CLASSES
from tests.test_curation import add_real
from ui.words import nearness


def test_facts_are_columns_of_one_length(client, project, scored):
    answer = client.get(f"/api/projects/{project.id}/facts")
    assert answer.headers["content-encoding"] == "gzip"
    facts = answer.json()
    single = ("classes", "versions", "masks", "unmeasured", "limits")
    columns = {name: values for name, values in facts.items() if name not in single}
    assert facts["id"] == scored
    assert {len(values) for name, values in columns.items() if name != "class_dice"} == {4}
    assert [len(values) for values in facts["class_dice"]] == [4] and len(facts["masks"]) == 1
    plain = client.get(f"/api/projects/{project.id}/facts", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.json() == facts
    assert client.get("/api/projects/99/facts").status_code == 404


def test_a_mark_is_what_shall_be(client, store, project, scored):
    body = {"project_id": project.id, "sample_ids": scored[:2], "kind": "flag", "is_set": True}
    assert client.post("/api/samples/mark", json=body).json() == {"changed": scored[:2]}
    assert client.post("/api/samples/mark", json=body).json() == {"changed": []}  # a resend
    headers = {"X-Saadi-Person": "ben"}
    assert client.get(f"/api/projects/{project.id}/facts", headers=headers).json()["flagged"] == [1, 1, 0, 0]
    assert client.get(f"/api/projects/{project.id}/facts", headers=headers).json()["flagged_by_me"] == [0, 0, 0, 0]
    marks = client.get(f"/api/samples/{scored[0]}/nearest", headers=headers).json()["marks"]
    assert marks == [{"kind": "flag", "person": "ann", "is_mine": False, "note": ""}]
    assert client.post("/api/samples/mark", json=body | {"is_set": False}).json()["changed"] == scored[:2]
    assert client.post("/api/samples/mark", json=body | {"kind": "great"}).status_code == 422
    assert client.post("/api/samples/mark", json=body | {"sample_ids": [999]}).status_code == 400
    assert store.marks(project.id) == []


def test_the_nearest_real_image_comes_with_words(client, store, project, scored):
    path = f"/api/samples/{scored[0]}/nearest"
    assert client.get(path).json()["nearest"] == {}  # nothing was measured yet
    add_real(store, project, 12)
    curation.describe_project(store, project, silent)
    found = client.get(path).json()["nearest"]["look"]
    images = {image.blob: image for image in store.images(project.id)}
    assert images[found["blob"]].source_name == found["name"] and found["label_map_blob"]
    assert found["words"].startswith("Unlike the real images") and found["is_suspicious"] is False
    assert client.get("/api/samples/999/nearest").status_code == 404


def test_a_map_is_ordered_and_then_served(client, store, project, home, scored):
    path = f"/api/projects/{project.id}/map"
    assert client.get(path).json() == {"points": None}
    add_real(store, project, 6)
    body = {"project_id": project.id, "request_id": builders.new_request()}
    assert client.post("/api/orders/map", json=body).json()["job"]["title"] == "Laying out the map"
    run_worker(home, HANDLERS, exit_when_idle=True)
    found = client.get(path).json()
    assert found["samples"] == scored and len(found["images"]) == 6 and found["is_current"]
    assert [len(axis) for axis in found["points"]] == [10, 10]
    assert max(len(number) for number in re.findall(r"0\.\d+", json.dumps(found["points"]))) <= 6  # not 17 digits each
    builders.add_samples(store, project, count=6)
    later = client.get(path).json()
    assert not later["is_current"] and later["num_newer"] == 2  # four of the six were there


def test_ten_thousand_are_listed_and_decided_in_one_step(client, store, project):
    """Behaviour first; the times are bounds against quadratic work, not a benchmark (measured: 0.25 s and 0.3 s)."""
    ids = builders.add_many_samples(store, project, count=10_000)
    started = time.perf_counter()
    assert client.get(f"/api/projects/{project.id}/facts").json()["id"] == ids
    listed = time.perf_counter() - started
    states = {str(sample_id): "accepted" for sample_id in ids}
    body = {"project_id": project.id, "states": states}
    started = time.perf_counter()
    before = client.post("/api/samples/curate", json=body).json()["before"]
    decided = time.perf_counter() - started
    assert store.count_curation(project.id) == {"accepted": 10_000}
    assert builders.count(store, "audit", "action = 'sample.accepted'") == 1
    client.post("/api/samples/curate", json=body | {"states": before})
    assert store.count_curation(project.id) == {"pending": 10_000}
    assert listed < 8 and decided < 8


def test_nothing_is_decided_when_one_image_is_not_of_the_project(client, store, project, scored):
    other = store.create_project("other", task="segmentation", classes=CLASSES, resolution=16, actor="test")
    foreign = builders.add_samples(store, other, count=1)[0].id
    body = {"project_id": project.id, "states": {scored[0]: "accepted", foreign: "accepted"}}
    assert client.post("/api/samples/curate", json=body).status_code == 400
    assert store.count_curation(project.id) == {"pending": 4} and store.count_curation(other.id) == {"pending": 1}


@pytest.mark.parametrize(
    ("share", "start"),
    [(1.0, "Closer than 100"), (0.99, "Closer than 99"), (0.6, "As close as"), (0.1, "Farther from"), (0.0, "Unlike the")],
)
def test_nearness_is_told_in_a_sentence_that_promises_nothing(share, start):
    words = nearness(share, num_unseen=64)
    assert "copy" not in nearness(share, num_unseen=64, has_its_mask=True)  # the same layout was asked for
    assert words.startswith(start)
    assert not re.search("anonym|safe|secure|private", words)


def test_thumbnails_are_small_pictures_of_the_image(client, store):
    import cv2

    pixels = np.zeros((300, 600, 3), np.uint8)
    pixels[:, 300:] = (200, 40, 40)
    answer = client.get(f"/image/{store.blobs.put_image(pixels)}.png?size=128")
    assert answer.headers["content-type"] == "image/jpeg"
    small = cv2.cvtColor(cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert small.shape == (64, 128, 3) and np.abs(small[32, 100].astype(int) - (200, 40, 40)).max() < 8


def test_an_undo_changes_only_what_is_still_as_it_was_left(client, store, project, scored):
    first, second = scored[:2]
    body = {"project_id": project.id, "states": {first: "accepted", second: "accepted"}}
    assert client.post("/api/samples/curate", json=body).json()["kept"] == {}
    store.curate([second], "quarantined", actor="bob")
    undo = {"project_id": project.id, "states": {first: "pending", second: "pending"}, "expected": body["states"]}
    found = client.post("/api/samples/curate", json=undo).json()
    assert found == {"before": {str(first): "accepted"}, "kept": {str(second): "quarantined"}}
    assert store.sample(first).curation == "pending" and store.sample(second).curation == "quarantined"
