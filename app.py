"""SAADi Studio: reads settings, starts the worker, builds the page, serves it on this computer."""

from __future__ import annotations

import argparse
import gc
import sys
import threading
from pathlib import Path

from saadi.config import Home, default_home, user_name
from saadi.errors import SaadiError
from saadi.jobs import WorkerProcess
from ui.context import Context
from ui.server import build_app, check_host

SUPERVISE_EVERY_S = 2.0
MAX_RESTART_DELAY_S = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Run until Ctrl+C; return the exit status."""
    options = _parse(arguments)
    try:
        host = check_host(options.host)
        context = Context(Home(options.home), user_name(), notice="The demo project is being prepared; this takes a moment.")
        with context.open():
            pass  # a newer or damaged data folder is refused here, before the page is up
    except SaadiError as error:
        print(f"saadi: {error}", file=sys.stderr)
        return 1
    threading.Thread(target=get_ready, args=(context,), name="demo", daemon=True).start()
    stop = threading.Event()
    threading.Thread(target=supervise, args=(WorkerProcess(context.home), stop), name="supervisor", daemon=True).start()
    serve(context, host=host, port=options.port)
    stop.set()
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="app.py", description="SAADi Studio. Research use only; not a medical device.")
    parser.add_argument("--home", type=Path, default=default_home(), help="data folder (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address only (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    return parser.parse_args(arguments)


def get_ready(context: Context) -> None:
    """Everything that the page can do without at first."""
    prepare_demo(context)
    warm_up()


def warm_up() -> None:
    """Import what the routes import late, so that the first vote does not wait a second for it, and keep it from the collector.

    A collection that walks through all imported modules takes 50 ms, and the lists of 10,000 images set one off each time.
    """
    import saadi.pairing  # noqa: F401

    gc.collect()
    gc.freeze()


def prepare_demo(context: Context) -> None:
    """Create the demo project unless it is there; the page shows a notice meanwhile, and the reason when it fails."""
    try:
        from saadi.demo import ensure_demo  # here: rendering is not needed where the demo exists

        with context.open() as store:
            ensure_demo(store, actor=context.actor)
        context.notice = None
    except SaadiError as error:
        context.notice = f"The demo project could not be made: {error}"
    except Exception:
        context.notice = "The demo project could not be made; see the terminal. Own projects work."
        raise


def supervise(worker: WorkerProcess, stop: threading.Event) -> None:
    """Keep a worker running; one that dies again and again is restarted ever more slowly."""
    delay_s = SUPERVISE_EVERY_S
    while not stop.is_set():
        before = worker.process
        worker.ensure()
        died = before is not None and worker.process is not before
        delay_s = min(2 * delay_s, MAX_RESTART_DELAY_S) if died else SUPERVISE_EVERY_S
        stop.wait(delay_s)


def serve(context: Context, *, host: str, port: int) -> None:
    """Serve the page with one process: Gradio's queue lives in memory (two workers failed 22 of 24 calls)."""
    import uvicorn

    application = build_app(context)
    print(f"SAADi Studio is at http://{host}:{port}  (data folder: {context.home.path}; stop with Ctrl+C)", flush=True)
    uvicorn.run(application, host=host, port=port, workers=1, log_level="warning", timeout_graceful_shutdown=3)


if __name__ == "__main__":
    sys.exit(main())
