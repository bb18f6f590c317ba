"""What goes into an export: accepted synthetic images and, on request, the real ones, with group, split and lineage.

The rule that keeps a test honest: a synthetic image takes group and split of the real image that its label map came from, and
never reaches validation or test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from saadi import quality_gate
from saadi.errors import TooFewError
from saadi.inpainting import real_image_of
from saadi.masks import class_of
from saadi.quality_gate import Looked
from saadi.records import HELD_OUT_SPLITS, LabelMapRecord, Project, RealImage, Sample, Score, Split
from saadi.store import Store
from saadi.store.withdrawals import Tie

WITHDRAWN: dict[Tie, str] = {
    "pixels": "pixels of a patient who has withdrawn", "mask": "label map of a patient who has withdrawn",
    "look": "after the look of a patient who has withdrawn",
    "version": "made by a version that may have learnt from a patient who has withdrawn"}  # fmt: skip
SHOWS_TEXT = "shows text that nobody has called harmless"


@dataclass(frozen=True)
class Item:
    """One image of an export, with its mask where the project has masks."""

    name: str
    """'real-000012', 'synthetic-000034' or 'composite-000056': our ids; original names may hold a patient's."""
    kind: Literal["real", "synthetic", "composite"]
    """A composite is a real image of which a part was made anew: a patient's pixels are left in it."""
    split: Split
    group: str
    """A number in place of the patient, video or operation."""
    blob: str
    label_map_blob: str | None
    label: str | None
    lineage: dict[str, Any]
    """All that is needed to trace or make the image again, JSON."""


@dataclass
class Selection:
    items: list[Item] = field(default_factory=list)
    """Real ones first, each kind by id."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> number of images."""


def select(
    store: Store, project: Project, *, include_real: bool, include_refused: bool = False,
    refinement: Mapping[str, Any] | None = None, with_tied_versions: bool = False,
) -> Selection:  # fmt: skip
    """Choose the items of an export.

    Args:
        include_refused: Also images that the quality gate refuses.
        with_tied_versions: Also images made by versions that may have learnt from a patient who has withdrawn, where somebody
            answers for that.
        refinement: What was measured of outlines ('radii', 'model_id', 'job_id'): masks of that generator's images are written
            without their rim; None = as drawn.

    Raises:
        TooFewError: No accepted image, or all of them stem from validation or test patients.
    """
    accepted = store.samples(project.id, curation="accepted")
    if not accepted:
        raise TooFewError("no accepted images to export; accept some in Curate first")
    images = store.images(project.id)
    selection = Selection()
    if include_real:
        _add_real(store, project, images, selection)
    num_real = len(selection.items)
    refused = {} if include_refused else refusals(store, project, accepted)
    _add_synthetic(store, project, images, accepted, selection, refused, with_tied_versions=with_tied_versions)
    if refinement is not None and refinement["radii"]:
        selection.items = [_refined(item, refinement) for item in selection.items]
    if len(selection.items) == num_real:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(selection.left_out.items()))
        if any(WITHDRAWN["version"] in reason for reason in selection.left_out):
            raise TooFewError(f"none of the {len(accepted)} accepted images may be exported ({reasons}); fit and align without "
                              "that patient and make others, or confirm it with a reason (`--despite-withdrawn`)")
        way = "include what the quality gate refuses, or accept others" if refused else "accept images from training label maps"
        raise TooFewError(f"none of the {len(accepted)} accepted images may be exported ({reasons}); {way}")
    return selection


def _refined(item: Item, refinement: Mapping[str, Any]) -> Item:
    """The same item, to be written without its rim where it is an image of the version that was measured. A composite stays as it
    is: not all that its mask names was made, and real pixels have no rim."""
    if item.kind != "synthetic":
        return item
    adapter = item.lineage["adapter"]
    if (item.lineage["model"]["id"], adapter["id"] if adapter else None) != (refinement["model_id"], refinement["adapter_id"]):
        return item
    told = {"radii_px": dict(refinement["radii"]), "measured_by_job": refinement["job_id"]}
    return replace(item, lineage=item.lineage | {"refined": told})


def group_names(images: list[RealImage]) -> dict[str, str]:
    """Group of the store -> name in an export: the first image's id in place of what may be a patient's name."""
    names: dict[str, str] = {}
    for image in images:
        names.setdefault(image.group_id, f"group-{image.id:06d}")
    return names


def _add_real(store: Store, project: Project, images: list[RealImage], selection: Selection) -> None:
    names, held = group_names(images), store.held_texts(image.blob for image in images)
    for image in images:
        record = store.label_map(image.label_map_id) if image.label_map_id is not None else None
        if image.withdrawn_from is not None:
            selection.left_out["real, of a patient who has withdrawn"] += 1
        elif image.split == "none":
            selection.left_out["real, in no split"] += 1
        elif image.blob in held:
            selection.left_out[f"real, {SHOWS_TEXT}"] += 1
        elif project.task == "segmentation" and record is None:
            selection.left_out["real, without mask"] += 1
        elif project.task == "classification" and image.label is None:
            selection.left_out["real, without label"] += 1
        else:
            selection.items.append(real_item(project, image, record, names[image.group_id]))


def real_item(project: Project, image: RealImage, record: LabelMapRecord | None, group: str) -> Item:
    """A real image that is on a side of the split, with its own label map."""
    assert image.split != "none", "left out"
    with_mask = record if project.task == "segmentation" else None  # a class is in `label`
    return Item(name=f"real-{image.id:06d}", kind="real", split=image.split, group=group, blob=image.blob,
                label_map_blob=with_mask.blob if with_mask else None, label=image.label,
                lineage={"image_id": image.id, "label_map": _label_map_lineage(with_mask)})


def refusals(store: Store, project: Project, samples: list[Sample]) -> dict[int, str]:
    """Sample id -> why the quality gate refuses it; in that it is no copy check: one that passes may still be a copy."""
    found = quality_gate.judged(
        store, project, [Looked(sample.blob, sample.label_map_blob, sample.is_composite) for sample in samples])
    words = {"implausible": "unlike real images", "copy": "very near to a real image"}
    return {sample.id: words[one.verdict] for sample, one in zip(samples, found, strict=True) if one and one.verdict in words}


def _add_synthetic(
    store: Store, project: Project, images: list[RealImage], accepted: list[Sample], selection: Selection,
    refused: dict[int, str], *, with_tied_versions: bool,
) -> None:  # fmt: skip
    rules = SyntheticRules(store, project, images, with_tied_versions=with_tied_versions)
    for sample in accepted:
        reason = rules.reason_against(sample)
        kind = "composite" if sample.is_composite else "synthetic"
        if reason is None and sample.id in refused:
            reason = f"{kind}, {refused[sample.id]}"
        if reason is not None:
            selection.left_out[reason] += 1
        else:
            selection.items.append(rules.item(sample))


class SyntheticRules:
    """What keeps an image that was made out of every export, and what the others become."""

    def __init__(self, store: Store, project: Project, images: list[RealImage], *, with_tied_versions: bool = False) -> None:
        """`with_tied_versions` as in `select`."""
        self.store, self.project, self._with_tied_versions = store, project, with_tied_versions
        self.names = group_names(images)
        self._by_id = {image.id: image for image in images}
        self._real_blobs = {image.blob for image in images}
        self._flagged = store.flagged_blobs(project.id)
        self._tied = store.standing_trace(project.id).samples
        made = store.samples(project.id)
        self.held = store.held_texts([*self._real_blobs, *(sample.blob for sample in made),
                                      *(sample.source_blob for sample in made if sample.source_blob is not None)])  # fmt: skip
        self._held_out_groups = {image.group_id for image in images if image.split in HELD_OUT_SPLITS}
        _, self._held_out_masks = store.held_out_label_maps(project.id)
        self._scores: dict[int, list[Score]] = {}
        for score in store.scores(project.id):
            self._scores.setdefault(score.sample_id, []).append(score)

    def reason_against(self, sample: Sample) -> str | None:
        """Why an image must not leave; None = it may."""
        _, source, real = self._origin(sample)
        kind = "composite" if sample.is_composite else "synthetic"
        tie = self._tied.get(sample.id)
        if tie is not None and not (tie == "version" and self._with_tied_versions):
            return f"{kind}, {WITHDRAWN[tie]}"
        if sample.is_composite and (real is None or real.group_id in self._held_out_groups):
            return "composite, pixels of a validation or test patient"
        if source is not None and source.group_id in self._held_out_groups:
            return "synthetic, label map of a validation or test patient"
        if source is None and sample.label_map_blob in self._held_out_masks:
            return "synthetic, copied label map of a validation or test patient"
        if sample.blob in self._real_blobs:
            return "synthetic, exact copy of a real image"
        if sample.blob in self._flagged:
            return f"{kind}, held for a copy of a training image by an audit"
        # What was kept of a picture keeps its text bit for bit, whatever was found in the new one.
        shown = {sample.blob, sample.source_blob, real.blob if real is not None else None}
        return f"{kind}, {SHOWS_TEXT}" if shown & self.held else None

    def item(self, sample: Sample) -> Item:
        """One that may leave."""
        record, source, real = self._origin(sample)
        scores = self._scores.get(sample.id, [])
        if self.project.task == "classification":
            return _of_class(self.store, self.project, sample, record, scores)
        kind: Literal["synthetic", "composite"] = "composite" if sample.is_composite else "synthetic"
        source = real or source
        return Item(name=f"{kind}-{sample.id:06d}", kind=kind, split="train",
                    group=self.names[source.group_id] if source else f"drawing-{record.id:06d}", blob=sample.blob,
                    label_map_blob=sample.label_map_blob, label=source.label if source else None,
                    lineage=_sample_lineage(self.store, sample, record, scores))

    def _origin(self, sample: Sample) -> tuple[LabelMapRecord, RealImage | None, RealImage | None]:
        """Its label map, the real image that this belongs to or was drawn over, and the one whose pixels are left in it."""
        record = self.store.label_map(sample.label_map_id)
        return record, self._by_id.get(record.image_id or record.underlay_id or 0), self._by_id.get(real_image_of(sample) or 0)


def _of_class(store: Store, project: Project, sample: Sample, record: LabelMapRecord, scores: list[Score]) -> Item:
    """A synthetic image of a class: it comes from no patient's mask, so the class is its group."""
    index = class_of(store.blobs.label_map(sample.label_map_blob))
    return Item(name=f"synthetic-{sample.id:06d}", kind="synthetic", split="train", group=f"synthetic-class-{index:02d}",
                blob=sample.blob, label_map_blob=None, label=project.class_names[index],
                lineage=_sample_lineage(store, sample, record, scores) | {"asked_class": project.class_names[index]})


def _label_map_lineage(record: LabelMapRecord | None) -> dict[str, Any] | None:
    return {"id": record.id, "rev": record.rev, "blob": record.blob, "origin": record.origin} if record else None


def _sample_lineage(store: Store, sample: Sample, record: LabelMapRecord, scores: list[Score]) -> dict[str, Any]:
    model, project = store.model(sample.model_id), store.project(sample.project_id)
    adapter = store.adapter(sample.adapter_id) if sample.adapter_id is not None else None
    scorers = {score.model_id: store.model(score.model_id) for score in scores}
    return {
        "sample_id": sample.id, "parent_id": sample.parent_id, "purpose": sample.purpose, "curation": sample.curation,
        "source_blob": sample.source_blob, "has_real_pixels": sample.is_composite,
        "label_map": {"id": record.id, "rev": sample.label_map_rev, "blob": sample.label_map_blob, "origin": record.origin},
        "seed": sample.seed, "engine": sample.engine, "settings": sample.settings,
        "model": {"id": model.id, "sha256": model.file},
        "adapter": {"id": adapter.id, "name": adapter.name, "sha256": adapter.file, "scale": adapter.scale} if adapter else None,
        "scores": [_told(score, project) | {"model_sha256": scorers[score.model_id].file} for score in scores],
    }


def _told(score: Score, project: Project) -> dict[str, Any]:
    common = {"kind": score.kind, "confidence": score.confidence, "per_class": score.per_class}
    if project.task == "classification":
        return common | {"probability": score.dice, "is_likeliest": bool(score.iou)}
    return common | {"dice": score.dice, "iou": score.iou}
