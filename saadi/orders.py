"""What can be ordered: checked settings of every job, the same for the page and the command line. Imports no torch."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from saadi import inpainting
from saadi.engines import pretrained
from saadi.errors import BadInputError, TooFewError, WeightsError
from saadi.quality import LOOK
from saadi.records import IGNORE, Adapter, Job, ModelKind
from saadi.store import Store
from saadi.store.connection import dump

MIN_IMAGES_TO_FIT = 8
"""Below, even fine-tuning only memorises (research: plan few-shot adaptation for 5-50 images)."""
MIN_IMAGES_TO_TRAIN_SCORER = 8
PROMPT = "a photo of surgery, {classes}"
MIN_PAIRS_TO_ALIGN = 16
"""16 good pairs already move a small model; fewer only teach noise."""

Share = Annotated[float, Field(gt=0, le=20, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


def is_classification(store: Store, project_id: int) -> bool:
    """Whether the images of a project have a class each in place of a mask."""
    return store.project(project_id).task == "classification"


def _need_labelled(store: Store, project_id: int, *, needed: int, purpose: str) -> None:
    """Raises: TooFewError: fewer training images say what they show."""
    usable = store.count_labelled(project_id)["train"]
    if usable < needed:
        has, way = ("a class", "import") if is_classification(store, project_id) else ("a label map", "import or draw")
        raise TooFewError(f"{usable} training images with {has}, {needed} needed to {purpose}; {way} {needed - usable} more")


def is_negative(adapter: Adapter) -> bool:
    """It has learnt what is not wanted, for the unconditional half of guidance."""
    return adapter.config.get("negative") is not None


class NegativeSettings(BaseModel):
    """A negative adapter in the unconditional half of guidance; see `saadi.engines.base.Negative`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    adapter_id: int
    weight: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False)


class SamplingSettings(BaseModel):
    """How an engine samples; part of every sample's recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    num_inference_steps: int | None = Field(default=None, ge=2, le=100)
    """None = the number stored with the weights by the sweep at the end of the fit."""
    guidance_scale: float | None = Field(default=None, ge=1.0, le=20.0, allow_inf_nan=False)
    """1 = no classifier-free guidance (one network call a step); above 1 costs two. None = stored with the weights, or 1."""
    negative: NegativeSettings | None = None
    """None = plain guidance."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not used: it is part of the recipe by which samples are found again."""
        return {name: value for name, value in handler(self).items() if name != "negative" or value is not None}


class PictureChoice(BaseModel):
    """A synthetic image or a real one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sample_id: int | None = None
    image_id: int | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.sample_id is None) == (self.image_id is None):
            raise ValueError("name one picture, by sample_id or by image_id")
        return self


class Inpaint(BaseModel):
    """Make only a part of a picture anew; all else stays, bit for bit."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: PictureChoice
    class_index: int | None = Field(default=None, ge=0, le=99)
    """Where this class was or is; None = where the mask changed."""
    dilate_px: int = Field(default=inpainting.DILATE_PX, ge=0, le=inpainting.MAX_DILATE_PX)
    """Width of the seam around it, in pixels of the made image."""


class Series(BaseModel):
    """Rounds of alignment one after the other (`saadi.alignment.rounds`), carried from job to job."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    round: int = Field(default=1, ge=1)
    of: int = Field(ge=1, le=10)
    masks: int = Field(default=64, ge=1, le=100_000)
    candidates: int = Field(default=4, ge=2, le=64)
    seed: Seed = 0
    settings: dict[str, float | int | str | None] = {}
    """Of every alignment; see `AlignOrder`."""


def _need_own_model(store: Store, project_id: int, model_id: int, kind: ModelKind) -> None:
    """Raises: BadInputError: the model belongs to another project, or is of another kind."""
    model = store.model(model_id)
    if (model.project_id, model.kind) != (project_id, kind):
        raise BadInputError(f"model {model_id} is no {kind} of this project; leave it out to use the present one")


class Order(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str]
    priority: ClassVar[int] = 0
    project_id: int

    def unique_key(self, store: Store) -> str | None:
        """Hash of what the job would do, where doing it twice makes no sense."""
        return None

    def check(self, store: Store) -> None:
        """Raises: SaadiError: the order cannot be carried out; says what is missing."""

    def frozen(self, store: Store) -> Self:
        """The order with the versions in use written into it, made when its job starts for the first time: a retry must not mix
        them with those of a later accept or fit, while one that waits behind a fit is to use what that makes."""
        return self


class FitOrder(Order):
    """Fit an engine to the project's own training images."""

    kind: ClassVar[str] = "fit"
    steps: int | None = Field(default=None, ge=1, le=1_000_000)
    minutes: float | None = Field(default=None, gt=0, le=7 * 24 * 60, allow_inf_nan=False)
    """Steps or minutes; both None = 20 minutes."""
    batch_size: int | None = Field(default=None, ge=1, le=256)
    """None = the engine's own: 16 compact, 4 Stable Diffusion."""
    learning_rate: float | None = Field(default=None, gt=0, le=1e-2, allow_inf_nan=False)
    """None = the engine's own: 4e-4 compact; Stable Diffusion 1e-4 LoRA, 1e-5 ControlNet, 3e-6 the whole U-Net."""
    from_scratch: bool = False
    """False starts from the active weights (the shipped ones in a new project)."""
    seed: Seed = 0
    engine: Literal["compact", "stable-diffusion"] = "compact"
    base: str | None = Field(default=None, min_length=1, max_length=1000)
    """Stable Diffusion: folder in diffusers layout or hub id in the cache; None = that of the generator in use. The fields below
    are for this engine alone, too."""
    mode: Literal["inpainting", "controlnet"] = "inpainting"
    """Paint what a label map names into its picture, or make whole scenes."""
    full: bool = False
    """Train the whole U-Net instead of a LoRA adapter of it."""
    lora_rank: int | None = Field(default=None, ge=1, le=256)
    """None = that of the fit it goes on from, or 16; another one than that fit's starts anew."""
    controlnet: str | None = Field(default=None, min_length=1, max_length=1000)
    """Folder of a ControlNet to start from, anew; None = that of the fit it goes on from, or a copy of the U-Net's first half."""
    prompt: str | None = Field(default=None, max_length=300)
    """'{classes}' becomes the names of the classes in the label map; None = that of the fit it goes on from, or PROMPT."""
    saves_memory: bool = False
    """Compute activations twice instead of keeping them; alignments on these weights do so, too."""

    @field_validator("base", "controlnet")
    @classmethod
    def _full_name(cls, name: str | None) -> str | None:
        return None if name is None else pretrained.full_name(name)

    def check(self, store: Store) -> None:
        if self.engine == "stable-diffusion" and is_classification(store, self.project_id):
            raise BadInputError("Stable Diffusion paints what masks name, and this project has classes of whole images; choose "
                                "the engine compact")
        if self.steps is not None and self.minutes is not None:
            raise BadInputError(f"steps or minutes, not both; got {self.steps} steps and {self.minutes:g} minutes")
        if self.engine == "stable-diffusion":
            if self.controlnet is not None and self.mode != "controlnet":
                raise BadInputError("a ControlNet belongs to the mode controlnet; choose that mode, or leave the ControlNet out")
            self.weights_on_disk(store).need_side(store.project(self.project_id).resolution)
            if self.controlnet is not None:
                pretrained.check_controlnet(self.controlnet)
        _need_labelled(store, self.project_id, needed=MIN_IMAGES_TO_FIT, purpose="fit")

    def weights_on_disk(self, store: Store) -> pretrained.Pretrained:
        """The weights to start from.

        Raises:
            WeightsError: They are missing or of another kind; says what to type.
        """
        model = store.active_model(self.project_id, "engine")
        in_use = model.architecture.get("base") if model is not None and model.architecture.get("mode") == self.mode else None
        if (base := self.base or in_use) is None:
            example = pretrained.EXAMPLES[self.mode]
            raise WeightsError("say where the Stable Diffusion weights are: a folder in diffusers layout, or an id of the hub's "
                               f"cache; for example {example}, which comes with: {pretrained.command(example, self.mode)}")
        return pretrained.find(base, mode=self.mode)


class GenerateOrder(Order):
    """Candidates for label maps: K images each, one seed each."""

    kind: ClassVar[str] = "generate"
    label_map_ids: Annotated[tuple[int, ...], Field(min_length=1, max_length=100_000)] | None = None
    """None = `count` label maps drawn from the training split by `seed`."""
    classes: Annotated[tuple[Annotated[int, Field(ge=0, le=99)], ...], Field(min_length=1, max_length=100)] | None = None
    """In classification: class indices among which `count` is dealt out evenly; None = all that training images show."""
    count: int = Field(default=8, ge=1, le=100_000)
    candidates: int = Field(default=4, ge=1, le=64)
    seed: Seed = 0
    settings: SamplingSettings = SamplingSettings()
    adapter: Literal["accepted", "none"] | int = "accepted"
    """'accepted' = the version in use, 'none' = base weights, a number = that adapter."""
    model_id: int | None = None
    """None = the generator in use."""
    purpose: Literal["draw", "pool"] = "pool"
    parent_id: int | None = None
    inpaint: Inpaint | None = None
    """None = whole images."""
    series: Series | None = None
    """The rounds that this pool is made for; None = it stands alone."""

    def check(self, store: Store) -> None:
        if store.active_model(self.project_id, "engine") is None:
            raise TooFewError("this project has no generator yet; run `fit` first")
        if is_classification(store, self.project_id):
            self._check_classes(store)
        elif self.classes is not None:
            raise BadInputError("classes are chosen in classification projects; this one makes images for masks, leave them out")
        if self.model_id is not None:
            model = store.model(self.model_id)
            if model.project_id != self.project_id or model.kind != "engine":
                raise BadInputError(f"model {self.model_id} is no generator of this project; leave it out to use the present one")
        if isinstance(self.adapter, int) and self.adapter not in {adapter.id for adapter in store.adapters(self.project_id)}:
            raise BadInputError(f"adapter {self.adapter} is not in this project; see `saadi adapters`, or leave it out")
        if isinstance(self.adapter, int) and is_negative(store.adapter(self.adapter)):
            raise BadInputError(f"adapter {self.adapter} is a negative one, which makes what is not wanted; choose it as the "
                                "negative adapter instead, with a guidance scale above 1")  # fmt: skip
        if self.settings.negative is not None:
            self._check_negative(store, self.settings.negative.adapter_id)
        needs_picture = self.inpaint is None and self._needs_picture(store)
        for label_map_id in self.label_map_ids or ():
            record = store.label_map(label_map_id)
            if record.project_id != self.project_id:
                raise BadInputError(f"label map {label_map_id} belongs to another project")
            if needs_picture:
                inpainting.source_under(store, record)
        if self.label_map_ids is None and not store.label_maps(self.project_id, splits=["train"]):
            raise TooFewError("this project has no label maps in its training split; import images with masks or draw one first")
        if self.inpaint is not None:
            self._check_part(store, self.inpaint)

    def _check_classes(self, store: Store) -> None:
        if self.classes is not None and self.label_map_ids is not None:
            raise BadInputError("classes or label maps, not both; leave the label maps out")
        if self.inpaint is not None:
            raise BadInputError("a part is made anew under a mask, and this project has none; make whole images of a class")
        names, shown = store.project(self.project_id).class_names, store.count_classes(self.project_id, splits=["train"])
        if not shown:
            raise TooFewError("this project has no training image with a class; import images with their classes first")
        for index in self.classes or ():
            if index >= len(names):
                raise BadInputError(f"class {index} is not in this project; it has classes 0 to {len(names) - 1}")
            if names[index] not in shown:
                raise TooFewError(f"no training image shows {names[index]}, so the generator has never seen one; import some, or "
                                  f"choose among {', '.join(name for name in names if name in shown)}")

    def _check_negative(self, store: Store, adapter_id: int) -> None:
        model = store.model(self.model_id) if self.model_id is not None else store.active_model(self.project_id, "engine")
        assert model is not None, "checked before"
        if not any(is_negative(item) for item in store.adapters(self.project_id)
                   if (item.id, item.model_id) == (adapter_id, model.id)):  # fmt: skip
            raise BadInputError(f"adapter {adapter_id} is no negative one of the present generator; `align --negative` makes one")
        guidance = self.settings.guidance_scale or model.architecture.get("sampler", {}).get("guidance_scale", 1.0)
        if guidance <= 1:
            raise BadInputError("a negative adapter works in the unconditional half of guidance, and guidance is off; choose a "
                                "guidance scale above 1, or leave the adapter out")  # fmt: skip

    def _check_part(self, store: Store, part: Inpaint) -> None:
        project = store.project(self.project_id)
        if self.label_map_ids is None or len(self.label_map_ids) != 1:
            named = len(self.label_map_ids or ())
            raise BadInputError(f"a part is made anew under one label map; got {named}, name one")
        if part.class_index is not None and part.class_index >= len(project.classes):
            last = len(project.classes) - 1
            raise BadInputError(f"class {part.class_index} is not in this project; it has classes 0 to {last}")
        source = inpainting.source_of(store, project, **part.source.model_dump())
        inpainting.weight_of(store, project, source, store.label_map(self.label_map_ids[0]), class_index=part.class_index,
                             dilate_px=part.dilate_px, side=project.resolution)  # fmt: skip

    def frozen(self, store: Store) -> Self:
        model = store.active_model(self.project_id, "engine")
        adapter = store.accepted_adapter(self.project_id) if self.adapter == "accepted" else None
        return self.model_copy(
            update={
                "label_map_ids": self.label_map_ids or self._drawn(store),
                "model_id": self.model_id or (model.id if model else None),
                "adapter": (adapter.id if adapter else "none") if self.adapter == "accepted" else self.adapter,
            }
        )

    def _needs_picture(self, store: Store) -> bool:
        model = store.model(self.model_id) if self.model_id is not None else store.active_model(self.project_id, "engine")
        return model is not None and inpainting.needs_picture(model)

    def _drawn(self, store: Store) -> tuple[int, ...]:
        """`count` label maps of the training split drawn by seed, each once before any comes twice; in classification as many of
        each class, one class after the other, so that rare classes are not rare in a pool."""
        generator = np.random.default_rng(self.seed)
        records = store.label_maps(self.project_id, splits=["train"])
        if not is_classification(store, self.project_id):
            return tuple(_in_turns(generator, [record.id for record in records], self.count))
        names = store.project(self.project_id).class_names
        labels = {image.id: image.label for image in store.images(self.project_id, splits=["train"])}
        pools = {index: [record.id for record in records if labels.get(record.image_id or 0) == name]
                 for index, name in enumerate(names) if self.classes is None or index in self.classes}  # fmt: skip
        pools = {index: pool for index, pool in pools.items() if pool}
        each = -(-self.count // len(pools))
        drawn = [_in_turns(generator, pool, each) for pool in pools.values()]
        return tuple(row[place] for place in range(each) for row in drawn)[: self.count]


def _in_turns(generator: np.random.Generator, pool: Sequence[int], count: int) -> list[int]:
    """`count` entries in random order, each once before any comes twice."""
    order: list[int] = []
    while len(order) < count:
        order += generator.permutation(len(pool)).tolist()
    return [pool[index] for index in order[:count]]


class DrawOrder(GenerateOrder):
    """Generation for a person who waits: goes to the head of the queue."""

    priority: ClassVar[int] = 10
    purpose: Literal["draw", "pool"] = "draw"


class TrainScorerOrder(Order):
    """Train selector and judge on the project's real training images."""

    kind: ClassVar[str] = "train_scorer"
    steps: int = Field(default=600, ge=1, le=200_000)
    """Of the judge. A selector that has not seen one of k folds takes (k - 1) / k of it: as many looks at each of its images."""
    batch_size: int = Field(default=16, ge=2, le=256)
    folds: int = Field(default=2, ge=1, le=10)
    """Selectors, each of which has not seen one fold of the patients; 1 = one that has seen all. Never more than patients."""
    seed: Seed = 0

    def check(self, store: Store) -> None:
        _need_labelled(store, self.project_id, needed=MIN_IMAGES_TO_TRAIN_SCORER, purpose="train the scorers")
        if is_classification(store, self.project_id) and len(shown := store.count_classes(self.project_id, splits=["train"])) < 2:
            raise TooFewError(f"all training images show {next(iter(shown))}, and a classifier needs two classes to tell apart; "
                              "import images of another class")


class ScoreOrder(Order):
    """Let selector and judge look at every sample they have not seen."""

    kind: ClassVar[str] = "score"

    def check(self, store: Store) -> None:
        if store.active_model(self.project_id, "selector") is None:
            raise TooFewError("this project has no selector yet; run `train-scorer` first")


class PredictOrder(Order):
    """What the selector sees in one real image, for a person who waits."""

    kind: ClassVar[str] = "predict"
    priority: ClassVar[int] = 10
    image_id: int
    model_id: int | None = None
    """None = the selector in use."""

    def check(self, store: Store) -> None:
        if store.image(self.image_id).project_id != self.project_id:
            raise BadInputError(f"image {self.image_id} belongs to another project; reload the page")
        if store.active_model(self.project_id, "selector") is None:
            what = "classifier" if is_classification(store, self.project_id) else "segmenter"
            raise TooFewError(f"this project has no {what} yet; train the scorers first (tab Data)")
        if self.model_id is not None:
            _need_own_model(store, self.project_id, self.model_id, "selector")

    def frozen(self, store: Store) -> Self:
        selector = store.active_model(self.project_id, "selector")
        return self.model_copy(update={"model_id": self.model_id or (selector.id if selector else None)})

    def unique_key(self, store: Store) -> str | None:
        """The same network sees the same in the same image."""
        frozen = self.frozen(store)
        assert isinstance(frozen, PredictOrder)
        return hashlib.sha256(dump([self.kind, self.image_id, frozen.model_id]).encode()).hexdigest()


class MapOrder(Order):
    """Lay all pictures out on a 2-D map, those that look alike side by side; waits for everything else."""

    kind: ClassVar[str] = "map"
    priority: ClassVar[int] = -5

    def unique_key(self, store: Store) -> str | None:
        return f"map:{self.project_id}:{store.projection_input(self.project_id, LOOK)}"

    def check(self, store: Store) -> None:
        store.project(self.project_id)


class AlignOrder(Order):
    """LoRA Diffusion-DPO on a frozen pair set; see `saadi.alignment.recipe.AlignmentConfig` for the rest."""

    kind: ClassVar[str] = "align"
    pair_set_id: int
    steps: int = Field(default=150, ge=1, le=100_000)
    batch_size: int = Field(default=8, ge=1, le=128)
    learning_rate: float = Field(default=1e-4, gt=0, le=1e-2, allow_inf_nan=False)
    beta: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """None = 0.3 x number of values in an image (docs/design.md)."""
    sft_weight: float = Field(default=0.2, ge=0, le=10, allow_inf_nan=False)
    gate_masks: int = Field(default=32, ge=4, le=512)
    gate_every: int = Field(default=50, ge=1)
    seed: Seed = 0
    loss: Literal["dpo", "kto", "mapo", "sft"] = "dpo"
    """How pairs are learnt from; see `saadi.alignment.trainer.AlignmentConfig`."""
    sdpo_mu: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    accumulation: int = Field(default=1, ge=1, le=1024)
    ema_decay: float | None = Field(default=None, ge=0, lt=1, allow_inf_nan=False)
    scale_search: Literal["never", "rescue", "always"] = "rescue"
    checkpointing: bool = False
    gpus: int = Field(default=1, ge=1, le=64)
    """Of this machine, each with a process of its own; the job says so where there are fewer."""
    negative: float | None = Field(default=None, gt=1, le=20, allow_inf_nan=False)
    """Learn a negative adapter, from the pairs the other way round, and test it in guidance of this scale; None = do not."""
    model_id: int | None = None
    """None = the generator in use."""
    parent_id: int | None = None
    """The adapter to start from; set to the version in use when the job starts."""
    continues: int | None = None
    """The stopped or failed alignment from whose checkpoint this one goes on; all else is equal to that one's order."""
    series: Series | None = None
    """The rounds that this alignment belongs to; None = it stands alone."""

    def frozen(self, store: Store) -> Self:
        if self.model_id is not None:
            return self
        model, parent = store.active_model(self.project_id, "engine"), store.accepted_adapter(self.project_id)
        return self.model_copy(update={"model_id": model.id if model else None, "parent_id": parent.id if parent else None})

    def unique_key(self, store: Store) -> str | None:
        frozen = [
            self.kind,
            self.frozen(store).model_dump(exclude={"pair_set_id", "continues"}),
            store.pair_set(self.pair_set_id).sha256,
        ]
        return hashlib.sha256(dump(frozen).encode()).hexdigest()

    def check(self, store: Store) -> None:
        if self.model_id is not None:
            _need_own_model(store, self.project_id, self.model_id, "engine")
        if self.parent_id is not None and store.adapter(self.parent_id).project_id != self.project_id:
            raise BadInputError(f"adapter {self.parent_id} belongs to another project; leave it out")
        if self.continues is not None:
            stopped = store.job(self.continues)
            if (stopped.kind, stopped.project_id) != (self.kind, self.project_id) or stopped.is_active:
                raise BadInputError(f"job {stopped.id} is no stopped alignment of this project; press Align now")
        pairs = store.pair_set(self.pair_set_id).pairs
        if len(pairs) < MIN_PAIRS_TO_ALIGN:
            raise TooFewError(
                f"{len(pairs)} usable pairs, {MIN_PAIRS_TO_ALIGN} needed to align; generate and score more "
                f"candidates, or vote on {MIN_PAIRS_TO_ALIGN - len(pairs)} more pairs"
            )
        for kind in ("engine", "selector", "judge"):
            if store.active_model(self.project_id, kind) is None:
                raise TooFewError(
                    f"this project has no {kind} yet; run {'`fit`' if kind == 'engine' else '`train-scorer`'} first"
                )


class EvidenceOrder(Order):
    """Measure whether synthetic data help: arms with equal budgets on unseen patients; see `saadi.evidence.gains`."""

    kind: ClassVar[str] = "evidence"
    priority: ClassVar[int] = -10
    num_real: int | None = Field(default=50, ge=8, le=100_000)
    """Real images that are learnt from; None = all training images."""
    seeds: int = Field(default=3, ge=1, le=20)
    shares: Annotated[tuple[Share, ...], Field(min_length=1, max_length=6)] = (1.0,)
    """Synthetic images per real one."""
    rounds: int = Field(default=2, ge=1, le=5)
    fit_steps: int = Field(default=400, ge=1, le=100_000)
    scorer_steps: int = Field(default=300, ge=1, le=100_000)
    downstream_steps: int = Field(default=400, ge=1, le=100_000)
    align_steps: int = Field(default=150, ge=1, le=100_000)
    test_share: float | None = Field(default=None, ge=0.05, le=0.9, allow_inf_nan=False)
    """None = test on the patients of the test split (of the validation split where there is none)."""
    data: str | None = None
    """Fingerprint of the labelled images when the job started for the first time; a pause must not mix two data sets."""

    def frozen(self, store: Store) -> Self:
        return self if self.data is not None else self.model_copy(update={"data": self.fingerprint(store)})

    def unique_key(self, store: Store) -> str | None:
        """The same measurement on the same images and label maps has the same result."""
        wanted = self.model_dump(mode="json", exclude={"data"})
        return hashlib.sha256(dump([self.kind, wanted, self.fingerprint(store)]).encode()).hexdigest()

    def fingerprint(self, store: Store) -> str:
        """Of the project's real images, their patients, splits and labels."""
        # In classification the label says it all; label maps of classes may come later.
        records = [] if is_classification(store, self.project_id) else store.label_maps(self.project_id)
        maps = {record.image_id: record.blob for record in records}
        images = store.images(self.project_id)
        data = [[image.blob, image.split, image.group_id, image.label, maps.get(image.id)] for image in images]
        return hashlib.sha256(dump(data).encode()).hexdigest()

    def check(self, store: Store) -> None:
        usable = store.count_labelled(self.project_id)
        train, test = usable["train"], usable["test"] or usable["val"]
        if self.test_share is not None:  # as `saadi.evidence.cases` deals them out; patients may differ in size
            test = round(sum(usable.values()) * self.test_share)
            train = sum(usable.values()) - test
        wanted = self.num_real or MIN_IMAGES_TO_FIT
        if train < wanted or not test:
            raise TooFewError(
                f"labelled images to train on: {train}, of other patients to test on: {test}; needed: {wanted} and 1; "
                "import more, or choose fewer real images"
            )


class ImportOrder(Order):
    """Take a folder of images and masks (in classification of images in folders by class) into the project; goes before waiting
    training."""

    kind: ClassVar[str] = "import"
    priority: ClassVar[int] = 5
    images_dir: str
    masks_dir: str | None = None
    csv: str | None = None
    group_pattern: str | None = None
    group_column: str | None = None
    split_column: str | None = None
    label_column: str | None = None
    """CSV column with the class of the image; None = a column called label or class, or the folder that the image lies in."""
    values: dict[int, Annotated[int, Field(ge=0, le=255)]] = {}
    """Value in the mask files -> class index of the project (255 = ignore)."""

    def check(self, store: Store) -> None:
        num_classes = len(store.project(self.project_id).classes)
        unknown = [index for index in self.values.values() if index >= num_classes and index != IGNORE]
        if unknown:
            raise BadInputError(f"class {unknown[0]} is not in this project; it has classes 0 to {num_classes - 1}")


class ExportOrder(Order):
    """Write the accepted samples (and, on request, the real training images) as a data set."""

    kind: ClassVar[str] = "export"
    format: Literal["imagefolder", "nnunet"]
    out_dir: str | None = None
    """None = a new folder under <home>/exports."""
    include_real: bool = True

    def check(self, store: Store) -> None:
        if self.format == "nnunet" and is_classification(store, self.project_id):
            raise BadInputError("nnU-Net holds masks and this project classifies whole images; choose the format imagefolder")
        if not store.samples(self.project_id, curation="accepted", limit=1):
            raise TooFewError("no accepted images to export; accept some in Curate first")


def order(kind: type[Order], **values: Any) -> Order:
    """Build an order from untrusted values.

    Raises:
        BadInputError: One sentence naming the first value out of bounds.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "order"
        raise BadInputError(f"{name}: {first['msg'].lower()}; got {str(first['input'])[:40]!r}") from error


def place(store: Store, wanted: Order, *, actor: str, request_id: str | None = None) -> tuple[Job, bool]:
    """Check an order and queue it.

    Returns:
        The job, and True where it is new; a second click gets the job of the first.
    """
    store.complete_class_maps(wanted.project_id, actor=actor)
    wanted.check(store)
    return store.add_job(
        wanted.kind,
        wanted.model_dump(mode="json"),
        project_id=wanted.project_id,
        actor=actor,
        request_id=request_id or uuid.uuid4().hex,
        unique_key=wanted.unique_key(store),
        priority=wanted.priority,
    )


ORDERS: dict[str, type[Order]] = {
    kind.kind: kind
    for kind in (FitOrder, GenerateOrder, TrainScorerOrder, ScoreOrder, PredictOrder, MapOrder, AlignOrder, EvidenceOrder,
                 ImportOrder, ExportOrder)
}


def freeze(store: Store, job: Job) -> Job:
    """Write the versions in use into a job's order when it starts for the first time; a retry finds them there.

    Raises:
        TooFewError: What the order needs has gone since it was placed.
    """
    if job.attempt > 1 or job.kind not in ORDERS:
        return job
    wanted = ORDERS[job.kind](**job.params)
    wanted.check(store)
    return store.set_job_params(job, wanted.frozen(store).model_dump(mode="json"))
