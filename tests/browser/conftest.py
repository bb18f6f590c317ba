"""A real app in its own process and a real Chromium."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from saadi.records import Score
from saadi.store import Store

ROOT = Path(__file__).resolve().parent.parent.parent
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip


@dataclass
class Studio:
    """One data folder, one port; the app over it can be killed and started again."""

    home: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    script: Path = ROOT / "app.py"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        with (self.home.parent / "app.log").open("ab") as log:
            where = [str(self.home), str(self.port)]
            where = ["--home", where[0], "--port", where[1]] if self.script.name == "app.py" else where
            environment = os.environ | {"SAADI_USER": "ann", "PYTHONPATH": str(ROOT)}
            command = [sys.executable, str(self.script), *where]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
        for _ in range(600):
            try:
                httpx.get(f"{self.url}/healthz", timeout=2)
                return
            except httpx.HTTPError:
                assert self.process.poll() is None, (self.home.parent / "app.log").read_text()[-2000:]
                time.sleep(0.1)
        raise AssertionError("the app did not come up within a minute")

    def kill(self) -> None:
        """As if the power had gone: no clean-up of any kind."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    def score_samples(self) -> None:
        """Invented scores for all samples of project 1, so that there is something to vote on."""
        with Store.open(self.home) as store:
            for kind in ("selector", "judge"):
                model = store.add_model(
                    1, kind=kind, architecture={}, file=store.files.put(kind.encode()), metrics={}, actor="test"
                )
                store.add_scores(
                    Score(sample.id, model.id, kind, 0.5, 0.5, 0.5, {}, sample.label_map_blob) for sample in store.samples(1)
                )

    def get(self, path: str) -> dict:
        answer = httpx.get(self.url + path, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def job_of_kind(self, kind: str, *, timeout_s: float = 30) -> dict[str, Any]:
        """The one job of a kind that waits or runs, once the page's order has arrived."""
        deadline = time.monotonic() + timeout_s
        while not (found := [job for job in self.get("/api/jobs")["active"] if job["kind"] == kind]):
            assert time.monotonic() < deadline, f"no job {kind} was ordered"
            time.sleep(0.05)
        [job] = found
        return job

    def wait_for_jobs(self, *, timeout_s: float) -> list[dict]:
        """Wait until nothing runs or waits; return the last jobs, newest first."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            jobs = self.get("/api/jobs?limit=50")
            if not jobs["active"]:
                return jobs["recent"]
            time.sleep(0.3)
        raise AssertionError(f"still busy: {jobs['active']}")


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    """A started app with the demo project."""
    made = Studio(tmp_path / "home")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Studio]:
    """A program without any project, with a worker."""
    made = Studio(tmp_path / "home", script=Path(__file__).with_name("serve_empty.py"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    """One for all tests of a file: it takes two seconds to start, and pages share nothing but it."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages, each a person of their own; fails on script errors and on any request that leaves this computer."""
    complaints: list[str] = []

    def check(request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            complaints.append(f"request to {request.url}")

    def open_page(*, is_first_visit: bool = False, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1366, "height": 768}, **options)
        if not is_first_visit:
            context.add_init_script("localStorage.setItem('saadi.welcomed', '1')")
        opened = context.new_page()
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("request", check)
        return opened

    yield open_page
    for context in browser.contexts:
        for opened in context.pages:
            opened.unroute_all(behavior="ignoreErrors")  # an answer may be under way
        context.close()
    assert not complaints, complaints


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """One page at 1366 x 768."""
    return new_page()
