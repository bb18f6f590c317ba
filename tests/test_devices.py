"""What the hardware may do to a job, in words."""

from __future__ import annotations

import pytest
import torch

from saadi import devices
from saadi.errors import BadInputError


def test_a_full_accelerator_is_told_with_the_way_out() -> None:
    with pytest.raises(BadInputError, match=r"^the accelerator's memory is full; take a smaller batch$"), \
            devices.memory_told("take a smaller batch"):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(RuntimeError, match="another"), devices.memory_told("take a smaller batch"):
        raise RuntimeError("another")
