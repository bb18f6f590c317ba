"""The smart click as the page uses it: SAM in its own process where there is one, else GrabCut, with the reason in words.

Imports no torch: the page process must start fast, and a crash of native code must not take the page with it.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import structlog

from saadi import config
from saadi.errors import BadInputError
from saadi.records import Image
from saadi.segmentation import grabcut
from saadi.segmentation.base import Answer, Prompt, checked
from saadi.store.blobs import BlobStore

CLICK_TIMEOUT_S = 20.0
"""A decoder takes 0.1 s; whoever waits for this long gets GrabCut's answer, and the process is started anew."""
MAX_CRASHES = 3
"""In a row, without an answer in between; then SAM stays off until the program starts again."""
KEPT_IMAGES = 4
NO_CHECKPOINT = "no SAM checkpoint is set (SAADI_SAM_CHECKPOINT)"
State = Literal["absent", "off", "starting", "embedding", "ready", "refused"]
log = structlog.get_logger()


class Unavailable(Exception):
    """SAM gives no answer now; the words say why."""


@dataclass(frozen=True)
class Status:
    """Which method answers now, for a person."""

    state: State
    """absent: no checkpoint. off: starts with the first image. starting, embedding: on its way. refused: see the words."""
    method: str
    """Who would answer a click now: 'SAM (vit_b)' or 'GrabCut'."""
    words: str
    """The reason, as half a sentence; empty when SAM is ready."""


class SmartClick:
    """One per page process; all methods may be called from any thread."""

    def __init__(self, blob_root: Path) -> None:
        self.blobs = BlobStore(blob_root)
        self.sam = SamProcess(blob_root)
        self._images: OrderedDict[str, Image] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, blob: str) -> Status:
        """Let SAM look at an image now, so that the first click finds it ready; returns at once."""
        self.image(blob)
        self.sam.open(blob)
        return self.sam.status(blob)

    def segment(self, blob: str, prompt: Prompt, *, is_preview: bool = False) -> Answer:
        """The object that the clicks or the box mean.

        Args:
            is_preview: The pointer only hovers: an outdated one is dropped, and GrabCut is not asked.

        Raises:
            BadInputError: The prompt fits no object of this image, or a preview has no answer.
            NotFoundError: No such image.
        """
        image = self.image(blob)
        prompt = checked(prompt, size=(image.shape[0], image.shape[1]))
        try:
            return self.sam.click(blob, prompt, is_preview=is_preview)
        except Unavailable as why:
            if is_preview:
                raise BadInputError(f"no preview: {why}") from why
            return Answer(grabcut.segment(image, prompt), None, "GrabCut", str(why))

    def image(self, blob: str) -> Image:
        """(H, W, 3) uint8 RGB; the last few stay decoded."""
        with self._lock:
            if blob in self._images:
                self._images.move_to_end(blob)
                return self._images[blob]
        image = self.blobs.image(blob)
        with self._lock:
            self._images[blob] = image
            while len(self._images) > KEPT_IMAGES:
                self._images.popitem(last=False)
        return image

    def close(self) -> None:
        """End SAM's process."""
        self.sam.stop()


class SamProcess:
    """Starts SAM's process when it is first needed, and again after a crash."""

    def __init__(self, blob_root: Path) -> None:
        self.blob_root = blob_root
        self.process: subprocess.Popen[bytes] | None = None
        self.name: str | None = None
        self.refusal: str | None = None
        """Why the checkpoint cannot be used; asked once."""
        self.num_embedded = 0
        self.last_seconds = 0.0
        self._crashes = 0
        self._numbers = itertools.count(1)
        self._held: set[str] = set()
        """Images whose embedding is there."""
        self._asked: set[str] = set()
        self._failures: dict[str, str] = {}
        """Images that SAM could not read, and why."""
        self._replies: dict[int, tuple[dict[str, Any], bytes]] = {}
        self._changed = threading.Condition()
        self._writing = threading.Lock()

    def status(self, blob: str) -> Status:
        """What a click on this image would meet."""
        with self._changed:
            state, words = self._state(blob)
        return Status(state, f"SAM ({self.name})" if state == "ready" else "GrabCut", words)

    def open(self, blob: str) -> None:
        """Have the embedding computed unless it is there or on its way."""
        with self._changed:
            state, _ = self._state(blob)
            if state in ("absent", "refused", "ready") or (blob in self._asked and self._is_alive()):
                return
            self._failures.pop(blob, None)
            self._ensure()
            self._asked.add(blob)
        self._send({"kind": "open", "id": next(self._numbers), "blob": blob})

    def click(self, blob: str, prompt: Prompt, *, is_preview: bool) -> Answer:
        """Raises: Unavailable: not now; the image is asked for, so a later click may find it ready."""
        with self._changed:
            failure = self._failures.get(blob)
        self.open(blob)
        with self._changed:
            state, words = self._state(blob)
            process = self.process
        if failure:
            raise Unavailable(failure)
        if state != "ready":
            raise Unavailable(words)
        number = next(self._numbers)
        asked = {"clicks": prompt.clicks, "box": prompt.box, "is_preview": is_preview}
        self._send({"kind": "click", "id": number, "blob": blob, **asked})
        with self._changed:
            answered = self._changed.wait_for(lambda: number in self._replies or process is not self.process, CLICK_TIMEOUT_S)
            reply, data = self._replies.pop(number, ({"event": "none"}, b""))
        if not answered:
            self.stop()
            raise Unavailable(f"SAM gave no answer within {CLICK_TIMEOUT_S:.0f} s and is started anew")
        if reply["event"] == "mask":
            height, width = reply["shape"]
            bits = np.unpackbits(np.frombuffer(data, np.uint8), count=height * width)
            return Answer(bits.reshape(height, width).astype(bool), reply["score"], f"SAM ({self.name})")
        raise Unavailable({"failed": reply.get("words", ""), "dropped": "a newer preview came"}.get(
            reply["event"], "SAM's process ended unexpectedly and is started anew"))

    def stop(self) -> None:
        """End the process; the next call starts another one."""
        with self._changed:
            process, self.process = self.process, None
            self._forget()
        if process is not None:
            process.kill()
            process.wait()

    # ---- all below is called with `_changed` held, save `_send` and `_listen`

    def _state(self, blob: str) -> tuple[State, str]:
        if config.sam_checkpoint() is None:
            return "absent", NO_CHECKPOINT
        if self.refusal is not None:
            return "refused", self.refusal
        if self._crashes >= MAX_CRASHES:
            return "refused", f"SAM's process ended unexpectedly {MAX_CRASHES} times; start the program again"
        if not self._is_alive():
            return "off", "SAM is starting"
        if self.name is None:
            return "starting", "SAM is still being loaded"
        if blob in self._held:
            return "ready", ""
        return "embedding", self._failures.get(blob, "SAM is still reading this image")

    def _is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _ensure(self) -> None:
        if self._is_alive():
            return
        self._forget()
        command = [sys.executable, "-m", "saadi.segmentation.helper", str(self.blob_root.resolve())]
        # Its own session: Ctrl+C goes to the page, whose end closes the pipe.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip
        threading.Thread(target=self._listen, args=(self.process,), name="sam", daemon=True).start()

    def _forget(self) -> None:
        self.name = None
        self._held.clear()
        self._failures.clear()
        self._asked.clear()
        self._replies.clear()
        self._changed.notify_all()

    def _send(self, message: dict[str, Any]) -> None:
        process = self.process
        if process is None or process.stdin is None:
            return
        with self._writing:
            try:
                process.stdin.write(json.dumps(message).encode() + b"\n")
                process.stdin.flush()
            except (BrokenPipeError, ValueError):  # it has just ended; whoever waits is told by `_listen`
                pass

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Take in what one process says, until it ends."""
        stream = process.stdout
        assert stream is not None
        while line := stream.readline():
            message = json.loads(line)
            data = stream.read(message["num_bytes"])
            with self._changed:
                if process is self.process:
                    self._take(message, data)
        exit_code = process.wait()
        with self._changed:
            if process is not self.process:
                return  # stopped by us
            if exit_code != 0:
                self._crashes += 1
                log.warning("sam_ended", exit_code=exit_code, times=self._crashes)
            self.process = None
            self._forget()

    def _take(self, message: dict[str, Any], data: bytes) -> None:
        event, blob = message["event"], message.get("blob", "")
        self._held = set(message.get("held", self._held))
        self.num_embedded = message.get("num_embedded", self.num_embedded)
        self.last_seconds = message.get("seconds", self.last_seconds)
        if event == "ready":
            self.name = message["name"]
        elif event == "refused":
            self.refusal = message["words"]
        elif message["kind"] == "click":
            self._replies[message["id"]] = (message, data)
            self._crashes = 0
        else:  # opened, passed over for a newer image, or failed: it may be asked for again
            self._asked.discard(blob)
            if event == "failed":
                self._failures[blob] = message["words"]
        self._changed.notify_all()
