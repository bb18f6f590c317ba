"""The page's fast paths: what works, and every refusal in one sentence with nothing stored."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import zipfile
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from saadi.datasets import folder
from saadi.jobs import run_worker
from saadi.worker import HANDLERS
from tests import builders
from tests.exports.test_archive import make_export
from ui.payloads import pack, unpack

BAD_LABELS = {
    "not base64": "%%%",
    "not zlib": base64.b64encode(b"hello").decode(),
    "too short": base64.b64encode(zlib.compress(bytes(10))).decode(),
    "zip bomb": base64.b64encode(zlib.compress(bytes(50_000_000), 9)).decode(),
}


def test_the_start_names_projects_and_user(client, project):
    answer = client.get("/api/start")
    assert answer.json()["user"] == "ann" and answer.json()["projects"][0]["name"] == "tiny"
    assert answer.headers["cache-control"] == "no-store"


def test_a_project_gets_background_and_colours(client, store):
    made = client.post("/api/projects", json={"name": "mine", "classes": ["liver", "tip"], "resolution": 128}).json()
    assert [item["name"] for item in made["classes"]] == ["background", "liver", "tip"]
    refused = client.post("/api/projects", json={"name": "mine", "classes": ["liver"], "resolution": 128})
    assert refused.status_code == 400 and "already a project" in refused.json()["error"]
    assert client.post("/api/projects", json={"name": "x", "classes": ["a", "a"]}).status_code == 400


def test_a_stroke_is_saved_on_top_of_its_revision(client, store, project):
    record = builders.add_label_map(store, project)
    drawn = np.ones((16, 16), np.uint8)
    body = {"label_map_id": record.id, "rev": 1, "labels": pack(drawn), "request_id": builders.new_request()}
    assert client.post("/api/label_maps/save", json=body).json()["rev"] == 2
    assert client.post("/api/label_maps/save", json=body).json()["rev"] == 2  # a resend changes nothing
    stored = client.get(f"/api/label_maps/{record.id}").json()
    assert (unpack(stored["labels"], size=(16, 16)) == 1).all()
    assert len(store.label_map_history(record.id)) == 2


def test_a_conflict_answers_with_both_versions(client, store, project):
    record = builders.add_label_map(store, project)
    mine, theirs = np.zeros((16, 16), np.uint8), np.ones((16, 16), np.uint8)
    first = {"label_map_id": record.id, "rev": 1, "labels": pack(theirs), "request_id": builders.new_request()}
    second = first | {"labels": pack(mine), "request_id": builders.new_request()}
    client.post("/api/label_maps/save", json=first)
    answer = client.post("/api/label_maps/save", json=second)
    assert answer.status_code == 409 and "revision 2" in answer.json()["error"]
    assert (unpack(answer.json()["theirs"]["labels"], size=(16, 16)) == 1).all() and answer.json()["yours"] == pack(mine)
    copy = {
        "project_id": project.id,
        "copy_of": record.id,
        "name": "mine",
        "labels": pack(mine),
        "request_id": builders.new_request(),
    }
    assert client.post("/api/label_maps", json=copy).json()["id"] != record.id


def test_another_version_of_a_held_out_mask_is_held_out_too(client, store, project):
    image = store.add_image(
        project.id, blob=store.blobs.put_image(np.zeros((16, 16, 3), np.uint8)), size=(16, 16), group_id="t", split="test",
        source_name="t", label_map_blob=store.blobs.put_label_map(np.eye(16, dtype=np.uint8)), actor="test")  # fmt: skip
    varied = np.fliplr(np.eye(16, dtype=np.uint8)).copy()
    body = {"project_id": project.id, "copy_of": image.label_map_id, "name": "varied", "labels": pack(varied),
            "request_id": builders.new_request()}  # fmt: skip
    made = client.post("/api/label_maps", json=body).json()
    held_ids, held_blobs = store.held_out_label_maps(project.id)
    assert made["id"] in held_ids and store.label_map(made["id"]).blob in held_blobs


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_a_damaged_label_map_is_refused(client, store, project, kind):
    record = builders.add_label_map(store, project)
    body = {"label_map_id": record.id, "rev": 1, "labels": BAD_LABELS[kind], "request_id": builders.new_request()}
    answer = client.post("/api/label_maps/save", json=body)
    assert answer.status_code == 400 and answer.json()["error"]
    assert store.label_map(record.id).rev == 1


def test_an_unknown_class_is_refused_with_counts(client, store, project):
    record = builders.add_label_map(store, project)
    drawn = np.zeros((16, 16), np.uint8)
    drawn[0, :5] = 7
    body = {"label_map_id": record.id, "rev": 1, "labels": pack(drawn), "request_id": builders.new_request()}
    answer = client.post("/api/label_maps/save", json=body)
    assert answer.status_code == 400 and "7 (5 pixels)" in answer.json()["error"]


def test_a_variant_spares_the_mask_of_the_real_image(client, store, project, image):
    body = {"project_id": project.id, "image_id": image.id, "name": "variant", "request_id": builders.new_request()}
    made = client.post("/api/label_maps", json=body).json()
    assert (made["w"], made["h"]) == (24, 16)
    assert store.image(image.id).label_map_id == image.label_map_id
    assert [item["name"] for item in client.get(f"/api/projects/{project.id}/drawings").json()["items"]] == ["variant"]
    attached = client.post("/api/label_maps", json=body | {"attach": True, "request_id": builders.new_request()}).json()
    assert store.image(image.id).label_map_id == attached["id"]


def test_pictures_are_cached_for_good_and_full_size_is_lossless(client, store, project, image):
    full = client.get(f"/image/{image.blob}.png")
    decoded = cv2.imdecode(np.frombuffer(full.content, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (16, 24, 3) and "immutable" in full.headers["cache-control"]
    label_map = store.label_map(image.label_map_id).blob
    over = f"{project.id}/{image.blob}/{label_map}.webp"
    pictures = [
        f"/image/{image.blob}.png?size=16",
        f"/mask/{project.id}/{label_map}.webp",
        f"/outline/{project.id}/{label_map}.png",
    ]
    for path in [*pictures, f"/overlay/{over}", f"/disagreement/{project.id}/{label_map}/{label_map}.webp"]:
        assert client.get(path).status_code == 200, path


@pytest.mark.parametrize("name", ["..%2F..%2Fsaadi.db", "%2e%2e", "A" * 64, "0" * 63, "../../etc/passwd"])
def test_no_name_leaves_the_blob_folder(client, project, name):
    assert client.get(f"/image/{name}.png").status_code in (400, 404)
    assert client.get(f"/static/x/{name}").status_code == 404


def test_samples_come_with_scores_in_words(client, project, scored):
    items = client.get(f"/api/projects/{project.id}/samples").json()["items"]
    assert [item["id"] for item in items] == scored[::-1]
    assert items[-1]["words"] == "The segmenter finds the polyp (90\u00a0%)." and items[0]["words"].startswith(
        "The segmenter misses"
    )
    detail = client.get(f"/api/samples/{scored[0]}").json()
    assert detail["scores"]["judge"]["dice"] == 0.9 and detail["facts"]["seed"] == "0" and detail["asked"] == ["polyp"]
    assert client.get("/api/samples?ids=1,x").status_code == 422


def test_curation_can_be_taken_back(client, store, project, scored):
    body = {"project_id": project.id, "states": {scored[0]: "accepted", scored[1]: "rejected"}}
    before = client.post("/api/samples/curate", json=body).json()["before"]
    assert [store.sample(number).curation for number in scored[:2]] == ["accepted", "rejected"]
    client.post("/api/samples/curate", json={"project_id": project.id, "states": before})
    assert {store.sample(number).curation for number in scored} == {"pending"}
    assert client.post("/api/samples/curate", json=body | {"states": {scored[0]: "great"}}).status_code == 422


def test_pairs_to_vote_on_are_blind(client, project, scored):
    answer = client.post("/api/pairs/next", json={"project_id": project.id, "count": 3}).json()
    assert len(answer["pairs"]) == 3
    assert set(answer["pairs"][0]) == {"left_id", "right_id", "left", "right", "label_map_blob", "kind"}
    seen = [[pair["left_id"], pair["right_id"]] for pair in answer["pairs"]]
    more = client.post("/api/pairs/next", json={"project_id": project.id, "count": 20, "exclude": seen}).json()["pairs"]
    assert not {frozenset(pair) for pair in seen} & {frozenset((pair["left_id"], pair["right_id"])) for pair in more}


def test_a_vote_is_stored_once_and_can_be_undone(client, store, project, scored):
    body = {"project_id": project.id, "left_id": scored[0], "right_id": scored[1], "answer": "left", "request_id": "vote-0001"}
    first, again = (client.post("/api/votes", json=body).json()["vote_id"] for _ in range(2))
    assert first == again and len(store.votes(project.id)) == 1
    client.post("/api/votes/undo", json={"vote_id": first, "request_id": "undo-0001"})
    assert store.votes(project.id) == []
    assert client.post("/api/votes", json=body | {"answer": "maybe", "request_id": "vote-0002"}).status_code == 422


def test_orders_are_checked_before_they_wait(client, store, project, scored):
    def place(kind, **values):
        return client.post(
            f"/api/orders/{kind}", json={"project_id": project.id, "request_id": builders.new_request(), "values": values}
        )

    drawn = store.sample(scored[0]).label_map_id
    job = place("draw", label_map_ids=[drawn], candidates=4, seed=3).json()["job"]
    assert (job["kind"], job["state"], job["label_map_ids"]) == ("generate", "queued", [drawn])
    assert "less than or equal" in place("draw", label_map_ids=[drawn], candidates=4000).json()["error"]
    assert place("fit").status_code == 422 and place("nonsense").status_code == 404
    assert place("export", format="nnunet").json()["error"].startswith("no accepted images")
    assert place("export", format="nnunet", out_dir="/tmp/x").status_code == 400
    assert [entry["id"] for entry in client.get("/api/jobs").json()["active"]] == [job["id"]]
    assert client.post(f"/api/jobs/{job['id']}/cancel").json()["state"] == "cancelled"


def test_too_few_pairs_say_how_many_are_missing(client, project, scored):
    answer = client.post("/api/orders/align", json={"project_id": project.id, "request_id": builders.new_request()})
    assert answer.status_code == 422 and "16 needed" in answer.json()["error"]


def test_a_second_align_click_shows_the_running_job(client, store, project, scored):
    first, _ = store.add_job("align", {}, project_id=project.id, actor="ann", request_id="align-001")
    answer = client.post("/api/orders/align", json={"project_id": project.id, "request_id": builders.new_request()}).json()
    assert answer["is_new"] is False and answer["job"]["id"] == first.id


def test_a_version_is_accepted_and_rolled_back(client, store, project):
    engine = builders.add_engine(store, project)
    made = store.add_adapter(
        project.id, model_id=engine.id, parent_id=None, file="f" * 64, scale=1, config={}, metrics={}, actor="x"
    )
    choose = {"project_id": project.id, "adapter_id": made.id, "decision": "accept"}
    assert client.post("/api/adapters/choose", json=choose).json()["items"][0]["state"] == "accepted"
    client.post("/api/adapters/choose", json=choose | {"adapter_id": None})
    assert store.accepted_adapter(project.id) is None
    assert client.post("/api/adapters/choose", json=choose | {"adapter_id": 999, "decision": "reject"}).status_code == 404


@pytest.fixture
def exported(store, project, home):
    """A small export, as the store knows it."""
    folder = make_export(home.exports / "set", {"images/1.png": b"pixels" * 99})
    sha256 = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    return store.add_export(project.id, format="nnunet", path=str(folder), manifest_sha256=sha256, num_items=1, actor="ann")


def downloads(store):
    return sum(row.action == "export.download" for row in store.audit_rows(limit=100))


def test_an_export_is_downloaded_as_zip(client, store, project, exported):
    other = store.add_export(project.id, format="nnunet", path=exported.path, manifest_sha256="0" * 64, num_items=1, actor="ann")
    assert client.get(f"/api/projects/{project.id}/exports/{other.id}.zip").status_code == 404  # overwritten since
    answer = client.get(f"/api/projects/{project.id}/exports/{exported.id}.zip")
    assert answer.status_code == 200 and answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-disposition"].startswith('attachment; filename="set.zip"')
    with zipfile.ZipFile(io.BytesIO(answer.content)) as read:
        assert read.namelist() == ["set/images/1.png", "set/items.jsonl", "set/manifest.json"] and read.testzip() is None
    shutil.rmtree(exported.path)
    said = client.post(f"/api/exports/{exported.id}/never-left", json={"reason": "a trial of mine"})
    assert said.status_code == 400 and "was downloaded by" in said.json()["error"]
    assert client.get(f"/api/projects/{project.id}/exports/77.zip").status_code == 404


def test_a_broken_download_goes_on_where_it_broke_off(client, store, project, exported):
    url = f"/api/projects/{project.id}/exports/{exported.id}.zip"
    told = client.head(url)
    assert downloads(store) == 0 and told.headers["accept-ranges"] == "bytes" and not told.content
    first = client.get(url, headers={"range": "bytes=0-99"})
    rest = client.get(url, headers={"range": "bytes=100-", "if-range": first.headers["etag"]})
    size = int(told.headers["content-length"])
    assert (first.status_code, rest.status_code) == (206, 206) and downloads(store) == 1
    assert rest.headers["content-range"] == f"bytes 100-{size - 1}/{size}"
    whole = client.get(url)
    assert first.content + rest.content == whole.content and len(whole.content) == size and downloads(store) == 2
    assert client.get(url, headers={"range": "bytes=-30"}).content == whole.content[-30:]
    behind = client.get(url, headers={"range": f"bytes={size}-"})
    assert behind.status_code == 416 and behind.headers["content-range"] == f"bytes */{size}"
    for ignored in ({"range": "bytes=5-", "if-range": '"another version"'}, {"range": "bytes=0-1,5-9"}, {"range": "lines=1-2"},
                    {"range": "bytes=9-5"}, {"range": "bytes=-"}):  # fmt: skip
        answer = client.get(url, headers=ignored)
        assert answer.status_code == 200 and answer.content == whole.content


def test_nobody_takes_an_export_unseen_by_asking_for_its_end(client, store, project, exported):
    assert client.get(f"/api/projects/{project.id}/exports/{exported.id}.zip", headers={"range": "bytes=1-"}).status_code == 206
    assert downloads(store) == 1


def test_a_damaged_export_breaks_the_download_off(client, store, project, exported):
    with open(f"{exported.path}/images/1.png", "ab") as stream:
        stream.write(b"more")
    with pytest.raises(RuntimeError, match="response already started"):  # the server closes the connection
        client.get(f"/api/projects/{project.id}/exports/{exported.id}.zip")


def test_a_folder_is_looked_at_and_imported_as_a_job(client, store, project, home, folder_of_pairs):
    where = {"project_id": project.id, "images_dir": str(folder_of_pairs / "images"), "masks_dir": str(folder_of_pairs / "masks")}
    found = client.post("/api/import/scan", json=where).json()
    assert found["num_pairs"] == 3 and [(item["value"], item["class"]) for item in found["values"]] == [(0, 0), (255, 1)]
    body = where | {"values": {"0": 0, "255": 1}, "request_id": "import-1"}
    placed = client.post("/api/import/run", json=body).json()["job"]
    assert client.post("/api/import/run", json=body).json()["job"]["id"] == placed["id"]
    run_worker(home, HANDLERS, exit_when_idle=True)
    done = client.get(f"/api/jobs/{placed['id']}").json()
    assert done["state"] == "done" and done["message"] == "3 images added" and done["result"]["num_added"] == 3
    assert sum(store.count_images(project.id).values()) == 3
    missing = client.post("/api/import/scan", json=where | {"images_dir": "/no/such/folder"})
    assert missing.status_code == 400 and "no folder" in missing.json()["error"]
    wrong = where | {"values": {"0": 0, "255": 9}, "request_id": "import-2"}
    assert client.post("/api/import/run", json=wrong).status_code == 400


def test_unknown_things_are_not_found(client, project):
    for path in (
        "/api/projects/99/overview",
        "/api/samples/99",
        "/api/jobs/99",
        "/api/label_maps/99",
        "/api/projects/99/samples",
    ):
        answer = client.get(path)
        assert answer.status_code == 404 and answer.json()["error"], path


def test_a_body_with_unknown_fields_is_refused(client, project):
    answer = client.post("/api/pairs/next", json={"project_id": project.id, "sql": "drop"})
    assert answer.status_code == 422 and answer.json()["error"].startswith("sql:")


def test_class_areas_tell_how_usual_a_class_is(client, store, project, image):
    found = client.get(f"/api/projects/{project.id}/class_areas").json()
    share = 25 / (24 * 16)
    assert found["masks"] == 1 and found["classes"]["1"]["share"] == 1.0
    assert found["classes"]["1"]["areas"] == [pytest.approx(share, abs=1e-6)] * 21


def test_a_label_map_is_given_at_the_size_asked_for(client, store, image):
    blob = store.label_map(image.label_map_id).blob
    answer = client.get(f"/api/labels/{blob}?w=48&h=32").json()
    large = unpack(answer["labels"], size=(32, 48))
    assert (large[::2, ::2] == store.label_map_pixels(blob)).all()
    assert client.get(f"/api/labels/{'0' * 64}?w=4&h=4").status_code == 404
    assert client.get(f"/api/labels/{blob}?w=0&h=4").status_code == 422


def test_a_drawing_remembers_the_image_under_it(client, project, image):
    body = {"project_id": project.id, "image_id": image.id, "name": "x", "request_id": "request-under"}
    made = client.post("/api/label_maps", json=body).json()
    assert (made["underlay_id"], made["image_id"]) == (image.id, None)


def test_a_foreign_data_set_is_shown_with_examples_and_open_questions(client, store, project, home, tmp_path):
    pixels = np.zeros((24, 24), np.uint8)
    pixels[2:9, 2:9], pixels[12:20, 12:20], pixels[0, :3] = 7, 90, (20, 40, 60)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    Image.fromarray(np.full((24, 24, 3), 200, np.uint8)).save(tmp_path / "images" / "a.png")
    Image.fromarray(pixels).save(tmp_path / "masks" / "a.png")
    where = {"project_id": project.id, "images_dir": str(tmp_path)}
    found = client.post("/api/import/scan", json=where).json()
    assert [(item["value"], item["class"]) for item in found["values"]] == [(0, None), (7, None), (90, None)]
    assert found["soft"] == {"values": [20, 40, 60], "pixels": 3} and any("smoothed" in line for line in found["findings"])
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["values"][2]["example"].partition(",")[2]))))
    assert shown[64, 64].min() > 190 and shown[20, 20].max() < 60  # bright where the value is, dark elsewhere
    archive = shutil.make_archive(str(tmp_path.parent / f"{tmp_path.name}-set"), "zip", tmp_path)
    again = client.post("/api/import/scan", json=where | {"images_dir": archive}).json()
    assert again["num_pairs"] == 1 and not list((home.path / "tmp").iterdir())


def test_a_long_look_says_how_far_it_is_and_can_be_stopped(client, project, home, tmp_path, monkeypatch):
    where = {"project_id": project.id, "images_dir": str(tmp_path), "look_id": "look-0001"}
    told = []

    def slow(order, images_dir, *, report):
        report(3, 10, "looking at images")
        told.append(client.get("/api/import/scan/look-0001").json())
        assert client.post("/api/import/scan/look-0001/stop", json={}).status_code == 200
        report(4, 10, "looking at images")
        raise AssertionError("it went on")

    monkeypatch.setattr(folder, "scan_order", slow)
    answer = client.post("/api/import/scan", json=where)
    assert answer.status_code == 400 and answer.json()["error"] == "stopped looking; nothing was imported"
    assert told == [{"step": 3, "total": 10, "message": "looking at images"}]
    assert client.get("/api/import/scan/look-0001").json()["message"] is None  # and it is forgotten
    assert client.post("/api/import/scan/look-0001/stop", json={}).status_code == 200
    monkeypatch.undo()
    Image.fromarray(np.full((24, 24, 3), 200, np.uint8)).save(tmp_path / "a.png")
    assert client.post("/api/import/scan", json=where).json()["num_pairs"] == 1  # under the same name


def test_images_without_masks_are_taken_when_that_is_said(client, store, project, home, tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((24, 24, 3), 200, np.uint8)).save(tmp_path / "images" / "a.png")
    where = {"project_id": project.id, "images_dir": str(tmp_path / "images")}
    found = client.post("/api/import/scan", json=where).json()
    assert found["needs_masks"] and not found["has_masks"] and found["kind"] == "a folder of images"
    jobs = [client.post("/api/import/run", json=where | {"request_id": f"import-{number}", "without_masks": bool(number)}).json()
            for number in range(2)]  # fmt: skip
    run_worker(home, HANDLERS, exit_when_idle=True)
    refused, done = (client.get(f"/api/jobs/{job['job']['id']}").json() for job in jobs)
    assert refused["state"] == "failed" and "draw them here" in refused["error"]
    pair = tmp_path / "pair"
    for part, value in (("images", (9, 9, 9)), ("masks", 7)):
        (pair / part).mkdir(parents=True)
        Image.fromarray(np.full((24, 24, 3) if part == "images" else (24, 24), value, np.uint8)).save(pair / part / "b.png")
    body = {"project_id": project.id, "images_dir": str(pair), "request_id": "import-3", "without_masks": True}
    placed = client.post("/api/import/run", json=body).json()["job"]
    run_worker(home, HANDLERS, exit_when_idle=True)
    assert client.get(f"/api/jobs/{placed['id']}").json()["result"]["num_added"] == 1
    assert done["state"] == "done" and [image.label_map_id for image in store.images(project.id)] == [None, None]
