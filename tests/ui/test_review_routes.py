"""Blocks, thumbs and agreement through the routes: each reviewer sees their own numbers, the lead sees all."""

from __future__ import annotations

import pytest

from saadi.records import Score
from tests import builders

BLOCK = "block-0001"


def cast(client, project, left, right, answer="left", *, who="ann", **values):
    body = {"project_id": project.id, "left_id": left, "right_id": right, "answer": answer, "request_id": builders.new_request()}
    return client.post("/api/votes", json=body | values, headers={"x-saadi-person": who})


def test_a_vote_carries_reasons_kind_and_block(client, store, project, scored):
    assert cast(client, project, scored[0], scored[1], reasons=["light", "mask_fit"], block=BLOCK).status_code == 200
    again = cast(client, project, scored[1], scored[0], "right", kind="repeat", block=BLOCK)
    assert again.status_code == 200
    kept = store.votes(project.id)
    assert [(vote.reasons, vote.kind, vote.block) for vote in kept] == [(("light", "mask_fit"), "fresh", BLOCK)]
    assert [repeat.id for repeat, _ in store.repeats(project.id)] == [again.json()["vote_id"]]


@pytest.mark.parametrize("values", [{"reasons": ["beauty"]}, {"reasons": ["light"] * 7}, {"kind": "gold"}, {"block": "x y"}])
def test_what_no_page_sends_is_refused(client, store, project, scored, values):
    assert cast(client, project, scored[0], scored[1], **values).status_code == 422
    assert store.votes(project.id) == []


def test_a_false_repeat_is_refused_in_words(client, store, project, scored):
    answer = cast(client, project, scored[0], scored[1], kind="repeat")
    assert answer.status_code == 400 and "sides swapped" in answer.json()["error"]
    assert store.votes(project.id, with_repeats=True) == []


def test_the_end_of_a_block_tells_what_ones_votes_did(client, project, scored):
    cast(client, project, scored[0], scored[3], who="bob")
    assert cast(client, project, scored[0], scored[3], block=BLOCK).status_code == 200
    cast(client, project, scored[3], scored[0], "right", kind="repeat", block=BLOCK)
    cast(client, project, scored[1], scored[2], block="block-0002")
    told = client.get(f"/api/projects/{project.id}/blocks/{BLOCK}", headers={"x-saadi-person": "ann"}).json()
    assert told["weak"] == [] and told["votes"] == 2 and told["changed_pairs"] == 0  # bob's vote had made the pair already
    assert [(told[name]["hits"], told[name]["total"]) for name in ("repeats", "agreement")] == [(1, 1), (1, 1)]
    other = client.get(f"/api/projects/{project.id}/blocks/block-0002", headers={"x-saadi-person": "ann"}).json()
    assert other["votes"] == 1 and other["changed_pairs"] == 1 and other["agreement"]["total"] == 0
    assert client.get(f"/api/projects/{project.id}/blocks/no").status_code == 422


def test_the_end_of_a_block_tells_where_the_segmenter_is_weak_and_the_next_pairs_do_not(client, store, project, scored):
    metrics = {"val": {"dice_per_class": {"polyp": 0.45}}}
    weak = store.add_model(project.id, kind="selector", architecture={}, file="weak", metrics=metrics, actor="test")
    for rank, sample_id in enumerate(scored):
        dice = 0.9 - 0.2 * rank
        part = {"polyp": {"dice": dice, "iou": dice, "recall": dice}}
        store.add_scores([Score(sample_id, weak.id, "selector", dice, dice, 0.8, part, store.sample(sample_id).label_map_blob)])
    asked = client.post("/api/pairs/next", json={"project_id": project.id, "count": 4}).json()["pairs"]
    assert all(set(pair) == {"left_id", "right_id", "left", "right", "label_map_blob", "kind"} for pair in asked)
    cast(client, project, scored[0], scored[3], block=BLOCK)
    told = client.get(f"/api/projects/{project.id}/blocks/{BLOCK}", headers={"x-saadi-person": "ann"}).json()
    assert told["weak"] == [{"class": "polyp", "votes": 1, "dice": 0.45}]
    sureness = client.get(f"/api/samples/{scored[0]}").json()["sureness"].replace("\u00a0", " ")
    assert sureness == "The segmenter is 80 % sure; it is weak on polyp (45 % on real images)."


def test_nobody_sees_anothers_numbers_outside_the_leads_view(client, project, scored):
    cast(client, project, scored[0], scored[1], who="ann")
    cast(client, project, scored[0], scored[1], "right", who="bob")
    answer = client.get(f"/api/projects/{project.id}/agreement", headers={"x-saadi-person": "ann"})
    assert answer.json()["me"]["voter"] == "ann" and "bob" not in answer.text
    assert answer.json()["alpha"]["verdict"] == "low data" and answer.json()["raw"] == {
        "hits": 0, "total": 1, "low": 0.0, "high": pytest.approx(0.793, abs=1e-3)
    }  # fmt: skip
    assert client.get(f"/api/projects/{project.id}/agreement", headers={"x-saadi-person": "zoe"}).json()["me"] is None


def test_the_lead_sees_who_said_what_and_rules(client, store, project, scored):
    cast(client, project, scored[0], scored[1], who="ann", reasons=["light"])
    cast(client, project, scored[1], scored[0], "left", who="bob")
    path = f"/api/projects/{project.id}/agreement/lead"
    told = client.get(path).json()
    assert [item["voter"] for item in told["reviewers"]] == ["ann", "bob"] and told["num_contests"] == 1
    contest = told["contests"][0]
    assert (contest["left"]["id"], contest["right"]["id"], contest["left"]["dice"]) == (scored[0], scored[1], 0.9)
    assert contest["votes"] == [
        {"voter": "ann", "answer": "left", "reasons": ["light"]},
        {"voter": "bob", "answer": "right", "reasons": []},
    ]
    ruled = cast(client, project, scored[0], scored[1], "right", kind="ruling")
    assert ruled.status_code == 200 and client.get(path).json()["num_contests"] == 0
    client.post("/api/votes/undo", json={"vote_id": ruled.json()["vote_id"], "request_id": builders.new_request()})
    assert client.get(path).json()["num_contests"] == 1


def test_thumbs_are_blind_counted_once_and_taken_back(client, store, project, scored):
    asked = client.post("/api/thumbs/next", json={"project_id": project.id, "count": 2}).json()
    assert set(asked["items"][0]) == {"id", "blob", "label_map_blob"} and asked["mine"] == 0
    first = asked["items"][0]["id"]
    body = {"project_id": project.id, "sample_id": first, "value": "up", "request_id": "thumb-001"}
    assert client.post("/api/thumbs", json=body).json() == {"sample_id": first, "mine": "up", "up": 1, "down": 0}
    assert client.post("/api/thumbs", json=body).json()["up"] == 1
    assert client.post("/api/thumbs/next", json={"project_id": project.id}).json()["mine"] == 1
    down = body | {"value": "down", "request_id": "thumb-002"}
    assert client.post("/api/thumbs", json=down, headers={"x-saadi-person": "bob"}).json()["down"] == 1
    client.post("/api/thumbs", json=body | {"value": "none", "request_id": "thumb-003"})
    assert client.get(f"/api/samples/{first}/thumbs").json() == {"sample_id": first, "mine": "none", "up": 0, "down": 1}
    assert client.post("/api/thumbs", json=body | {"value": "great"}).status_code == 422
    assert client.get("/api/samples/99/thumbs").status_code == 404
