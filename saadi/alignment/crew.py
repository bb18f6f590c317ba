"""Several processes, one for each accelerator, that compute the gradient of one step together (by `accelerate`).

One leads: it alone has the optimiser, the checkpoints, the gate and the reports. Before each step it hands out the step's number
and the adapter; each process computes its share of the batch, and the gradients, those of a small adapter, are summed. So all
that another process holds follows from what it was handed, and nothing can drift apart.

Over gloo, on GPUs as well: it tells at once when a process has died, where NCCL waits for its time limit, and the few megabytes
of an adapter are milliseconds in a step.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, reduce
from torch import Tensor
from torch.distributed import FileStore

from saadi import config
from saadi.errors import BadInputError, SaadiError

READY, REFUSED = "ready", "refused: "
"""What a process says on its standard output: once it has loaded everything, or why it cannot go on."""
WAIT = timedelta(days=1)
"""The others wait while the leader tests a version, or a person's job goes before; that a job hangs is noticed elsewhere."""
WAY_OUT = "press Continue to go on from the last test, or align anew on fewer GPUs"
END_WAIT_S = 10.0
POLL_S = 0.05


class Crew:
    """The processes of an alignment as one of them sees it; this class is that of a process which works alone."""

    rank = 0
    """Its number; 0 leads."""
    size = 1

    def share(self, parts: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """Those parts of a batch that this process computes."""
        return list(parts[self.rank :: self.size])

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes, which must all call this; float32."""
        return values

    def hand_out(self, step: int, values: Sequence[Tensor]) -> None:
        """Begin a step: the others' `receive` returns its number, and their tensors are these."""

    def receive(self, values: Sequence[Tensor]) -> int:
        """Wait for the next step, and write what was handed out into these tensors."""
        raise AssertionError("who leads receives nothing")


ALONE = Crew()


class Member(Crew):
    """A process among others."""

    def __init__(self, rank: int, size: int, meeting: Path) -> None:
        """
        Args:
            meeting: A file by which they find each other; nobody else may have used it.
        """
        self.rank, self.size, self.meeting = rank, size, meeting

    def join(self) -> None:
        """Wait until all are there."""
        PartialState._reset_state()  # one that some library made before would do nothing at all
        numbers = {"RANK": self.rank, "LOCAL_RANK": self.rank, "WORLD_SIZE": self.size, "LOCAL_WORLD_SIZE": self.size,
                   "OMP_NUM_THREADS": torch.get_num_threads()}  # fmt: skip
        variables = {name: str(number) for name, number in numbers.items()}
        variables["GLOO_SOCKET_IFNAME"] = "lo"  # anybody could join by the network
        with config.environment(variables):  # accelerate reads how many there are from nowhere else
            meeting = FileStore(str(self.meeting), self.size)  # as an address, a folder with a space in its name is not found
            meeting.set_timeout(WAIT)  # the leader comes last, after the old model's images
            state = PartialState(cpu=True, backend="gloo", store=meeting, timeout=WAIT)
        if state.num_processes != self.size:
            raise SaadiError(f"{state.num_processes} of {self.size} processes found each other; start again, or with fewer GPUs")

    def summed(self, values: Tensor) -> Tensor:
        found: Tensor = reduce(values.detach().float().cpu(), reduction="sum")
        return found.to(values.device)

    def receive(self, values: Sequence[Tensor]) -> int:
        step = int(broadcast(torch.zeros(1, dtype=torch.int64)))
        _fill(values, broadcast(torch.empty(sum(map(torch.numel, values)))))
        return step


class Leader(Member):
    """The process that has started the others."""

    def __init__(self, meeting: Path, others: Sequence[Other]) -> None:
        super().__init__(0, len(others) + 1, meeting)
        self.others = others
        self._has_joined = False

    def join(self) -> None:
        while not all(other.is_ready for other in self.others):
            if any(other.process.poll() is not None for other in self.others):
                raise SaadiError(self._what_happened())
            time.sleep(POLL_S)
        super().join()
        self._has_joined = True

    def summed(self, values: Tensor) -> Tensor:
        with self._losses_told():
            return super().summed(values)

    def hand_out(self, step: int, values: Sequence[Tensor]) -> None:
        with self._losses_told():
            if not self._has_joined:
                self.join()
            broadcast(torch.tensor([step], dtype=torch.int64))
            broadcast(torch.cat([value.detach().float().flatten() for value in values]).cpu())

    @contextmanager
    def _losses_told(self) -> Iterator[None]:
        try:
            yield
        except SaadiError:
            raise
        except RuntimeError as error:  # gloo: the connection was closed
            raise SaadiError(self._what_happened()) from error

    def _what_happened(self) -> str:
        """One sentence on the process that has ended."""
        deadline = time.monotonic() + END_WAIT_S
        while time.monotonic() < deadline:
            for number, other in enumerate(self.others, start=2):
                if other.process.poll() is not None:
                    return f"process {number} of {self.size} ({other.device}) {other.last_words()}; {WAY_OUT}"
            time.sleep(POLL_S)
        return f"the processes have lost each other; {WAY_OUT}"

    def close(self) -> None:
        """End the others."""
        for other in self.others:
            other.end()
        if self._has_joined:
            PartialState().destroy_process_group()
            PartialState._reset_state()
        self.meeting.unlink(missing_ok=True)


class Other:
    """A process that the leader has started; it ends when the leader closes its standard input, or has died."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], device: str) -> None:
        self.device = device
        self.is_ready = False
        self._refusal: str | None = None
        root = Path(__file__).resolve().parent.parent.parent
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
                                        env=config.environment_of_child(variables))  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None, "asked for above"
        for line in self.process.stdout:
            self.is_ready |= line.strip() == READY
            if line.startswith(REFUSED):
                self._refusal = line.removeprefix(REFUSED).strip()

    def last_words(self) -> str:
        """Of a process that has ended: what happened to it."""
        self._reader.join(1.0)
        if self._refusal:
            return f"gave up: {self._refusal}"
        code = self.process.returncode
        return f"was killed by signal {-code}, as the system does when memory runs out" if code < 0 else f"ended with code {code}"

    def end(self) -> None:
        """Return once it has ended."""
        assert self.process.stdin is not None, "asked for above"
        self.process.stdin.close()
        try:
            self.process.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def leading(command: Sequence[str], devices: Sequence[str], folder: Path) -> Iterator[Crew]:
    """The crew of this process, which works on the first device, and of one process for each further one.

    Args:
        command: Starts a process that calls `follow`; its number, their number and the file where they meet are added.
        devices: As in SAADI_DEVICE.
        folder: Where they meet.
    """
    if len(devices) == 1:
        yield ALONE
        return
    if sys.platform != "linux":  # elsewhere they would listen on the network
        raise BadInputError(f"{len(devices)} GPUs wanted, and several work together on Linux only; leave --gpus out")
    meeting = (folder / f"crew-{os.getpid()}-{time.monotonic_ns()}").resolve()
    threads = str(max(1, torch.get_num_threads() // len(devices)))
    others: list[Other] = []
    leader = Leader(meeting, others)
    try:
        for rank, device in enumerate(devices[1:], start=1):
            number = [str(rank), str(len(devices)), str(meeting)]
            variables = {"SAADI_DEVICE": device, "SAADI_THREADS": threads, "OMP_NUM_THREADS": threads}
            others.append(Other([*command, *number], variables, device))
        leader.size = len(devices)
        yield leader
    finally:
        leader.close()


def end_with_the_leader() -> None:
    """Call first in a process that follows: from now on it ends when the leader does, whatever it is doing then."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def say(words: str) -> None:
    """Tell the leader: READY, or REFUSED and a sentence."""
    print(words.replace("\n", " "), flush=True)


def _fill(values: Sequence[Tensor], flat: Tensor) -> None:
    with torch.no_grad():
        for value, piece in zip(values, flat.split([value.numel() for value in values]), strict=True):
            value.copy_(piece.view(value.shape))

