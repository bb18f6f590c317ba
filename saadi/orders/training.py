"""Orders that learn or measure: fits, scorers, alignments, evidence."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator

from saadi.engines import pretrained
from saadi.errors import BadInputError, TooFewError, WeightsError
from saadi.orders.base import Order, Seed, Share, is_classification, need_labelled, need_own_model
from saadi.orders.generating import Series
from saadi.orders.recipe import RECIPE, LossName, learning_rate_and_term
from saadi.records import Model
from saadi.store import Store
from saadi.store.connection import dump

MIN_IMAGES_TO_FIT = 8
"""Below, a fit that nothing watches only memorises."""
MIN_IMAGES_TO_ADAPT, MAX_IMAGES_TO_ADAPT = 5, 200
"""For few images; some are held out to see when to end. Whether copies are painted is seen from 10 images of 4 patients on."""
MIN_IMAGES_TO_TRAIN_SCORER = 8
PROMPT = "a photo of surgery, {classes}"
MIN_PAIRS_TO_ALIGN = 16
"""16 good pairs already move a small model; fewer only teach noise."""


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
    few: bool = False
    """5 to 50 images are enough: adapt the weights in use, see whether the images are learnt by heart, and end early
    (`saadi.engines.few_shot`)."""
    references: bool = False
    """Learn to paint a class like it looks in an image that is shown (`saadi.engines.appearance`); what is learnt stays so."""
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
    """None = that of the fit it goes on from, or 16; another one than that fit's starts anew. With few images on compact: train
    an adapter of this rank and merge it, instead of all weights."""
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
        if self.references and self.engine != "compact":
            raise BadInputError("references are learnt by the engine compact; leave --references out")
        if self.references and self.few and self.lora_rank is not None:
            raise BadInputError("references are learnt by layers that an adapter leaves alone; leave the rank out, or them")
        if self.references and is_classification(store, self.project_id):
            raise BadInputError("a reference tells what a mask's region is to look like, and this project has no masks; leave "
                                "--references out")  # fmt: skip
        if self.few and self.from_scratch:
            raise BadInputError("few images adapt weights that there are; leave --from-scratch out, or --few")
        if self.engine == "stable-diffusion":
            if self.controlnet is not None and self.mode != "controlnet":
                raise BadInputError("a ControlNet belongs to the mode controlnet; choose that mode, or leave the ControlNet out")
            self.weights_on_disk(store).need_side(store.project(self.project_id).resolution)
            if self.controlnet is not None:
                pretrained.check_controlnet(self.controlnet)
        if self.few and (found := store.count_labelled(self.project_id)["train"]) > MAX_IMAGES_TO_ADAPT:
            raise BadInputError(f"few images are {MIN_IMAGES_TO_ADAPT} to {MAX_IMAGES_TO_ADAPT}, and this project has {found}; "
                                "leave --few out (Data: Few images)")  # fmt: skip
        need_labelled(store, self.project_id, needed=MIN_IMAGES_TO_ADAPT if self.few else MIN_IMAGES_TO_FIT,
                      purpose="adapt a generator" if self.few else "fit")  # fmt: skip

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
        need_labelled(store, self.project_id, needed=MIN_IMAGES_TO_TRAIN_SCORER, purpose="train the scorers")
        if is_classification(store, self.project_id) and len(shown := store.count_classes(self.project_id, splits=["train"])) < 2:
            raise TooFewError(f"all training images show {next(iter(shown))}, and a classifier needs two classes to tell apart; "
                              "import images of another class")


class AlignOrder(Order):
    """LoRA Diffusion-DPO on a frozen pair set; see `saadi.alignment.recipe.AlignmentConfig` for the rest."""

    kind: ClassVar[str] = "align"
    pair_set_id: int
    steps: int = Field(default=150, ge=1, le=100_000)
    batch_size: int = Field(default=8, ge=1, le=128)
    learning_rate: float | None = Field(default=None, gt=0, le=1e-2, allow_inf_nan=False)
    """None = as large as is known to be held (`saadi.orders.recipe`)."""
    beta: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """None = 0.3 x number of values in an image (docs/design.md)."""
    sft_weight: float | None = Field(default=None, ge=0, le=10, allow_inf_nan=False)
    """Of the denoising term; None = as `saadi.orders.recipe` has it for engine and loss."""
    gate_masks: int = Field(default=32, ge=4, le=512)
    gate_every: int = Field(default=50, ge=1)
    seed: Seed = 0
    loss: LossName = "dpo"
    """How pairs are learnt from; see `saadi.alignment.settings.AlignmentConfig`."""
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
        chosen: dict[str, Any] = {}
        if self.model_id is not None:
            model: Model | None = store.model(self.model_id)
        else:
            model, parent = store.active_model(self.project_id, "engine"), store.accepted_adapter(self.project_id)
            chosen = {"model_id": model.id if model else None, "parent_id": parent.id if parent else None}
        if model is not None:  # a later program that chooses otherwise goes on as this one began
            chosen["learning_rate"], chosen["sft_weight"] = learning_rate_and_term(
                model.architecture.get("engine", "compact"), self.loss, learning_rate=self.learning_rate,
                sft_weight=self.sft_weight, is_negative=self.negative is not None)  # fmt: skip
        return self.model_copy(update=chosen)

    def unique_key(self, store: Store) -> str | None:
        frozen = [
            self.kind,
            RECIPE,
            self.frozen(store).model_dump(exclude={"pair_set_id", "continues"}),
            store.pair_set(self.pair_set_id).sha256,
        ]
        return hashlib.sha256(dump(frozen).encode()).hexdigest()

    def check(self, store: Store) -> None:
        if self.model_id is not None:
            need_own_model(store, self.project_id, self.model_id, "engine")
        if self.parent_id is not None and store.adapter(self.parent_id).project_id != self.project_id:
            raise BadInputError(f"adapter {self.parent_id} belongs to another project; leave it out")
        if self.continues is not None:
            stopped = store.job(self.continues)
            if (stopped.kind, stopped.project_id) != (self.kind, self.project_id) or stopped.is_active:
                raise BadInputError(f"job {stopped.id} is no stopped alignment of this project; press Align now")
        pairs = store.pair_set(self.pair_set_id).pairs
        if store.withdrawn_pairs(self.project_id, self.pair_set_id):
            raise BadInputError("among the pairs of this alignment are images of a patient who has withdrawn since; press "
                                "Align now (`align`), which settles them anew")  # fmt: skip
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
        return hashlib.sha256(dump([self.kind, RECIPE, wanted, self.fingerprint(store)]).encode()).hexdigest()

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
