"""The page's answers in a classification project: words of classes, and nothing to draw."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from saadi.jobs import run_worker
from saadi.masks import whole
from saadi.records import LabelClass, Project, Score
from saadi.store import Store
from saadi.worker import HANDLERS
from tests import builders
from ui.payloads import pack
from ui.words import describe_class, sureness

NAMES = ("dissection", "clipping", "bleeding")


@pytest.fixture
def phases(store: Store) -> Project:
    labels = [LabelClass(index, name, "#009e73") for index, name in enumerate(NAMES)]
    return store.create_project("phases", task="classification", classes=labels, resolution=64, actor="ann")


@pytest.fixture
def scored(store: Store, phases: Project) -> list[int]:
    """Two images of the first class in one place, and what selector and judge think."""
    blob = store.class_map(phases, "dissection")
    record = store.add_label_map(phases.id, blob=blob, name="x", author="ann", request_id="import-1", origin="imported")
    samples = builders.add_samples(store, phases, count=2, label_map=record)
    for kind in ("selector", "judge"):
        model = store.add_model(phases.id, kind=kind, architecture={}, file=store.files.put(kind.encode()), actor="ann",
                                metrics={"val": {"f1_per_class": {"dissection": 0.4}, "low_confidence": 0.8}})  # fmt: skip
        for sample, row in zip(samples, ((0.9, 0.1, 0.0), (0.2, 0.7, 0.1)), strict=True):
            seen = store.blobs.put_label_map(whole(int(np.argmax(row)), side=64))
            per_class = {name: {"probability": value} for name, value in zip(NAMES, row, strict=True)}
            store.add_scores([Score(sample.id, model.id, kind, row[0], float(row[0] > 0.5), max(row), per_class, seen)])
    return [sample.id for sample in samples]


def test_a_project_of_classes_has_no_background(client):
    body = {"name": "phases", "task": "classification", "classes": list(NAMES), "resolution": 64}
    assert [item["name"] for item in client.post("/api/projects", json=body).json()["classes"]] == list(NAMES)
    refused = client.post("/api/projects", json=body | {"name": "one", "classes": ["a"]})
    assert refused.status_code == 400
    assert refused.json()["error"] == "a classifier needs two classes to tell apart, got 1; name another one"


def test_there_is_nothing_to_draw(client, store, phases, scored):
    why = "phases has classes of whole images and nothing to draw; choose a class in Generate"
    new = {"project_id": phases.id, "name": "x", "request_id": builders.new_request()}
    assert client.post("/api/label_maps", json=new).json()["error"] == why
    record = store.label_maps(phases.id)[0]
    labels = pack(np.zeros((64, 64), np.uint8))
    save = {"label_map_id": record.id, "rev": 1, "labels": labels, "request_id": builders.new_request()}
    assert client.post("/api/label_maps/save", json=save).json()["error"] == why
    assert len(store.label_maps(phases.id)) == 1 and store.label_map(record.id).rev == 1


def test_an_image_is_told_by_what_the_classifier_takes_it_for(client, phases, scored):
    first, second = (client.get(f"/api/samples/{number}").json() for number in scored)
    assert first["words"].replace("\u00a0", " ") == "The classifier sees dissection (90 %)."
    assert second["words"].replace("\u00a0", " ") == "The classifier takes it for clipping (70 %), not for dissection (20 %)."
    sure = second["sureness"].replace("\u00a0", " ")
    assert sure == "The classifier is only 70 % sure; it is weak on dissection (F1 40 % on real images)."
    assert first["asked"] == ["dissection"] and first["invented"] == [] and first["facts"]["class"] == "dissection"
    assert {"kind": "class", "title": "Class dissection", "text": "of the whole image", "class": 0} in first["lineage"]
    facts = client.get(f"/api/projects/{phases.id}/facts").json()
    assert facts["seen"] == [0, 1] and facts["class_dice"] == [[0.9, 0.2], [0.1, 0.7], [0.0, 0.1]]
    assert facts["masks"][0]["classes"] == [0] and facts["selector"] == [0.9, 0.2]


def test_questions_name_the_class_and_nothing_else(client, phases, scored):
    [pair] = client.post("/api/pairs/next", json={"project_id": phases.id}).json()["pairs"]
    assert pair["class"] == 0 and not {"dice", "scores", "seed"} & pair.keys()
    items = client.post("/api/thumbs/next", json={"project_id": phases.id}).json()["items"]
    assert [item["class"] for item in items] == [0, 0]


def test_a_look_into_the_folders_tells_which_labels_are_no_class(client, store, home, phases, tmp_path: Path):
    for number, label in enumerate(("Clipping", "clipping", "suturing")):
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), np.full((32, 32, 3), 20 * number, np.uint8))
    where = {"project_id": phases.id, "images_dir": str(tmp_path / "pictures")}
    found = client.post("/api/import/scan", json=where).json()
    assert {item["name"].casefold(): item["class"] for item in found["labels"]} == {"clipping": 1, "suturing": None}
    assert found["values"] == [] and found["num_unlabelled"] == 0
    placed = client.post("/api/import/run", json=where | {"request_id": builders.new_request()}).json()
    run_worker(home, HANDLERS, exit_when_idle=True)
    assert store.job(placed["job"]["id"]).result["num_added"] == 2 and store.count_classes(phases.id) == {"clipping": 2}
    overview = client.get(f"/api/projects/{phases.id}/overview").json()
    assert sum(overview["shown"].values()) == store.count_images(phases.id).get("train", 0)


def test_the_label_may_be_a_column_of_a_table(client, store, home, phases, tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), np.full((32, 32, 3), 30 * number, np.uint8))
    (tmp_path / "table.csv").write_text("file,phase,patient\n0,clipping,a\n1,bleeding,a\n2,bleeding,b\n")
    where = {"project_id": phases.id, "images_dir": str(tmp_path / "pictures"), "csv": str(tmp_path / "table.csv"),
             "label_column": "phase"}  # fmt: skip
    assert [item["class"] for item in client.post("/api/import/scan", json=where).json()["labels"]] == [2, 1]
    client.post("/api/import/run", json=where | {"request_id": builders.new_request()})
    run_worker(home, HANDLERS, exit_when_idle=True)
    assert store.count_classes(phases.id) == {"bleeding": 2, "clipping": 1}


def test_words_for_each_case():
    assert describe_class(None, "clipping") == "Not scored yet."
    score = Score(1, 1, "selector", 0.5, 1.0, 0.5, {"clipping": {"probability": 0.5}, "bleeding": {"probability": 0.4}}, "0" * 64)
    assert describe_class(score, "clipping") == "The classifier sees clipping, but is only 50\u00a0% sure."
    assert sureness(0.9, unsure_below=0.8, weak={}, is_classifier=True) == "The classifier is 90\u00a0% sure."
