"""What keeps strangers out of a local program, and heavy libraries out of the page."""

from __future__ import annotations

import subprocess
import sys

import pytest

import app as program
from saadi.errors import BadInputError
from ui.server import MAX_BODY_BYTES, check_host

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9999", "http://localhost:7860", "null"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_other_origins_are_refused_with_every_method(client, origin, method):
    assert client.request(method, "/api/start", headers={"origin": origin}).status_code == 403


def test_requests_of_other_sites_are_refused_but_a_link_opens_the_page(client):
    foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    assert client.get("/api/start", headers=foreign).status_code == 403
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=link, follow_redirects=False).status_code == 303
    assert client.get("/api/start", headers=link).status_code == 403


def test_the_own_page_may_ask(client):
    own = {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}
    assert client.get("/api/start", headers=own).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "0.0.0.0"])
def test_foreign_hosts_are_refused(client, host):
    assert client.get("/healthz", headers={"host": host}).status_code == 400


def test_too_large_bodies_are_refused_also_without_a_length(client):
    assert client.post("/api/projects", content=b"x" * (MAX_BODY_BYTES + 1), headers=JSON).status_code == 413
    parts = (b"x" * 2**20 for _ in range(MAX_BODY_BYTES // 2**20 + 2))
    assert client.post("/api/projects", content=parts, headers=JSON).status_code in (400, 413)  # FastAPI words it its own way


def test_every_answer_carries_the_security_headers(client):
    headers = client.get("/healthz").headers
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert "default-src 'self'" in headers["content-security-policy"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "example.org", "::"])
def test_an_open_address_is_refused_in_one_sentence(host, tmp_path, capsys):
    with pytest.raises(BadInputError, match="no accounts yet"):
        check_host(host)
    assert program.main(["--host", host, "--home", str(tmp_path / "home")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_loopback_is_allowed():
    assert check_host("127.0.0.1") == "127.0.0.1" and check_host("localhost") == "localhost"


def test_the_page_process_never_imports_the_models():
    code = (
        "import sys, tempfile, pathlib\n"
        "from saadi.config import Home\n"
        "from ui.context import Context\n"
        "from ui.server import build_app\n"
        "home = pathlib.Path(tempfile.mkdtemp())\n"
        "build_app(Context(Home(home), 'ann'))\n"
        "import app, saadi.pairing, saadi.demo, saadi.datasets.folder\n"
        "heavy = {'torch', 'diffusers', 'monai', 'peft', 'transformers', 'accelerate'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert oct(home.joinpath('tmp').stat().st_mode)[-3:] == '700'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_votes_and_masks_carry_the_name_of_who_sits_there(client, store, project, scored):
    body = {"project_id": project.id, "left_id": scored[0], "right_id": scored[1], "answer": "left", "request_id": "vote-by-zoe"}
    name = {"x-saadi-person": "Zo%C3%A9%20K."}
    assert client.post("/api/votes", json=body, headers=name).status_code == 200
    assert [vote.voter for vote in store.votes(project.id)] == ["Zoé K."]
    assert client.get("/api/start", headers=name).json()["user"] == "Zoé K."
    assert client.get("/api/start").json()["user"] == "ann"


@pytest.mark.parametrize("name", ["%0Aroot", "x" * 61, "%20ann"])
def test_a_name_that_is_no_plain_text_is_refused(client, name):
    answer = client.get("/api/start", headers={"x-saadi-person": name})
    assert answer.status_code == 400 and "at most 60 characters" in answer.text
