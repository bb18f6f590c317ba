"""The page's way to take a patient out, and what it tells of them."""

from __future__ import annotations

import json

from saadi.store import Store
from tests.exports.builders import full_project


def test_a_patient_is_taken_out_and_back(client, store: Store):
    project = full_project(store)
    where = f"/api/projects/{project.id}"
    listed = client.get(f"{where}/withdrawals").json()
    assert listed["items"] == [] and listed["patients"][0] == {
        "patient": "group-000001", "group": "DOE_JANE", "images": 2, "withdrawn": False}  # fmt: skip
    told = client.get(f"{where}/withdrawals/trace", params={"patient": "group-000001"}).json()
    assert told["images"] == 2 and told["samples"] == {"mask": 3} and not store.withdrawals(project.id)
    made = client.post(f"{where}/withdrawals", json={"patient": "group-000001", "reason": "the patient wrote to us"}).json()
    assert made["patient"] == "group-000001" and "DOE" not in json.dumps(made)
    shown = client.get(f"{where}/images").json()["items"]
    assert [one["withdrawn"] for one in shown[:3]] == [True, True, False] and shown[0]["split"] == "none"
    [item] = client.get(f"{where}/withdrawals").json()["items"]
    assert (item["person"], item["reason"], item["revoked_at"]) == ("ann", "the patient wrote to us", None)
    back = client.post(f"/api/withdrawals/{made['id']}/revoke", json={"reason": "it was somebody else"}).json()
    assert back["revoked_by"] == "ann" and store.withdrawn_groups(project.id) == set()


def test_refusals_change_nothing(client, store: Store):
    project = full_project(store)
    where = f"/api/projects/{project.id}/withdrawals"
    short = client.post(where, json={"patient": "group-000001", "reason": "ok"})
    assert short.status_code == 400 and "a reason of 8 characters" in short.json()["error"]
    nobody = client.post(where, json={"patient": "DOE_JANE", "reason": "the patient wrote to us"})
    assert nobody.status_code == 400 and "choose one of the list" in nobody.json()["error"] and "DOE" not in nobody.text
    assert client.post("/api/withdrawals/7/revoke", json={"reason": "it was somebody else"}).status_code == 404
    assert not store.withdrawals(project.id)


def test_the_lists_say_what_is_tied(client, store: Store, tmp_path):
    from tests.exports.builders import export
    from tests.store.test_withdrawals import tied_project

    project, adapter = tied_project(store)
    export(store, project, tmp_path / "out", format="folders")
    before = client.get(f"/api/projects/{project.id}/exports").json()
    assert before["num_tied"] == 0 and before["items"][0]["withdrawn"] == []
    store.withdraw(project.id, "DOE_JANE", person="ann", reason="the patient wrote to us")
    after = client.get(f"/api/projects/{project.id}/exports").json()
    assert after["num_tied"] == 1 and after["items"][0]["withdrawn"] == [
        "2 images of theirs", "1 image made by a version that may have learnt from them"]  # fmt: skip
    overview = client.get(f"/api/projects/{project.id}/overview").json()
    assert overview["withdrawn"]["adapters"] == [adapter] and len(overview["withdrawn"]["models"]) == 1


def test_an_export_from_before_is_downloaded_no_more(client, store: Store, tmp_path):
    from tests.exports.builders import export

    project = full_project(store)
    number = export(store, project, tmp_path / "out", format="folders").result["export_id"]
    where = f"/api/projects/{project.id}/exports/{number}.zip"
    assert client.get(where).status_code == 200
    record = store.withdraw(project.id, "DOE_JANE", person="ann", reason="the patient wrote to us")
    refused = client.get(where)
    assert refused.status_code == 400 and "hold data of a patient who has withdrawn; export again" in refused.json()["error"]
    assert client.head(where).status_code == 400 and client.get(where, headers={"Range": "bytes=9-"}).status_code == 400
    store.revoke_withdrawal(record.id, person="ann", reason="it was somebody else")
    assert client.get(where).status_code == 200


def test_images_of_a_tied_version_are_downloaded_only_with_a_reason(client, store: Store, tmp_path):
    from tests.exports.builders import export
    from tests.store.test_withdrawals import tied_project

    project, _ = tied_project(store)
    before = export(store, project, tmp_path / "out", format="folders", include_real=False).result["export_id"]
    store.withdraw(project.id, "DOE_JANE", person="ann", reason="the patient wrote to us")
    refused = client.get(f"/api/projects/{project.id}/exports/{before}.zip")
    assert refused.status_code == 400 and "may have learnt from a patient who has withdrawn" in refused.json()["error"]
    after = export(store, project, tmp_path / "next", format="voc", despite_withdrawn="for the ethics board alone")
    assert client.get(f"/api/projects/{project.id}/exports/{after.result['export_id']}.zip").status_code == 200
    assert client.get(f"/api/projects/{project.id}/exports").json()["num_tied_pairs"] == 1
