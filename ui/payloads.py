"""What browsers send: bodies with bounds, and label maps as base64(zlib(uint8 rows)), unpacked with a limit."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from saadi.config import MAX_FILE_BYTES
from saadi.errors import BadInputError
from saadi.records import Answer, Curation, LabelMap, MarkKind, Reason, Task, ThumbValue, VoteKind

Id = Annotated[int, Field(ge=1, le=2**62)]
RequestId = Annotated[str, Field(min_length=8, max_length=80, pattern=r"^[A-Za-z0-9._:-]+$")]
Packed = Annotated[str, Field(max_length=MAX_FILE_BYTES)]
Blob = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewProject(Body):
    name: str = Field(min_length=1, max_length=80, pattern=r"^[\w][\w .()-]*$")
    task: Task = "segmentation"
    classes: list[Annotated[str, Field(min_length=1, max_length=60)]] = Field(min_length=1, max_length=99)
    """In segmentation names without the background, which is class 0 and added by the server; in classification all of them."""
    resolution: Literal[64, 128, 192, 256, 512] = 256


class ScanFolder(Body):
    """Server-side folders: the program is local, so its disk is the user's disk."""

    project_id: Id
    images_dir: str = Field(min_length=1, max_length=4096)
    masks_dir: str | None = Field(default=None, max_length=4096)
    csv: str | None = Field(default=None, max_length=4096)
    group_pattern: str | None = Field(default=None, max_length=200)
    group_column: str | None = Field(default=None, max_length=100)
    split_column: str | None = Field(default=None, max_length=100)
    label_column: str | None = Field(default=None, max_length=100)
    """Classification: the class of each image."""
    every: int = Field(default=25, ge=1, le=100_000)
    """Videos and multi-frame DICOM: every n-th frame."""
    sharpness: float = Field(default=0.5, ge=0, le=1)
    change: float = Field(default=2.0, ge=0, le=255)
    burnt_in: bool = False
    source: Literal["saadi", "nnunet", "coco", "yolo", "voc", "imagefolder", "video", "dicom", "folder"] | None = None
    """None = looked for."""
    look_id: RequestId | None = None
    """Under which the page asks how far the look is."""


class ImportFolder(ScanFolder):
    without_masks: bool = False
    values: dict[int, Annotated[int, Field(ge=0, le=255)]] = Field(default={}, max_length=256)
    """Value in the mask files -> class index of the project (255 = ignore)."""
    request_id: RequestId


class NewLabelMap(Body):
    project_id: Id
    image_id: Id | None = None
    """The real image over which it is drawn; gives the size."""
    attach: bool = False
    """True makes it the image's own label map (annotation); False leaves that one alone (a variant)."""
    copy_of: Id | None = None
    """A label map whose size is taken, for the second version after a conflict."""
    name: str = Field(min_length=1, max_length=120)
    labels: Packed | None = None
    """None = empty (all background)."""
    request_id: RequestId


class SaveLabelMap(Body):
    label_map_id: Id
    rev: int = Field(ge=1)
    labels: Packed
    request_id: RequestId


class Curate(Body):
    project_id: Id
    states: dict[int, Curation] = Field(min_length=1, max_length=100_000)
    """Sample id -> new state, all in one transaction; an undo sends the states before."""
    expected: dict[int, Curation] | None = None
    """Sample id -> the state that it must have now, else it stays as it is: what an undo may take back."""


class MarkSamples(Body):
    project_id: Id
    sample_ids: list[Id] = Field(min_length=1, max_length=100_000)
    kind: MarkKind
    is_set: bool
    """What shall be, not what shall change: a resend does no harm."""
    note: str | None = Field(default=None, max_length=300)


class NextPairs(Body):
    project_id: Id
    count: int = Field(default=6, ge=1, le=20)
    exclude: list[tuple[Id, Id]] = Field(default=[], max_length=2000)


class CastVote(Body):
    project_id: Id
    left_id: Id
    right_id: Id
    answer: Answer
    response_ms: int | None = Field(default=None, ge=0, le=86_400_000)
    reasons: list[Reason] = Field(default=[], max_length=6)
    kind: VoteKind = "fresh"
    """As `pairs/next` said, or a ruling; the server checks it."""
    block: RequestId | None = None
    request_id: RequestId


class UndoVote(Body):
    vote_id: Id
    request_id: RequestId


class NextThumbs(Body):
    project_id: Id
    count: int = Field(default=6, ge=1, le=20)
    exclude: list[Id] = Field(default=[], max_length=2000)


class GiveThumb(Body):
    project_id: Id
    sample_id: Id
    value: ThumbValue
    request_id: RequestId


class PlanEvidence(Body):
    """An order that is only thought of."""

    values: dict[str, Any] = Field(default={}, max_length=32)


class PlaceOrder(Body):
    project_id: Id
    request_id: RequestId
    values: dict[str, Any] = Field(default={}, max_length=32)
    """The order's own settings; checked by `saadi.orders`."""


class ChooseAdapter(Body):
    project_id: Id
    adapter_id: Id | None
    """None = the base model without any adapter."""
    decision: Literal["accept", "reject"]
    reason: str = Field(default="", max_length=500)


class AnswerTrial(Body):
    """One answer of the blind test; which side is the new version is known to the server only."""

    adapter_id: Id
    pair: int = Field(ge=0, le=10_000)
    answer: Answer
    response_ms: int | None = Field(default=None, ge=0, le=86_400_000)
    request_id: RequestId


class ContinueJob(Body):
    request_id: RequestId


def pack(label_map: LabelMap) -> str:
    """Return base64(zlib) of the rows; 1-10 kB for a drawn label map."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(label_map, np.uint8).tobytes(), 6)).decode()


def unpack(labels: str, *, size: tuple[int, int]) -> LabelMap:
    """Return the (height, width) uint8 label map of a payload.

    The decompression stops one byte behind the expected size, so that a zip bomb costs nothing.

    Raises:
        BadInputError: Not base64, not zlib, or another number of pixels.
    """
    expected = size[0] * size[1]
    try:
        stream = zlib.decompressobj()
        raw = stream.decompress(base64.b64decode(labels, validate=True), expected + 1)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise BadInputError(
            "the label map arrived damaged (base64 of zlib was expected); nothing was stored, try again"
        ) from error
    if len(raw) != expected:
        amount = "more" if len(raw) > expected else f"{len(raw)}"
        raise BadInputError(
            f"the label map has {amount} pixels, {size[0]} x {size[1]} = {expected} were expected; reload the page"
        )
    return np.frombuffer(raw, np.uint8).reshape(size)
