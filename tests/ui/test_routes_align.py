"""Routes around an alignment: the plan, progress, going on, the blind test, the tree of versions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from saadi.alignment import resume
from saadi.records import Adapter, Pair
from tests import builders
from ui.routes_align import thinned


@pytest.fixture
def version(store, project) -> Adapter:
    """A version with eight pairs of pictures for the blind test, the first of them equal."""
    engine = store.active_model(project.id, "engine") or builders.add_engine(store, project)
    old = [store.blobs.put_image(np.full((8, 8, 3), number, np.uint8)) for number in range(8)]
    new = old[:1] + [store.blobs.put_image(np.full((8, 8, 3), 100 + number, np.uint8)) for number in range(1, 8)]
    maps = [store.blobs.put_label_map(np.zeros((8, 8), np.uint8))] * 8
    metrics = {"win_rate": 0.8, "win_rate_interval": [0.6, 0.9], "num_masks": 8, "dice_before": 0.8, "dice_after": 0.82,
               "strip_trial_old": old, "strip_trial_new": new, "strip_trial_label_maps": maps}  # fmt: skip
    return store.add_adapter(project.id, model_id=engine.id, parent_id=None, file=engine.file, scale=1, config={},
                             metrics=metrics, actor="x")  # fmt: skip


def test_the_plan_is_told_without_freezing_anything(client, store, project, scored):
    found = client.get(f"/api/projects/{project.id}/alignment").json()
    assert found["num_pairs"] == 1 and found["num_images"] == 4 and found["alarms"]["winner_ratio"] == 1.25
    assert found["missing"]["text"].startswith("1 usable pair, 16 needed: 15 missing") and store.pair_sets(project.id) == []
    assert client.get("/api/projects/99/alignment").status_code == 404


def test_settled_pairs_come_by_pages_and_freeze_nothing(client, store, project, scored):
    found = client.get(f"/api/projects/{project.id}/pairs").json()
    assert (found["num_pairs"], found["total"], found["deciders"]) == (1, 1, {"score": 1}) and store.pair_sets(project.id) == []
    row = found["rows"][0]
    assert (row["first"]["sample_id"], row["second"]["sample_id"]) == (scored[0], scored[3]) and row["weight"] == 0.5
    assert client.get(f"/api/projects/{project.id}/pairs?who=left_out&first=12").json()["rows"] == []
    assert client.get(f"/api/projects/{project.id}/pairs?who=x").status_code == 400
    assert client.get(f"/api/projects/{project.id}/pairs?count=0").status_code == 422
    assert client.get("/api/projects/99/pairs").status_code == 404


def test_blind_pairs_name_no_side_and_answers_are_stored_with_theirs(client, store, project, version):
    shown = client.get(f"/api/adapters/{version.id}/trial").json()
    assert shown["total"] == len(shown["pairs"]) == 7  # equal pictures are not asked about
    assert set(shown["pairs"][0]) == {"pair", "left", "right", "label_map_blob"}
    new = set(version.metrics["strip_trial_new"][1:])
    for number, pair in enumerate(shown["pairs"][:3]):
        wanted = "left" if pair["left"] in new else "right"
        answer = wanted if number < 2 else {"left": "right", "right": "left"}[wanted]
        body = {"adapter_id": version.id, "pair": pair["pair"], "answer": answer, "request_id": f"trial-{number}-x"}
        assert client.post("/api/trials", json=body).json() == client.post("/api/trials", json=body).json()
    stored = store.trials(project.id)
    assert [trial.prefers_new for trial in stored] == [True, True, False] and {trial.voter for trial in stored} == {"ann"}
    for trial, pair in zip(stored, shown["pairs"], strict=False):
        assert (trial.new_blob == pair["left"]) == trial.new_is_left
    assert len(client.get(f"/api/adapters/{version.id}/trial").json()["pairs"]) == 4
    result = client.get(f"/api/adapters/{version.id}/trial/result").json()
    assert result["mine"] == result["all"] and (result["mine"]["new"], result["mine"]["old"]) == (2, 1)


def test_answers_outside_the_test_are_refused(client, version):
    body = {"adapter_id": version.id, "pair": 0, "answer": "left", "request_id": "trial-000"}
    assert client.post("/api/trials", json=body).status_code == 400  # both pictures are equal there
    assert client.post("/api/trials", json=body | {"pair": 77}).status_code == 400
    assert client.post("/api/trials", json=body | {"pair": 1, "answer": "new"}).status_code == 422
    assert client.post("/api/trials", json=body | {"pair": 1, "new_is_left": True}).status_code == 422
    assert client.post("/api/trials", json=body | {"adapter_id": 99}).status_code == 404


def test_versions_tell_their_card_who_decided_and_what_people_saw(client, store, project, version):
    choose = {"project_id": project.id, "adapter_id": version.id, "decision": "accept", "reason": "sharper"}
    client.post("/api/adapters/choose", json=choose)
    pair = client.get(f"/api/adapters/{version.id}/trial").json()["pairs"][0]
    client.post("/api/trials", json={"adapter_id": version.id, "pair": pair["pair"], "answer": "left", "request_id": "trial-1x"})
    found = client.get(f"/api/projects/{project.id}/versions").json()
    item = found["items"][0]
    assert item["headline"] == "2 of 2 say yes." and len(item["questions"]) == 4
    assert (item["decision"]["who"], item["decision"]["what"], item["decision"]["why"]) == ("ann", "accepted", "sharper")
    assert item["trial"]["people"] == 1 and (item["trial_pairs"], item["trial_left"]) == (7, 6)
    assert not any(name.startswith("strip_trial") for name in item["metrics"])  # which side is new stays on the server
    client.post("/api/adapters/choose", json=choose | {"adapter_id": None, "reason": "too dark"})
    base = client.get(f"/api/projects/{project.id}/versions").json()["base"]
    assert (base["who"], base["why"]) == ("ann", "too dark")
    assert client.post("/api/adapters/choose", json=choose | {"reason": "x" * 501}).status_code == 422


def test_versions_of_other_weights_are_told_apart(client, store, project, version):
    newer = builders.add_engine(store, project, content=b"fitted anew")
    found = client.get(f"/api/projects/{project.id}/versions").json()
    assert found["engine_id"] == newer.id != found["items"][0]["model_id"] and len(found["generators"]) == 2
    choose = {"project_id": project.id, "adapter_id": version.id, "decision": "accept"}
    assert "other base weights" in client.post("/api/adapters/choose", json=choose).json()["error"]


def stopped_job(store, home, project, *, step: int):
    engine = store.active_model(project.id, "engine")
    pairs = [Pair("m", "a", "b", "score", 0.5, 0.1 + index) for index in range(16)]
    pair_set = store.freeze_pairs(project.id, pairs, {}, actor="ann")
    params = {"project_id": project.id, "pair_set_id": pair_set.id, "steps": 60, "seed": 3, "model_id": engine.id}
    store.add_job("align", params, project_id=project.id, actor="ann", request_id="first-align")
    job = store.claim_job("w")
    for number in range(1, step + 1):
        store.report_job(job, step=number, total=60, message="", eta_s=None, metrics={"loss": float(number)}, images=None)
    folder = home.job_dir(job.id)
    folder.mkdir(parents=True)
    save_file({"x": np.zeros(1)}, folder / resume.CHECKPOINT, metadata={"state": json.dumps({"step": step})})
    store.finish_job(job, state="cancelled", message="cancelled")
    return store.job(job.id)


def test_a_stopped_alignment_is_offered_again_and_its_curves_go_on(client, store, home, project, scored):
    job = stopped_job(store, home, project, step=20)
    last = client.get(f"/api/projects/{project.id}/alignments/last").json()["job"]
    assert last["id"] == job.id and client.get(f"/api/alignments/{job.id}").json()["continue_from"] == 20
    placed = [client.post(f"/api/jobs/{job.id}/continue", json={"request_id": "continue-1"}).json() for _ in range(2)]
    again = store.job(placed[0]["job"]["id"])
    assert placed[0]["is_new"] and not placed[1]["is_new"] and placed[1]["job"]["id"] == again.id
    assert again.params["continues"] == job.id and {**again.params, **job.params} == again.params  # the same frozen order
    running = store.claim_job("w")
    store.report_job(running, step=21, total=60, message="", eta_s=None, metrics={"loss": 0.5})
    found = client.get(f"/api/alignments/{again.id}").json()
    assert [step for step, _ in found["metrics"]["loss"]] == list(range(1, 22)) and found["continue_from"] is None


def test_a_continuation_stopped_while_it_waited_is_continued_from_the_same_step(client, store, home, project, scored):
    job = stopped_job(store, home, project, step=20)
    first = client.post(f"/api/jobs/{job.id}/continue", json={"request_id": "continue-1"}).json()["job"]
    client.post(f"/api/jobs/{first['id']}/cancel")
    last = client.get(f"/api/projects/{project.id}/alignments/last").json()["job"]
    assert last["id"] == first["id"] and client.get(f"/api/alignments/{last['id']}").json()["continue_from"] == 20
    second = client.post(f"/api/jobs/{last['id']}/continue", json={"request_id": "continue-2"}).json()
    assert second["is_new"] and store.job(second["job"]["id"]).params["continues"] == job.id


def test_nothing_to_go_on_from_says_so(client, store, project):
    job, _ = store.add_job("align", {}, project_id=project.id, actor="ann", request_id="align-001")
    store.cancel_job(job.id, actor="ann")
    answer = client.post(f"/api/jobs/{job.id}/continue", json={"request_id": "continue-1"})
    assert answer.status_code == 400 and "nothing to go on from" in answer.json()["error"]


def test_long_curves_are_thinned_and_keep_their_ends():
    points = [(step, float(step)) for step in range(1, 10_001)]
    found = thinned(points)
    assert len(found) <= 302 and found[0] == points[0] and found[-1] == points[-1] and thinned(points[:50]) == points[:50]


def test_rounds_begin_with_a_pool_and_say_what_they_are(client, store, project, scored):
    for number in range(2):
        store.add_image(project.id, blob=store.blobs.put_image(np.full((16, 16, 3), number, np.uint8)), size=(16, 16),
                        group_id=f"p{number}", split="train", source_name=f"{number}.png",
                        label_map_blob=store.blobs.put_label_map(np.eye(16, dtype=np.uint8)), actor="ann")  # fmt: skip
    body = {"project_id": project.id, "request_id": "rounds-0001", "values": {"rounds": 3, "settings": {"steps": 60}}}
    placed = [client.post("/api/orders/rounds", json=body).json() for _ in range(2)]
    assert [answer["is_new"] for answer in placed] == [True, False]
    job = store.job(placed[0]["job"]["id"])
    assert job.kind == "generate" and job.params["series"]["of"] == 3 and job.params["series"]["settings"] == {"steps": 60}
    assert placed[0]["job"]["what"].startswith("round 1 of 3, 64 masks")
    for values in ({"rounds": 0}, {"rounds": 2, "settings": {"continues": 3}}, {"rounds": 2, "model_id": 1}):
        assert client.post("/api/orders/rounds", json=body | {"request_id": "rounds-0002", "values": values}).status_code == 400
