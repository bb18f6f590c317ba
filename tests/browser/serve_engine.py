"""The page of `serve_tiny` with a tiny random generator and a real worker: `python serve_engine.py HOME PORT`."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import uvicorn

from app import supervise
from saadi.config import Home
from saadi.jobs import WorkerProcess
from saadi.store import Store
from tests.browser import serve_tiny
from ui.context import Context
from ui.server import build_app


def add_generator(store: Store) -> None:
    """Random weights in place of `serve_tiny`'s few bytes: its pictures are noise, its work is real."""
    from saadi.engines import weights
    from tests import tiny

    made = tiny.engine(resolution=64)
    file = store.files.put(weights.to_bytes(made.denoiser.state_dict()))
    store.add_model(1, kind="engine", architecture=made.architecture, file=file, metrics={}, actor="test")


if __name__ == "__main__":
    home = Home(Path(sys.argv[1]))
    with Store.open(home) as opened:
        if not opened.projects():
            serve_tiny.fill(opened)
            add_generator(opened)
    stop, worker = threading.Event(), WorkerProcess(home)
    threading.Thread(target=supervise, args=(worker, stop), daemon=True).start()
    try:
        uvicorn.run(build_app(Context(home, "ann")), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
    finally:
        stop.set()
        worker.stop()
