"""Results kept between runs: a stage is computed once per settings, and an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np
import structlog
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
SECONDS = "seconds"
LOCK, SPENT = "lock", "spent"
"""In a workspace: held by the process that computes the stage; seconds that earlier processes have spent on it."""
log = structlog.get_logger()


def _key(name: str, settings: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([name, dict(settings)], sort_keys=True).encode()).hexdigest()[:20]
    return f"{name}-{digest}"


def _read_seconds(workspace: Path) -> float:
    try:
        return float((workspace / SPENT).read_text())
    except (OSError, ValueError):
        return 0.0


class Stage:
    """A computed stage: its arrays, its key, and what it cost when it was computed."""

    def __init__(self, key: str, arrays: Arrays) -> None:
        self.key = key
        self.seconds = float(arrays.pop(SECONDS))
        self.arrays = arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]


class Stages:
    """A folder of stages, one file each, named by the hash of everything that went into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._inner_s = 0.0
        self._workspaces: dict[str, Path] = {}
        self._met: set[str] = set()
        self.computed_s = self.reused_s = 0.0
        """What was computed now, and what earlier runs had computed."""
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, settings: Mapping[str, Any], make: Callable[[], Arrays]) -> Stage:
        """The stage with these settings, computed now unless it is there.

        Args:
            settings: JSON; includes the keys of the stages it builds on, so that a change early on renews all that follows.
        """
        key = _key(name, settings)
        path = self.folder / f"{key}.npz"
        if not path.exists():
            outer, self._inner_s = self._inner_s, 0.0
            began = time.monotonic()
            workspace, lock = self._claim(key)
            earlier = _read_seconds(workspace)
            try:
                arrays = make()
            except BaseException:
                own = earlier + time.monotonic() - began - self._inner_s
                self._leave(workspace, lock, seconds=own)
                raise
            total = time.monotonic() - began
            own = earlier + total - self._inner_s  # without the stages that it has called for
            self._inner_s = outer + total
            self._write(path, arrays | {SECONDS: np.array(own)})
            shutil.rmtree(workspace, ignore_errors=True)
            lock.release()
            log.info("stage", name=name, seconds=round(own, 1))
            self.computed_s += own
            is_new = True
        else:
            is_new = False
        with np.load(path) as kept:
            stage = Stage(key, {part: kept[part] for part in kept.files})
        if not is_new and key not in self._met:
            self.reused_s += stage.seconds
        self._met.add(key)
        return stage

    def workspace(self, name: str, settings: Mapping[str, Any]) -> Path:
        """Where a stage keeps checkpoints until it is computed, so that a long one that was interrupted goes on from there."""
        key = _key(name, settings)
        return self._workspaces.get(key, self.folder / f"{key}.part")

    def _claim(self, key: str) -> tuple[Path, filelock.BaseFileLock]:
        """A workspace of this process alone: where another one is at the same stage, one without its checkpoint."""
        for path in (self.folder / f"{key}.part", self.folder / f"{key}.{os.getpid()}.part"):
            path.mkdir(exist_ok=True)
            lock = filelock.FileLock(path / LOCK)
            with suppress(filelock.Timeout):
                lock.acquire(timeout=0)
                self._workspaces[key] = path
                return path, lock
        raise AssertionError(f"this process is at stage {key} already")

    def _leave(self, workspace: Path, lock: filelock.BaseFileLock, *, seconds: float) -> None:
        """What was begun stays where there is a checkpoint, with the seconds that it has cost."""
        lock.release()
        kept = [path for path in workspace.iterdir() if path.name not in (LOCK, SPENT)]
        if not kept:
            shutil.rmtree(workspace, ignore_errors=True)
        else:
            (workspace / SPENT).write_text(f"{seconds:.3f}")

    def file(self, name: str, data: bytes) -> Path:
        """A file beside the stages, for what reads files only; its name says what is in it."""
        path = self.folder / name
        if not path.exists():
            self._publish(path, lambda stream: stream.write(data))
        return path

    def _write(self, path: Path, arrays: Arrays) -> None:
        self._publish(path, lambda stream: np.savez_compressed(stream, **arrays))  # type: ignore[arg-type]

    def _publish(self, path: Path, write: Callable[[BinaryIO], object]) -> None:
        """Whole or not at all: a killed run leaves no half stage behind."""
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".tmp-", suffix=path.suffix)
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
