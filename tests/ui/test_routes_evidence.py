"""Routes of the Evidence tab: runs, the arms of a running one, minutes before it begins."""

from __future__ import annotations

import pytest

from saadi import orders
from saadi.evidence.pace import estimated_minutes

ORDER = {"num_real": 8, "seeds": 1, "shares": [1], "rounds": 1}


def test_too_few_images_are_told_before_the_button_is_pressed(client, project, image):
    found = client.post(f"/api/projects/{project.id}/evidence/plan", json={"values": ORDER}).json()
    assert found["minutes"] is None
    assert found["missing"] == (
        "labelled images to train on: 1, of other patients to test on: 0; needed: 8 and 1; import more, "
        "or choose fewer real images"
    )
    odd = client.post(f"/api/projects/{project.id}/evidence/plan", json={"values": {"shares": [-1]}}).json()
    assert odd["missing"].startswith("shares")


def test_runs_are_listed_with_what_they_have_measured_so_far(client, store, project):
    store.add_job("evidence", ORDER, project_id=project.id, actor="x", request_id="r")
    claimed = store.claim_job("me")
    for seed, value in enumerate((0.5, 0.6)):
        store.report_job(claimed, step=seed, total=8, message="m", eta_s=None, metrics={"plain 0": value})
    (run,) = client.get(f"/api/projects/{project.id}/evidence").json()["runs"]
    assert run["arms"] == {"plain 0": 0.55} and run["result"] is None and run["params"] == ORDER
    store.finish_job(claimed, state="done", message="done", result={"arms": {"plain 0": {"dice": [0.5, 0.4, 0.6]}}})
    (run,) = client.get(f"/api/projects/{project.id}/evidence").json()["runs"]
    assert run["arms"] == {} and run["result"]["arms"]["plain 0"]["dice"] == [0.5, 0.4, 0.6]
    assert client.get("/api/projects/99/evidence").status_code == 404


def test_minutes_follow_the_order_and_what_ran_here(store, project):
    order = orders.EvidenceOrder(project_id=1).model_dump()
    plain = estimated_minutes(order, [])
    assert estimated_minutes(order | {"seeds": 6}, []) == pytest.approx(2 * plain, abs=0.11)
    assert estimated_minutes(order | {"shares": (1.0, 2.0)}, []) > plain
    for reused, expected in ((0.0, 2 * plain), (99.0, plain)):  # one that found most of it done says nothing of the pace
        store.add_job("evidence", order, project_id=project.id, actor="x", request_id=f"r{reused}")
        claimed = store.claim_job("me")
        seconds = {"seconds_computed": 120 * plain, "seconds_reused": reused}
        store.finish_job(claimed, state="done", message="done", result=seconds)
        assert estimated_minutes(order, [store.job(claimed.id)]) == pytest.approx(expected, rel=0.02)
