"""Frozen records that cross module borders, and the array aliases used in signatures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""
LabelMap: TypeAlias = NDArray[np.uint8]
"""(H, W) uint8, class index per pixel; 0 = background, 255 = ignore."""

Task = Literal["segmentation", "classification"]
Split = Literal["train", "val", "test", "none"]
HELD_OUT_SPLITS: tuple[Split, ...] = ("val", "test")
"""Sides of patients whom nothing is learnt from."""
Curation = Literal["pending", "accepted", "rejected", "quarantined"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]
AdapterState = Literal["candidate", "accepted", "rejected", "retired"]
Answer = Literal["left", "right", "both_good", "both_bad", "skip"]
VoteKind = Literal["fresh", "shared", "repeat", "ruling"]
"""Chosen for this reviewer, shown to every reviewer, shown to the same one again with sides swapped, or the lead's last word."""
Reason = Literal["anatomy", "mask_fit", "texture", "instrument", "light", "artefact"]
"""Why a reviewer chose as they did; optional, several at once."""
ThumbValue = Literal["up", "down", "none"]
"""What one reviewer thinks of one image by itself; 'none' takes an earlier thumb back."""
ModelKind = Literal["engine", "selector", "judge"]

IGNORE: int = 255
ACTIVE_STATES: tuple[JobState, ...] = ("queued", "running")


@dataclass(frozen=True)
class LabelClass:
    """One class of a project: its index in label maps, its name, and its colour on screen."""

    index: int
    name: str
    color: str
    """'#rrggbb'; a view only, never stored in a label map."""


@dataclass(frozen=True)
class Project:
    id: int
    name: str
    task: Task
    classes: tuple[LabelClass, ...]
    resolution: int
    """Side in pixels at which images are generated and scored."""
    created_at: str

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.classes)


@dataclass(frozen=True)
class RealImage:
    """A real (imported or rendered) image; its pixels lie in the blob store."""

    id: int
    project_id: int
    blob: str
    width: int
    height: int
    group_id: str
    """Patient, video or operation: never on both sides of a split."""
    split: Split
    label: str | None
    """Class of the whole image in a classification project, else None."""
    source_name: str
    label_map_id: int | None
    """In classification that of its class: a label map whose pixels all hold it."""
    created_at: str
    withdrawn_from: Split | None = None
    """The split in which it was until its patient withdrew: since then it is in none. None = nobody withdrew."""


@dataclass(frozen=True)
class Withdrawal:
    """A patient who wants to be in nothing any more."""

    id: int
    project_id: int
    group_id: str
    person: str
    """Who wrote it down, not the patient."""
    reason: str
    created_at: str
    revoked_by: str | None
    revoked_reason: str | None
    revoked_at: str | None
    """None = it stands."""


@dataclass(frozen=True)
class LabelMapRecord:
    """The newest revision of a label map."""

    id: int
    project_id: int
    image_id: int | None
    """The real image it was drawn over; None for a free drawing."""
    name: str
    rev: int
    blob: str
    author: str
    origin: Literal["imported", "drawn", "edited", "sampled"]
    updated_at: str
    underlay_id: int | None = None
    """The real image that lay under a free drawing; the image's own label map is another one."""


@dataclass(frozen=True)
class MaskModel:
    """Weights that draw label maps, and what they were fitted to."""

    id: int
    project_id: int
    architecture: dict[str, Any]
    """What the loader needs to build the network, and the anatomy it keeps to; JSON."""
    file: str
    bases: tuple[str, ...]
    """Blobs of the label maps that it draws from."""
    metrics: dict[str, Any]
    job_id: int | None
    """That it was fitted in; None = it came with the demo."""
    created_at: str


@dataclass(frozen=True)
class NoiseShiftModel:
    """Weights that move the start noise of one generator towards images that are hard for one selector."""

    id: int
    project_id: int
    model_id: int
    """The generator."""
    adapter_id: int | None
    """None = its base weights."""
    selector_id: int
    architecture: dict[str, Any]
    file: str
    metrics: dict[str, Any]
    job_id: int | None
    created_at: str


@dataclass(frozen=True)
class Model:
    """Weights of an engine (generator) or of a downstream model (selector, judge)."""

    id: int
    project_id: int
    kind: ModelKind
    architecture: dict[str, Any]
    """What the loader needs to build the module, JSON."""
    file: str
    """SHA-256 of the safetensors file."""
    metrics: dict[str, Any]
    parent_id: int | None
    is_active: bool
    created_at: str


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: a version with a parent, candidate until a lead accepts it."""

    id: int
    project_id: int
    model_id: int
    parent_id: int | None
    name: str
    file: str
    scale: float
    config: dict[str, Any]
    metrics: dict[str, Any]
    state: AdapterState
    created_at: str


@dataclass(frozen=True)
class Sample:
    """One synthetic image and all that is needed to make it again."""

    id: int
    project_id: int
    label_map_id: int
    label_map_rev: int
    label_map_blob: str
    blob: str
    seed: int
    engine: str
    model_id: int
    adapter_id: int | None
    settings: dict[str, Any]
    purpose: Literal["draw", "pool"]
    parent_id: int | None
    curation: Curation
    created_at: str
    source_blob: str | None = None
    """The picture of which everything outside the regenerated region was kept, bit for bit; None = made as a whole."""
    is_composite: bool = False
    """Some of its pixels are a real patient's."""


@dataclass(frozen=True)
class Score:
    """What one downstream model thinks of one sample."""

    sample_id: int
    model_id: int
    kind: ModelKind
    dice: float
    """Mean over the classes present in the asked label map, background left out; in classification the calibrated probability of
    the asked class."""
    iou: float
    """As `dice`; in classification 1 where the asked class is the likeliest one, else 0."""
    confidence: float
    """Mean probability of the predicted class over all pixels, 0-1."""
    per_class: dict[str, dict[str, float]]
    """Class name -> {'dice': , 'iou': , 'recall': }, only classes present in the asked label map or predicted; in classification
    every class -> {'probability': }."""
    prediction_blob: str
    """The model's label map, so that disagreement can be drawn."""


@dataclass(frozen=True)
class Vote:
    id: int
    project_id: int
    left_id: int
    right_id: int
    label_map_blob: str
    answer: Answer
    voter: str
    response_ms: int | None
    supersedes: int | None
    is_undo: bool
    created_at: str
    reasons: tuple[str, ...] = ()
    kind: VoteKind = "fresh"
    block: str | None = None
    """The sitting of a few minutes to which it belongs."""

    @property
    def pair(self) -> tuple[int, int]:
        """Sample ids without their sides, the smaller one first."""
        return (self.left_id, self.right_id) if self.left_id < self.right_id else (self.right_id, self.left_id)


@dataclass(frozen=True)
class Thumb:
    """A verdict on one image without a comparison; the newest of a reviewer counts."""

    id: int
    project_id: int
    sample_id: int
    value: ThumbValue
    voter: str
    created_at: str


class UsableSample(NamedTuple):
    """An image of the present generator from which an alignment may learn; not yet asked whether its mask is held out."""

    sample_id: int
    label_map_id: int
    label_map_blob: str
    blob: str


class ScoredSample(NamedTuple):
    """A candidate as votes and scores compare it: an image of the present generator that the active selector has seen."""

    sample_id: int
    label_map_id: int
    label_map_blob: str
    blob: str
    dice: float
    confidence: float
    per_class: str
    """JSON, as in the table: only who needs it pays for its reading."""
    picture_blob: str | None
    """What it was painted into; None = all of it was made."""


@dataclass(frozen=True)
class Trial:
    """One answer of the blind test of a version against its parent: same label map, same seed."""

    id: int
    project_id: int
    adapter_id: int
    label_map_blob: str
    old_blob: str
    new_blob: str
    new_is_left: bool
    answer: Answer
    voter: str
    response_ms: int | None
    created_at: str

    @property
    def prefers_new(self) -> bool | None:
        """None where no side was preferred."""
        return None if self.answer not in ("left", "right") else (self.answer == "left") == self.new_is_left


@dataclass(frozen=True)
class Pair:
    """Chosen and rejected image under one label map, by blob, so that a real image can be the winner."""

    label_map_blob: str
    chosen_blob: str
    rejected_blob: str
    source: Literal["score", "vote", "agreed", "real"]
    weight: float
    margin: float
    """Difference of the merged strengths (or of Dice), always > 0."""


@dataclass(frozen=True)
class Single:
    """An image that is liked or not by itself, without a comparison."""

    label_map_blob: str
    blob: str
    is_liked: bool
    source: Literal["people", "ruling", "real"]
    """'real': a real training image, which stands for liked ones where people have disliked more than they liked."""
    num_people: int
    weight: float


@dataclass(frozen=True)
class PairSet:
    """A frozen, hashed list of pairs and single images: what one alignment learns from."""

    id: int
    project_id: int
    sha256: str
    pairs: tuple[Pair, ...]
    summary: dict[str, Any]
    created_at: str
    singles: tuple[Single, ...] = ()


@dataclass(frozen=True)
class Job:
    id: int
    project_id: int | None
    kind: str
    params: dict[str, Any]
    state: JobState
    attempt: int
    worker: str | None
    step: int
    total: int
    message: str
    result: dict[str, Any]
    error: str | None
    cancel_requested: bool
    created_by: str
    created_at: str
    started_at: str | None
    finished_at: str | None
    eta_s: float | None = None

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE_STATES


@dataclass(frozen=True)
class ExportRecord:
    id: int
    project_id: int
    format: str
    path: str
    manifest_sha256: str
    num_items: int
    created_at: str


@dataclass(frozen=True)
class Disclosure:
    """What an audit found a set of synthetic images to reveal about training patients."""

    id: int
    project_id: int
    export_id: int | None
    """None = the accepted images as they were."""
    findings: dict[str, Any]
    """As `saadi.release.job` writes them."""
    job_id: int | None
    created_at: str


@dataclass(frozen=True)
class Release:
    """Somebody has let an export go, knowing what its audit found, or says that it was deleted before it went anywhere."""

    id: int
    export_id: int
    disclosure_id: int | None
    """The audit that was signed; None = it never left."""
    person: str
    reason: str
    created_at: str


MarkKind = Literal["favourite", "flag"]


@dataclass(frozen=True)
class Mark:
    """A sticky note on a sample, one per person and kind."""

    sample_id: int
    kind: MarkKind
    person: str
    note: str
    created_at: str


@dataclass(frozen=True)
class Projection:
    """Where the pictures of a project lie on its 2-D map."""

    input: str
    """Hash of what was laid out, so that it is made again only when that has changed."""
    sample_ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    points: NDArray[np.float32]
    """(samples + images, 2) in [0, 1], samples first."""
    created_at: str


@dataclass(frozen=True)
class AuditRow:
    seq: int
    created_at: str
    actor: str
    action: str
    subject: str
    details: dict[str, Any] = field(default_factory=dict)
    hash: str = ""
