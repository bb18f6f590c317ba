"""Look at everything that can be broken in a data folder and its machine; each finding is a sentence."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from saadi import config, jobs
from saadi.config import Home
from saadi.engines import pretrained
from saadi.errors import SaadiError
from saadi.store import Store
from saadi.store.connection import sqlite_version, wal_is_safe

MIN_FREE_BYTES = 2 * 2**30
"""A fit keeps weights, optimiser state and two checkpoints: about 1 GB at the compact engine's size."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    message: str


def examine(home: Home) -> list[Check]:
    """Look at the machine first, then at the data folder; a check that cannot be made is a failed one."""
    checks = [_python(), _sqlite(), _torch(), _smart_click(), _disk(home), _worker(home)]
    try:
        with Store.open(home) as store:
            checks += list(_store_checks(store))
    except SaadiError as error:
        checks.append(Check("database", False, str(error)))
    return checks


def _python() -> Check:
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("python", sys.version_info >= (3, 11), f"{text}; 3.11 or newer is needed")


def _sqlite() -> Check:
    version = ".".join(str(part) for part in sqlite_version())
    mode = "write-ahead log with full sync" if wal_is_safe(sqlite_version()) else \
        "this version has the WAL-reset bug, so the slower rollback journal is used; install pysqlite3 for speed"
    return Check("sqlite", True, f"{version}; {mode}")


def _torch() -> Check:
    try:
        from saadi import devices
    except (ImportError, OSError) as error:
        return Check("torch", False, f"torch cannot be loaded ({error}); delete .venv and run `make app` again")
    import torch

    device = devices.device()
    precision = "bf16" if devices.fast_dtype(device) == torch.bfloat16 else "fp32 (no native bf16 here)"
    return Check("torch", True, f"{torch.__version__} on {device}, {precision}, {torch.get_num_threads()} threads")


def _smart_click() -> Check:
    if (checkpoint := config.sam_checkpoint()) is None:
        return Check("smart click", True, "GrabCut; no SAM checkpoint is set, SAADI_SAM_CHECKPOINT names Meta's file")
    try:
        from saadi import devices
        from saadi.segmentation import sam

        found = sam.load(checkpoint, devices.device())
    except (SaadiError, ImportError, OSError) as error:
        return Check("smart click", False, f"GrabCut only: {error}")
    return Check("smart click", True, f"SAM ({found.name}) on {found.on}, from {checkpoint.name}")


def _disk(home: Home) -> Check:
    existing = next(folder for folder in (home.path, *home.path.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / 2**30:.1f} GB free"
    if free >= MIN_FREE_BYTES:
        return Check("disk", True, text)
    return Check("disk", False, f"{text}; a fit needs about {MIN_FREE_BYTES / 2**30:.0f} GB, free some space")


def _worker(home: Home) -> Check:
    if jobs.worker_is_alive(home):
        return Check("worker", True, "a worker is running")
    return Check("worker", True, "no worker is running; one starts with the page or the next job")


def _store_checks(store: Store) -> Iterator[Check]:
    found: tuple[tuple[str, Callable[[Store], Check]], ...] = (
        ("database", _database), ("audit", _audit), ("blobs", _blobs), ("weights", _weights), ("base weights", _base_weights),
        ("jobs", _jobs))
    for name, check in found:
        try:
            yield check(store)
        except SaadiError as error:
            yield Check(name, False, str(error))


def _database(store: Store) -> Check:
    if problems := store.quick_check():
        return Check("database", False, f"damaged ({problems[0]}); restore it from the backup")
    return Check("database", True, "quick_check passed")


def _audit(store: Store) -> Check:
    broken = store.first_broken_audit_row()
    return Check("audit", broken is None, "the chain holds" if broken is None else
                 f"row {broken} was changed after it was written; compare with a backup")


def _blobs(store: Store) -> Check:
    return _presence("blobs", store.referenced_blobs(), store.blobs.all_hashes())


def _weights(store: Store) -> Check:
    referenced = set()
    for project in store.projects():
        referenced |= {model.file for model in store.models(project.id)}
        referenced |= {adapter.file for adapter in store.adapters(project.id)}
        referenced |= {model.file for model in store.mask_models(project.id)}
        referenced |= {shift.file for shift in store.noise_shifts(project.id)}
        referenced |= store.verifier_files(project.id)
    return _presence("weights", referenced, store.files.all_hashes())


def _base_weights(store: Store) -> Check:
    """The public weights that Stable Diffusion generators stand on lie outside of the data folder."""
    used = [model.architecture for project in store.projects() if (model := store.active_model(project.id, "engine")) is not None
            and model.architecture.get("engine") == "stable-diffusion"]  # fmt: skip
    for architecture in used:
        if pretrained.find(architecture["base"], mode=architecture["mode"]).fingerprint() != architecture["base_sha256"]:
            return Check("base weights", False, "those on this computer are not the ones that a generator was fitted on; "
                                                "put the former ones back, or fit again")  # fmt: skip
    return Check("base weights", True, "no generator needs any" if not used else "there, and the ones that were fitted")


def _presence(name: str, referenced: set[str], present: set[str]) -> Check:
    if missing := referenced - present:
        return Check(name, False, f"{len(missing)} of {len(referenced)} files are missing (the first is {min(missing)[:12]}); "
                                  "restore them from the backup")
    return Check(name, True, f"all {len(referenced)} files are there")


def _jobs(store: Store) -> Check:
    active = store.jobs(active_only=True)
    running = [job.id for job in active if job.state == "running"]
    if running and not jobs.worker_is_alive(store.home):
        return Check("jobs", True, f"job {running[0]} was left by a worker that died; it resumes with the next worker")
    return Check("jobs", True, f"{len(active)} wait or run")
