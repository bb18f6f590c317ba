"""Engines stay in memory between jobs, but never two large ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from saadi import generation, orders
from saadi.engines import weights
from saadi.engines.loading import forget_engines, full_memory_told, kept_engine
from saadi.errors import BadInputError
from saadi.jobs import JobContext
from saadi.store import Store
from tests import builders, tiny, tiny_diffusion
from tests.builders import add_label_map


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    forget_engines()
    yield
    forget_engines()


@pytest.fixture
def plain(tmp_path: Path) -> tuple[dict, Path]:
    made = tiny.engine()
    file = tmp_path / "compact"
    file.write_bytes(weights.to_bytes(made.denoiser.state_dict()))
    return made.architecture, file


def test_of_large_engines_one_is_kept_and_a_small_one_beside_it(tmp_path: Path, plain: tuple[dict, Path]) -> None:
    base = tiny_diffusion.folder(tmp_path / "sd")
    file = tmp_path / "fit"
    file.write_bytes(weights.to_bytes({}))
    first, second = (tiny_diffusion.architecture(base, prompt=prompt) for prompt in ("one", "two"))
    small, large = kept_engine(*plain), kept_engine(first, file)
    assert kept_engine(first, file) is large and kept_engine(*plain) is small
    other = kept_engine(second, file)
    assert kept_engine(*plain) is small and kept_engine(second, file) is other
    assert kept_engine(first, file) is not large  # it had gone, and the second has to go for it
    assert kept_engine(second, file) is not other


def test_the_engine_used_longest_ago_goes_first(plain: tuple[dict, Path], tmp_path: Path) -> None:
    files = [plain[1], *(tmp_path / name for name in "ab")]
    for file in files[1:]:
        file.write_bytes(plain[1].read_bytes())
    first, second = (kept_engine(plain[0], file) for file in files[:2])
    assert kept_engine(plain[0], files[0]) is first
    kept_engine(plain[0], files[2])
    assert kept_engine(plain[0], files[0]) is first and kept_engine(plain[0], files[1]) is not second


def test_where_an_accelerator_is_full_what_is_kept_is_forgotten(plain: tuple[dict, Path]) -> None:
    kept = kept_engine(*plain)
    with pytest.raises(BadInputError, match=r"^the accelerator's memory is full; wait$"), full_memory_told("wait"):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    assert kept_engine(*plain) is not kept


def test_a_generation_that_finds_no_memory_says_so(
    store: Store, plain: tuple[dict, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tiny_diffusion.project(store)
    store.add_model(project.id, kind="engine", architecture=plain[0], file=store.files.put(plain[1].read_bytes()), metrics={},
                    actor="test")  # fmt: skip
    wanted = orders.order(orders.GenerateOrder, project_id=project.id, candidates=1,
                          label_map_ids=[add_label_map(store, project).id])  # fmt: skip
    orders.place(store, wanted, actor="ann", request_id=builders.new_request())
    claimed = store.claim_job("worker")
    assert claimed is not None
    context = JobContext(store, orders.freeze(store, claimed))

    def full(*args: object, **values: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "randn", full)  # the first thing that sampling asks for
    with pytest.raises(BadInputError, match="the accelerator's memory is full; close other programs that use it"):
        generation.run_job(context)
