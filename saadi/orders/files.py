"""Orders that bring images in and take them out."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from saadi.errors import BadInputError, TooFewError
from saadi.orders.base import Order, is_classification
from saadi.orders.looking import refinement
from saadi.privacy import burnt_in
from saadi.records import IGNORE
from saadi.store import Store
from saadi.store.releases import MIN_REASON


class ImportOrder(Order):
    """Take a folder of images and masks (in classification of images in folders by class), a data set in a known format, videos
    or DICOM files into the project; goes before waiting training."""

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
    values: dict[int, Annotated[int, Field(ge=0, le=255)]] = Field(default_factory=dict)
    """Value in the mask files -> class index of the project (255 = ignore)."""
    source: Literal["saadi", "nnunet", "coco", "yolo", "voc", "imagefolder", "video", "dicom", "folder"] | None = None
    """The format of the data set; None = looked for."""
    every: int = Field(default=25, ge=1, le=100_000)
    """Videos and multi-frame DICOM: every n-th frame."""
    sharpness: float = Field(default=0.5, ge=0, le=1)
    """Videos: frames less sharp than this share of their video's median are left out; 0 = none."""
    change: float = Field(default=2.0, ge=0, le=255)
    """Videos: frames that differ from the one before by fewer grey levels are left out; 0 = none."""
    burnt_in: bool = False
    """Take DICOM pictures whose header says that text is burnt in: somebody has looked at them."""
    without_masks: bool = False
    """Take images alone into a project of masks, to draw them here."""

    def check(self, store: Store) -> None:
        num_classes = len(store.project(self.project_id).classes)
        unknown = [index for index in self.values.values() if index >= num_classes and index != IGNORE]
        if unknown:
            raise BadInputError(f"class {unknown[0]} is not in this project; it has classes 0 to {num_classes - 1}")


MIN_TO_AUDIT = 4
"""Training patients below which there is nobody to tell apart."""


class AuditOrder(Order):
    """Look at what the synthetic images of an export, or those accepted so far, reveal about training patients."""

    kind: ClassVar[str] = "audit"
    export_id: int | None = None
    """None = the accepted images."""
    strangers_id: int | None = None
    """Another project with patients of the same kind whom nothing was learnt from: limits of singling out are set on them."""

    def check(self, store: Store) -> None:
        project = store.project(self.project_id)
        images = store.images(project.id)
        patients = {image.group_id for image in images if image.split == "train"}
        if len(patients) < MIN_TO_AUDIT:
            raise TooFewError(f"{len(patients)} training patients, {MIN_TO_AUDIT} needed to tell patients apart; import images "
                              "of more, with a column or pattern that says whose each is")  # fmt: skip
        if self.export_id is None:
            if not store.samples(project.id, curation="accepted", limit=1):
                raise TooFewError("no accepted images to look at; accept some in Curate first")
        elif store.export(self.export_id).project_id != project.id:
            raise BadInputError(f"export {self.export_id} belongs to another project; choose one of {project.name}")
        if self.strangers_id is not None:
            own, others = {image.blob for image in images}, store.images(self.strangers_id)
            if self.strangers_id == project.id or not others:
                raise BadInputError("strangers are patients of another project with images; name such a project, or leave it out")
            if shared := [image for image in others if image.blob in own]:
                raise BadInputError(f"{len(shared)} images of that project are in this one, too, so its patients are no "
                                    "strangers; choose another, or leave it out")  # fmt: skip


class TextCheckOrder(Order):
    """Look for text burnt into the real images and the accepted ones, where nobody has looked yet."""

    kind: ClassVar[str] = "text_check"

    def check(self, store: Store) -> None:
        if not burnt_in.is_available():
            raise BadInputError("text is looked for by rapidocr-onnxruntime, which is not installed (it has no release for "
                                "Python 3.13 and later); use Python 3.11 or 3.12")  # fmt: skip
        if not store.images(self.project_id, limit=1) and not store.samples(self.project_id, curation="accepted", limit=1):
            raise TooFewError("no image to look at yet; import images, or accept some in Curate")


class ExportOrder(Order):
    """Write the accepted samples (and, on request, the real training images) as a data set."""

    kind: ClassVar[str] = "export"
    format: Literal["imagefolder", "nnunet", "coco", "voc", "yolo", "folders", "preferences"]
    out_dir: str | None = None
    """None = a new folder under <home>/exports."""
    include_real: bool = True
    include_refused: bool = False
    """Also accepted images that the quality gate refuses: unlike real ones, or like one of them."""

    without_unreadable: bool = False
    """Leave out images that the store can no longer read, instead of ending."""
    despite_withdrawn: str | None = Field(default=None, min_length=MIN_REASON, max_length=500)
    """Why images by versions that may have learnt from a patient who has withdrawn go in all the same; None = they stay out."""

    refined: bool = False
    """Masks of synthetic images without the soft rim, as the newest measurement says (`saadi.refinement`)."""

    instances: Literal["component", "class"] | None = None
    """COCO: an object for each connected part (None = this), or for each class."""
    outlines: Literal["rle", "polygons", "both"] | None = None
    """COCO: run-length codes (None = these), polygons, which cannot hold holes, or files of both."""

    credentials: str | None = Field(default=None, max_length=4096)
    """PEM file with the certificate (and those above it) by which synthetic images get content credentials; None = none."""
    credentials_key: str | None = Field(default=None, max_length=4096)
    """PEM file with its private key."""

    @property
    def options(self) -> dict[str, str]:
        """What the format wants to know beside the project, and what `verify` has to look for."""
        is_coco = self.format == "coco"
        of_format = {"instances": self.instances or "component", "outlines": self.outlines or "rle"} if is_coco else {}
        return of_format | ({"credentials": "c2pa"} if self.credentials else {})

    def check(self, store: Store) -> None:
        if (self.credentials is None) != (self.credentials_key is None):
            raise BadInputError("content credentials need a certificate and its key; name both files, or neither")
        if self.format != "coco" and (self.instances or self.outlines):
            raise BadInputError(f"instances and outlines are choices of COCO, and {self.format} has none; leave them out")
        if self.refined and self.format == "preferences":
            raise BadInputError("images of a pair are compared under the mask that was asked for; leave refined out")
        if self.refined and is_classification(store, self.project_id):
            raise BadInputError("masks are refined, and this project has classes of whole images; leave it out")
        if self.refined and refinement(store, self.project_id) is None:
            raise TooFewError("how much smaller masks should be has not been measured for the generator in use; run "
                              f"`saadi refine {store.project(self.project_id).name}` (Export: Measure the outlines) first")
        holds = {"nnunet": "nnU-Net holds masks", "coco": "COCO holds objects", "voc": "Pascal VOC holds masks",
                 "yolo": "YOLO holds outlines"}.get(self.format)  # fmt: skip
        if holds and is_classification(store, self.project_id):
            raise BadInputError(f"{holds} and this project classifies whole images; choose the format imagefolder")
        if self.format == "preferences":
            if not store.scored_samples(self.project_id):
                raise TooFewError("no scored candidates yet, so there are no pairs; generate some and let the scorers look first")
        elif not store.samples(self.project_id, curation="accepted", limit=1):
            raise TooFewError("no accepted images to export; accept some in Curate first")
