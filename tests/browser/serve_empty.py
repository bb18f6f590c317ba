"""The page over an empty data folder with a real worker, without the demo project: `python serve_empty.py HOME PORT`."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import uvicorn

from app import supervise
from saadi.config import Home
from saadi.jobs import WorkerProcess
from saadi.store import Store
from ui.context import Context
from ui.server import build_app

if __name__ == "__main__":
    home = Home(Path(sys.argv[1]))
    Store.open(home).close()
    stop, worker = threading.Event(), WorkerProcess(home)
    threading.Thread(target=supervise, args=(worker, stop), daemon=True).start()
    try:
        uvicorn.run(build_app(Context(home, "ann")), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
    finally:
        stop.set()
        worker.stop()
