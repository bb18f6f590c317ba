"""The process in which SAM lives: reads orders from its standard input, answers on its standard output, keeps embeddings.

One line of JSON per message; a mask follows its line as packed bits. When the other end closes (also by kill -9), the kernel
ends the input, and with it this process, even in the middle of an embedding.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from saadi import config, devices
from saadi.errors import SaadiError
from saadi.records import Image
from saadi.segmentation import sam
from saadi.segmentation.base import Prompt
from saadi.store.blobs import BlobStore

KEPT_EMBEDDINGS = 8
"""4 MB each."""
KEPT_LOGITS = 64
IDLE_S = 1800.0
"""Unused for this long, the process ends and gives its memory back; the next image starts it again."""
Order = dict[str, Any]


class Desk:
    """Does one order after the other, with what was computed before at hand."""

    def __init__(self, predictor: sam.Predictor, blobs: BlobStore) -> None:
        self.predictor = predictor
        self.blobs = blobs
        self.embeddings: OrderedDict[str, sam.Embedding] = OrderedDict()
        self.logits: OrderedDict[tuple[str, Prompt], torch.Tensor] = OrderedDict()
        self.num_embedded = 0

    def open(self, blob: str) -> sam.Embedding:
        """The embedding of an image, computed once."""
        if blob not in self.embeddings:
            image: Image = self.blobs.image(blob)
            self.embeddings[blob] = self.predictor.embed(image)
            self.num_embedded += 1
        self.embeddings.move_to_end(blob)
        while len(self.embeddings) > KEPT_EMBEDDINGS:
            self.embeddings.popitem(last=False)
        return self.embeddings[blob]

    def click(self, blob: str, prompt: Prompt) -> sam.Prediction:
        """The mask of a prompt; what the same prompt gave without its last click is built upon."""
        before = self.logits.get((blob, Prompt(prompt.clicks[:-1], prompt.box))) if prompt.clicks else None
        found = self.predictor.predict(self.open(blob), prompt, before=before)
        self.logits[(blob, prompt)] = found.logits
        while len(self.logits) > KEPT_LOGITS:
            self.logits.popitem(last=False)
        return found


class Inbox:
    """Orders in turn: clicks before images, only the newest image, only the newest preview."""

    def __init__(self, source: IO[bytes]) -> None:
        self.waiting: list[Order] = []
        self.changed = threading.Condition()
        threading.Thread(target=self._read, args=(source,), name="inbox", daemon=True).start()

    def _read(self, source: IO[bytes]) -> None:
        for line in source:
            with self.changed:
                self.waiting.append(json.loads(line))
                self.changed.notify()
        os._exit(0)  # the page is gone; native code in the other thread cannot be asked

    def next(self) -> tuple[Order, list[Order]]:
        """The order to do now, and those that nobody waits for any more.

        Raises:
            queue.Empty: Nothing came for `IDLE_S`.
        """
        with self.changed:
            if not self.changed.wait_for(lambda: self.waiting, IDLE_S):
                raise queue.Empty
            clicks = [order for order in self.waiting if order["kind"] == "click"]
            opens = [order for order in self.waiting if order["kind"] == "open"]
            newest = clicks[-1] if clicks else None
            dropped = [order for order in clicks[:-1] if order["is_preview"]] + opens[:-1]
            kept = [order for order in clicks if order not in dropped]
            now = kept[0] if newest is not None else opens[-1]
            self.waiting = [order for order in self.waiting if order is not now and order not in dropped]
            return now, dropped


def main(blob_root: str) -> int:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not reach the answers
    inbox = Inbox(sys.stdin.buffer)
    on = devices.device()
    if on.type == "cpu":
        torch.set_num_threads(1)  # the worker has the cores; two programs with two threads each stand in each other's way
    checkpoint = config.sam_checkpoint()
    try:
        if checkpoint is None:
            raise SaadiError("no checkpoint is set")
        predictor = sam.load(checkpoint, on)
    except SaadiError as error:
        _say(answers, {"event": "refused", "words": str(error)})
        return 0
    _say(answers, {"event": "ready", "name": predictor.name, "device": on.type})
    desk = Desk(predictor, BlobStore(Path(blob_root)))
    while True:
        try:
            order, dropped = inbox.next()
        except queue.Empty:
            return 0
        for late in dropped:
            _say(answers, {"event": "dropped", "id": late["id"], "kind": late["kind"], "blob": late["blob"]})
        _serve(answers, desk, order)


def _serve(answers: IO[bytes], desk: Desk, order: Order) -> None:
    started = time.perf_counter()
    told = {name: order[name] for name in ("id", "kind", "blob")}
    data = b""
    try:
        if order["kind"] == "open":
            desk.open(order["blob"])
            told["event"] = "opened"
        else:
            clicks = tuple((x, y, is_on) for x, y, is_on in order["clicks"])
            found = desk.click(order["blob"], Prompt(clicks, order["box"] and tuple(order["box"])))
            told |= {"event": "mask", "score": found.score, "shape": found.mask.shape}
            data = np.packbits(found.mask).tobytes()
    except SaadiError as error:
        told |= {"event": "failed", "words": str(error)}
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        told |= {"event": "failed", "words": "the graphics card has no memory left for SAM; wait for the running job"}
    told |= {"held": list(desk.embeddings), "num_embedded": desk.num_embedded, "seconds": time.perf_counter() - started}
    _say(answers, told, data)


def _say(answers: IO[bytes], message: dict[str, Any], data: bytes = b"") -> None:
    answers.write(json.dumps(message | {"num_bytes": len(data)}).encode() + b"\n" + data)
    answers.flush()


if __name__ == "__main__":
    os._exit(main(sys.argv[1]))  # at once: a clean end would wait for the thread that waits for input
