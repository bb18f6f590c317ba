"""Orders of images: how they are sampled, of which masks or classes, and what of a picture is made anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from saadi import inpainting
from saadi.engines.appearance import NUM_VALUES, Appearance, Reference, appearance_of, styles
from saadi.errors import BadInputError, TooFewError
from saadi.mining import seen
from saadi.mining.choosing import MIN_UNSEEN
from saadi.mining.weakness import Weakness, whole_part
from saadi.orders.base import Order, Seed, is_classification, need_nobody_withdrawn
from saadi.records import Adapter, LabelMapRecord, Project
from saadi.store import Store


def is_negative(adapter: Adapter) -> bool:
    """It has learnt what is not wanted, for the unconditional half of guidance."""
    return adapter.config.get("negative") is not None


class NegativeSettings(BaseModel):
    """A negative adapter in the unconditional half of guidance; see `saadi.engines.base.Negative`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    adapter_id: int
    weight: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False)


TRIED_PER_WANTED = 3
"""Label maps that a search goes over at most, for each image that it is to find."""
_LATER = ("negative", "surroundings", "guide", "references", "noise_shift_id")
"""Settings that recipes of earlier versions do not know."""


class GuideSettings(BaseModel):
    """The part that is made begins wider than it ends; see `saadi.engines.regions.Guide`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    reach_px: int = Field(ge=1, le=inpainting.MAX_DILATE_PX)
    """In pixels of the made image, in the first step."""
    until: float = Field(default=0.6, ge=0, le=1, allow_inf_nan=False)
    """Share of the steps after which the part is exact."""


class ReferenceSettings(BaseModel):
    """Paint a class like it looks in a picture; see `saadi.engines.appearance`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    class_index: int = Field(ge=0, le=99)
    sample_id: int | None = None
    image_id: int | None = None
    blob: str | None = None
    label_map_blob: str | None = None
    """Its pixels and label map when the job started: a mask that is corrected meanwhile would give the rest another look."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.sample_id is None) == (self.image_id is None):
            raise ValueError("name one picture, by sample_id or by image_id")
        return self


class SamplingSettings(BaseModel):
    """How an engine samples; part of every sample's recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    num_inference_steps: int | None = Field(default=None, ge=2, le=100)
    """None = the number stored with the weights by the sweep at the end of the fit."""
    guidance_scale: float | None = Field(default=None, ge=0.1, le=20.0, allow_inf_nan=False)
    """1 = no classifier-free guidance (one network call a step); any other costs two, and below 1 the mask counts for less. None
    = stored with the weights, or 1."""
    negative: NegativeSettings | None = None
    """None = plain guidance."""
    surroundings: Literal["real"] | None = None
    """'real' = what a label map names is painted into the real image under it, which stays around it; None = the engine's own
    way: whole images, or painting where it can do nothing else."""
    guide: GuideSettings | None = None
    """Of parts and of what is painted into pictures; None = exact from the first step."""

    references: Annotated[tuple[ReferenceSettings, ...], Field(min_length=1, max_length=100)] | None = None
    """None = every class as the generator likes."""
    noise_shift_id: int | None = None
    """Where sampling starts, learnt by a search for hard images; None = plain noise."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not used: it is part of the recipe by which samples are found again."""
        return {name: value for name, value in handler(self).items() if name not in _LATER or value is not None}


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


class GenerateOrder(Order):
    """Candidates for label maps: K images each, one seed each."""

    kind: ClassVar[str] = "generate"
    label_map_ids: Annotated[tuple[int, ...], Field(min_length=1, max_length=100_000)] | None = None
    """None = `count` label maps drawn from the training split by `seed`."""
    classes: Annotated[tuple[Annotated[int, Field(ge=0, le=99)], ...], Field(min_length=1, max_length=100)] | None = None
    """In classification: class indices among which `count` is dealt out evenly; None = all that training images show."""
    count: int = Field(default=8, ge=1, le=100_000)
    focus: Literal["weak"] | None = None
    """How `count` label maps (or classes) are drawn: 'weak' = by what the selector misses in real images it has not learnt from
    (`saadi.mining.weakness`); None = evenly. Named label maps are taken as they are."""
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
        self._check_references(store)
        self._check_noise_shift(store)
        needs_picture = self.inpaint is None and self._needs_picture(store)
        if self.settings.guide is not None and not needs_picture and self.inpaint is None:
            raise BadInputError("a guide shrinks towards the part that is made, and whole images have none; choose real "
                                "surroundings or a part, or leave the guide out")  # fmt: skip
        need_nobody_withdrawn(store, self.project_id, self.label_map_ids or ())
        for label_map_id in self.label_map_ids or ():
            record = store.label_map(label_map_id)
            if record.project_id != self.project_id:
                raise BadInputError(f"label map {label_map_id} belongs to another project")
            if needs_picture and inpainting.paints_nothing(store, record):
                raise BadInputError(f"label map {label_map_id} names no class, so that nothing would be painted and a real image "
                                    "would come back; draw something in it, or leave it out")  # fmt: skip
        if self.label_map_ids is None and not store.label_maps(self.project_id, splits=["train"]):
            raise TooFewError("this project has no label maps in its training split; import images with masks or draw one first")
        if self.focus is not None and self.label_map_ids is None:
            need_unseen_images(store, self.project_id, 1)
        if self.inpaint is not None:
            self._check_part(store, self.inpaint)

    def _check_references(self, store: Store) -> None:
        if self.settings.references is None:
            return
        model = store.model(self.model_id) if self.model_id is not None else store.active_model(self.project_id, "engine")
        if model is None or not model.architecture.get("style_dim"):
            raise BadInputError("the generator in use has not learnt to paint like a reference; fit it with --references (Data: "
                                "Learn to paint like a chosen image) first, or leave the reference out")  # fmt: skip
        project = store.project(self.project_id)
        nothing = np.zeros(NUM_VALUES, np.float32)
        styles([Reference(one.class_index, nothing) for one in self.settings.references], num_classes=len(project.classes))
        for one in self.settings.references:
            looks_of(store, project, one)

    def _check_noise_shift(self, store: Store) -> None:
        if self.settings.noise_shift_id is None:
            return
        model = store.model(self.model_id) if self.model_id is not None else store.active_model(self.project_id, "engine")
        shift = store.noise_shift(self.settings.noise_shift_id)
        adapter = store.accepted_adapter(self.project_id) if self.adapter == "accepted" else None
        adapter_id = self.adapter if isinstance(self.adapter, int) else adapter.id if adapter else None
        if model is None or (shift.model_id, shift.adapter_id) != (model.id, adapter_id):
            raise BadInputError(f"start {shift.id} was learnt for another generator or version; choose that version, learn a "
                                "start for this one, or leave it out")  # fmt: skip

    def _check_classes(self, store: Store) -> None:
        if self.classes is not None and self.label_map_ids is not None and not self._are_of_classes(store):
            raise BadInputError("classes or label maps, not both; leave the label maps out")
        if self.inpaint is not None or self.settings.surroundings is not None:
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

    def _are_of_classes(self, store: Store) -> bool:
        """Whether the label maps were drawn by these classes: an order that made room for another one comes with both."""
        names = store.project(self.project_id).class_names
        wanted = {names[index] for index in self.classes or () if index < len(names)}
        labels = {image.label_map_id: image.label for image in store.images(self.project_id)}
        return all(labels.get(number) in wanted for number in self.label_map_ids or ())

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
        if source.image_id is not None and store.image(source.image_id).withdrawn_from is not None:
            raise BadInputError(f"the pixels around the part are of image {source.image_id}, whose patient has withdrawn; choose "
                                "another picture")  # fmt: skip
        inpainting.weight_of(store, project, source, store.label_map(self.label_map_ids[0]), class_index=part.class_index,
                             dilate_px=part.dilate_px, side=project.resolution)  # fmt: skip

    def frozen(self, store: Store) -> Self:
        model = store.active_model(self.project_id, "engine")
        adapter = store.accepted_adapter(self.project_id) if self.adapter == "accepted" else None
        return self.model_copy(
            update={
                "settings": self.settings.model_copy(update={"references": self._seen_references(store)}),
                # What the selector misses is known once it has looked at the real images, which the job sees to.
                "label_map_ids": self.label_map_ids or (None if self.focus else self.drawn(store)),
                "model_id": self.model_id or (model.id if model else None),
                "adapter": (adapter.id if adapter else "none") if self.adapter == "accepted" else self.adapter,
            }
        )

    def _seen_references(self, store: Store) -> tuple[ReferenceSettings, ...] | None:
        """With the blobs that they are now."""
        if self.settings.references is None:
            return None
        project, found = store.project(self.project_id), []
        for one in self.settings.references:
            blob, label_map_blob = reference_blobs(store, project, one)
            found.append(one.model_copy(update={"blob": blob, "label_map_blob": label_map_blob}))
        return tuple(found)

    def _needs_picture(self, store: Store) -> bool:
        """Whether each label map is painted into the picture under it."""
        if self.settings.surroundings == "real":
            return True
        model = store.model(self.model_id) if self.model_id is not None else store.active_model(self.project_id, "engine")
        return model is not None and inpainting.needs_picture(model)

    def drawn(self, store: Store) -> tuple[int, ...]:
        """`count` label maps of the training split drawn by seed, each once before any comes twice, or by `focus`. In
        classification as many of each class, one class after the other, so that rare classes are not rare in a pool."""
        generator = np.random.default_rng(self.seed)
        records = store.label_maps(self.project_id, splits=["train"])
        if self._needs_picture(store):
            records = [record for record in records if not inpainting.paints_nothing(store, record)] or records
        if not is_classification(store, self.project_id):
            if self.focus == "weak":
                return tuple(records[index].id for index in self._by_weakness(store, generator, records))
            return tuple(_in_turns(generator, [record.id for record in records], self.count))
        names = store.project(self.project_id).class_names
        labels = {image.id: image.label for image in store.images(self.project_id, splits=["train"])}
        pools = {index: [record.id for record in records if labels.get(record.image_id or 0) == name]
                 for index, name in enumerate(names) if self.classes is None or index in self.classes}  # fmt: skip
        pools = {index: pool for index, pool in pools.items() if pool}
        if self.focus == "weak":
            odds = known_weakness(store, self.project_id).odds([[whole_part(index)] for index in pools])
            wanted = generator.multinomial(self.count, odds)
            return tuple(one for pool, share in zip(pools.values(), wanted, strict=True)
                         for one in _in_turns(generator, pool, int(share)))  # fmt: skip
        each = -(-self.count // len(pools))
        drawn = [_in_turns(generator, pool, each) for pool in pools.values()]
        return tuple(row[place] for place in range(each) for row in drawn)[: self.count]


    def _by_weakness(self, store: Store, generator: np.random.Generator, records: Sequence[LabelMapRecord]) -> list[int]:
        """Places of `count` label maps, the likelier the more of what they ask for the selector misses; one may come again."""
        found = known_weakness(store, self.project_id)
        odds = found.odds(seen.parts_asked(store, store.project(self.project_id), [record.blob for record in records]))
        return [int(index) for index in generator.choice(len(records), size=self.count, p=odds)]


def need_unseen_images(store: Store, project_id: int, needed: int) -> None:
    """Raises: TooFewError: no selector yet, or it has learnt from the patients of all but a few labelled images."""
    model = store.active_model(project_id, "selector")
    if model is None:
        raise TooFewError("this project has no selector yet, so nobody knows what one misses; run `train-scorer` first")
    images = seen.unseen_by(model, seen.labelled(store, store.project(project_id)))
    if len(images) < needed:
        raise TooFewError(f"{len(images)} labelled images in train or val of patients that the selector has not learnt from, "
                          f"{needed} needed to say what it misses; import more, or train the scorers anew")  # fmt: skip


def known_weakness(store: Store, project_id: int) -> Weakness:
    """Raises: TooFewError: the selector has not looked yet at real images of patients that it has not learnt from."""
    project = store.project(project_id)
    found = seen.weakness(store, project)
    if found is None:
        need_unseen_images(store, project_id, 1)
        if seen.num_looked_at(store, project)[1]:
            raise TooFewError("the real images that the selector has not learnt from show nothing that it could miss; import "
                              "images with masks that name something, with the split val")  # fmt: skip
        raise TooFewError(f"the selector has not looked yet at the real images; let it with `saadi score {project.name}`")
    return found


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


def looks_of(store: Store, project: Project, wanted: ReferenceSettings) -> Appearance:
    """What the class looks like in the picture that is named.

    Raises:
        BadInputError: It is another project's, shows no such class, has no mask, or is a validation or test patient's: what is
            made after it would know those.
    """
    image_blob, label_map_blob = reference_blobs(store, project, wanted)
    try:
        return appearance_of(store.blobs.image(image_blob), store.blobs.label_map(label_map_blob), wanted.class_index)
    except BadInputError as error:
        name = project.class_names[wanted.class_index]
        raise BadInputError(str(error).replace(f"class {wanted.class_index}", name)) from None


def reference_blobs(store: Store, project: Project, wanted: ReferenceSettings) -> tuple[str, str]:
    """Image and label map of a reference, as they were when its job started; raises as `looks_of`."""
    if wanted.sample_id is not None:
        sample = store.sample(wanted.sample_id)
        if sample.project_id != project.id:
            raise BadInputError(f"image {sample.id} belongs to another project; choose one of this project")
        if sample.is_composite:
            raise BadInputError(f"image {sample.id} holds pixels of a real one; choose that one, or a wholly synthetic image")
        return sample.blob, sample.label_map_blob
    assert wanted.image_id is not None
    image = store.image(wanted.image_id)
    if image.project_id != project.id:
        raise BadInputError(f"image {image.id} belongs to another project; choose one of this project")
    if image.withdrawn_from is not None:
        raise BadInputError(f"the patient of image {image.id} has withdrawn; choose another training image")
    if image.split != "train":
        raise BadInputError(f"image {image.id} is in the split {image.split}, and what is made after it would know that patient; "
                            "choose a training image")  # fmt: skip
    if image.label_map_id is None:
        raise BadInputError(f"image {image.id} has no mask that says where to look; draw one, or choose another image")
    if wanted.label_map_blob in [one["blob"] for one in store.label_map_history(image.label_map_id)]:
        return image.blob, str(wanted.label_map_blob)
    return image.blob, store.label_map(image.label_map_id).blob


class MineOrder(GenerateOrder):
    """Search for images that are hard for the selector and still right, by what it misses: turns of candidates, each for a label
    map, until enough are found that the judge and the quality check pass; see `saadi.mining`."""

    kind: ClassVar[str] = "mine"
    count: int = Field(default=16, ge=1, le=1000)
    """Hard images that are searched for, one for a label map at most."""
    focus: Literal["weak"] | None = "weak"
    candidates: int = Field(default=2, ge=1, le=64)
    """Per label map and turn."""
    turns: int = Field(default=6, ge=1, le=20)
    """For each image that is searched for, all label maps together; after so many of its own a label map is given up."""
    suggests: bool | None = None
    """Draw new label maps by the mask generator and take those of them; None = where there is one already."""
    learned: bool = False
    """Start from noise that has been learnt to become hard images (`saadi.mining.noise_shift`) instead of plain noise. The newest
    for this generator, adapter and selector is used; where there is none it is learnt first, which takes minutes."""
    learn_steps: int | None = Field(default=None, ge=1, le=100_000)
    """Learn anew, with so many steps; None = only where there is none, with 150."""
    learnt_id: int | None = None
    """Which start is used; the job writes it."""
    spares: tuple[dict[str, Any], ...] | None = None
    """Label maps drawn for this search: blob and seed of each; the job writes them."""

    def check(self, store: Store) -> None:
        super().check(store)
        if store.active_model(self.project_id, "judge") is None:
            raise TooFewError("this project has no judge yet, and without one hard images cannot be told from wrong ones; run "
                              "`train-scorer` first")  # fmt: skip
        if self.suggests and store.newest_mask_model(self.project_id) is None:
            raise TooFewError("no mask generator has been fitted in this project yet; run `fit-masks` first, or leave it out")
        if self.learn_steps is not None and not self.learned:
            raise BadInputError("steps of learning were given, and nothing is to be learnt; add --learned, or leave them out")
        if self.learned and self.settings.noise_shift_id is not None:
            raise BadInputError("a start was named and one is to be learnt; leave one of both out")
        if self.suggests and self._needs_picture(store):
            raise BadInputError("new masks lie on no picture, and this generator paints into the picture under a mask; search "
                                "with the masks of training images")  # fmt: skip
        need_unseen_images(store, self.project_id, MIN_UNSEEN)

    def frozen(self, store: Store) -> Self:
        if self.spares is not None:  # a search that was interrupted: the job has written what it goes over
            return self
        can_suggest = (store.newest_mask_model(self.project_id) is not None and self.label_map_ids is None
                       and not is_classification(store, self.project_id) and not self._needs_picture(store))  # fmt: skip
        # Which label maps are searched for is known once the selector has looked, which the job sees to.
        found = super().frozen(store).model_copy(update={"label_map_ids": self.label_map_ids})
        count = self.count if self.label_map_ids is None else len(self.label_map_ids)
        return found.model_copy(update={"suggests": can_suggest and self.suggests is not False, "count": count})

    def tried(self, store: Store) -> list[int]:
        """Label maps that are there already and are searched, in this order: more than images are wanted, since most have none.
        Of a class there is nothing to choose between: as many as are wanted."""
        if is_classification(store, self.project_id):
            return list(self.drawn(store))
        more = self.model_copy(update={"count": self.count * TRIED_PER_WANTED}).drawn(store)
        return list(dict.fromkeys(more))
