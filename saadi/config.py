"""Where data live and how much is allowed; the only reader of environment variables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

VERSION = "0.1.0.dev0"
"""The release; the same as in pyproject.toml."""
MAX_SIDE_PX = 8192
MIN_SIDE_PX = 16
MAX_FILE_BYTES = 25 * 2**20
"""One picture; a 4K endoscopy frame as PNG is about 12 MB."""
MAX_WEIGHTS_HEADER_BYTES = 2**20
"""A safetensors header of 19 MB with 300,000 empty tensors takes 17 s to parse; ours are below 100 kB."""


@dataclass(frozen=True)
class Home:
    """The data folder and the fixed places in it."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "saadi.db"

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def files(self) -> Path:
        return self.path / "files"

    @property
    def jobs(self) -> Path:
        return self.path / "jobs"

    @property
    def exports(self) -> Path:
        return self.path / "exports"

    @property
    def evidence(self) -> Path:
        return self.path / "evidence"

    @property
    def worker_lock(self) -> Path:
        return self.path / "worker.lock"

    @property
    def worker_log(self) -> Path:
        return self.path / "worker.log"

    def job_dir(self, job_id: int) -> Path:
        return self.jobs / str(job_id)


def default_home() -> Path:
    """`SAADI_HOME`, else the user's data folder of the operating system."""
    return Path(os.environ.get("SAADI_HOME") or platformdirs.user_data_dir("saadi-studio", appauthor=False))


def user_name() -> str:
    """Who acts when nobody has logged in: `SAADI_USER`, else 'local'."""
    return os.environ.get("SAADI_USER") or "local"


def num_threads() -> int:
    """Threads for torch: `SAADI_THREADS`, else the cores this process may use."""
    configured = os.environ.get("SAADI_THREADS")
    if configured:
        return max(1, int(configured))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name() -> str | None:
    """`SAADI_DEVICE` ('cpu', 'cuda', 'cuda:1'), or None to choose: CUDA when there is one."""
    return os.environ.get("SAADI_DEVICE") or None


def environment_of_child(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment variables with some more, for a process that it starts."""
    return {**os.environ, **variables}


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Inside, these variables are set, for a library that reads them; afterwards all are what they were."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def sam_checkpoint() -> Path | None:
    """`SAADI_SAM_CHECKPOINT`: Meta's file of Segment Anything weights, for the smart click; None = not set."""
    configured = os.environ.get("SAADI_SAM_CHECKPOINT")
    return Path(configured).expanduser() if configured else None


def assets_dir() -> Path:
    """Weights fitted to the phantom data, shipped with the program."""
    return Path(__file__).resolve().parent.parent / "assets"
