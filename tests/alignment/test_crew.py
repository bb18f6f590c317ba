"""Two processes on the CPU that compute each step together."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from saadi import devices
from saadi.alignment.crew import REFUSED, Leader, leading
from saadi.errors import BadInputError, SaadiError
from tests import crew_member


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "fast_dtype", lambda on: torch.float32)  # as `tests.crew_member`


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leader]:
    """One start for all tests: who follows holds nothing that it was not handed with the step."""
    command = [sys.executable, "-m", "tests.crew_member", "kto"]
    with leading(command, ["cpu", "cpu"], tmp_path_factory.mktemp("a crew of zwölf")) as made:
        assert isinstance(made, Leader)
        yield made


def same(found, expected) -> None:
    for name, parameter in expected.parameters.items():
        torch.testing.assert_close(found.parameters[name], parameter, rtol=1e-3, atol=1e-5, msg=name)


def test_two_processes_learn_the_adapter_of_one_and_go_on_from_its_checkpoint(crew: Leader, tmp_path: Path) -> None:
    """KTO with single images and anchors, for which the processes must know what the others' images say."""
    alone, together = crew_member.trainer("kto"), crew_member.trainer("kto", crew)
    assert (alone.at_once, together.at_once) == (6, 3)
    for step in range(2):
        expected, found = alone.train_step(), together.train_step()
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5), step
    same(together, alone)
    together.save(tmp_path, {})
    resumed = crew_member.trainer("kto", crew)
    assert resumed.restore(tmp_path) == {} and resumed.step == 2
    together.train_step()
    resumed.train_step()
    for name, parameter in together.parameters.items():
        torch.testing.assert_close(resumed.parameters[name], parameter, rtol=0, atol=0, msg=name)


def test_a_process_that_dies_is_told_in_one_sentence_and_nothing_hangs(crew: Leader) -> None:
    trainer = crew_member.trainer("kto", crew)
    trainer.train_step()
    os.kill(crew.others[0].process.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(SaadiError, match=r"^process 2 of 2 \(cpu\) was killed by signal 9, .* press Continue"):
        for _ in range(3):
            trainer.train_step()
    assert time.monotonic() - began < 5


def test_a_process_that_cannot_begin_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"print('{REFUSED}the weights are gone')"]
    with leading(command, ["cpu", "cpu"], tmp_path) as crew, pytest.raises(SaadiError, match="gave up: the weights are gone;"):
        crew.hand_out(0, [])
    assert not list(tmp_path.iterdir())


def test_processes_end_with_the_one_that_leads(tmp_path: Path) -> None:
    program = "import time\nfrom saadi.alignment.crew import end_with_the_leader\nend_with_the_leader()\ntime.sleep(60)"
    with leading([sys.executable, "-c", program], ["cpu", "cpu"], tmp_path) as crew:
        assert isinstance(crew, Leader)
        process = crew.others[0].process
    assert process.poll() == 0


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.accelerators(2) == ["cuda:0", "cuda:1"]
    with pytest.raises(BadInputError, match=r"^3 GPUs were asked for, this machine has 2; ask for up to 2$"):
        devices.accelerators(3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(BadInputError, match=r"^2 GPUs were asked for, this machine has 0; leave --gpus out$"):
        devices.accelerators(2)
    assert devices.accelerators(1) == [str(devices.device())]
    monkeypatch.setenv("SAADI_DEVICE", "cuda:1")
    with pytest.raises(BadInputError, match=r"SAADI_DEVICE names one device \(cuda:1\)"):
        devices.accelerators(2)
