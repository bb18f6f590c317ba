"""Which device, precision and number of threads torch uses; the one place that asks the hardware."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from saadi import config
from saadi.errors import BadInputError

M = TypeVar("M", bound=nn.Module)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Names and numbers of glibc's mallopt(3)."""


def device() -> torch.device:
    """The configured device, else CUDA when there is one, else the CPU."""
    return torch.device(config.device_name() or ("cuda" if torch.cuda.is_available() else "cpu"))


def accelerators(count: int) -> list[str]:
    """Names, as in SAADI_DEVICE, of the devices that `count` processes work on; one process takes the usual one.

    Raises:
        BadInputError: There are fewer.
    """
    if count == 1:
        return [str(device())]
    configured, found = config.device_name(), torch.cuda.device_count()
    if configured not in (None, "cuda"):
        raise BadInputError(f"{count} GPUs were asked for, but SAADI_DEVICE names one device ({configured}); unset it")
    if count > found:
        raise BadInputError(f"{count} GPUs were asked for, this machine has {found}; "
                            + (f"ask for up to {found}" if found > 1 else "leave --gpus out"))  # fmt: skip
    return [f"cuda:{index}" for index in range(count)]


def use_all_threads() -> None:
    """Let torch use the threads this process may use; call once per worker, before any other torch work.

    Denormal numbers count as zero: a pair with a logit of 90 has gradients of 1e-39, and one such pair in a batch made an
    alignment step ten times slower.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(config.num_threads())
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep large freed blocks instead of handing them back to the kernel, which must then clear every page anew: a
    sampling step spent a fifth of its time so. `release_memory` gives them back."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the largest value that glibc takes
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_TOP_PAD, 64 * 2**20)


def release_memory() -> None:
    """Hand freed memory back to the system; call when a long job has ended."""
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def fast_dtype(on: torch.device) -> torch.dtype:
    """bfloat16 where it is native (AMX or AVX512-bf16 CPUs, CUDA from Ampere), else float32: emulated bf16 is slower."""
    if on.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    # AMX gives 3-4 times fp32 when tensors are channels_last as well; plain AVX512-bf16 still gains.
    is_native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if is_native and _has_bf16_dot() else torch.float32


def _has_bf16_dot() -> bool:
    # torch calls plain AVX512 "supported" too, where bf16 is emulated; only these instructions make it faster.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def placed(module: M, on: torch.device, *, dtype: torch.dtype | None = None) -> M:
    """The module on a device in channels_last layout, without which bfloat16 loses most of its speed on CPUs."""
    return module.to(on, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@contextmanager
def memory_told(way_out: str) -> Iterator[None]:
    """Inside, an accelerator that is full is told as one sentence with the way out.

    Raises:
        BadInputError: It was full.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise BadInputError(f"the accelerator's memory is full; {way_out}") from error


@contextmanager
def autocast(on: torch.device) -> Iterator[None]:
    """bfloat16 autocast where it pays; weights and losses stay float32."""
    dtype = fast_dtype(on)
    with torch.autocast(on.type, dtype=dtype, enabled=dtype != torch.float32):
        yield
