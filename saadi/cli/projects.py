"""Commands that bring data in: demo, project, import."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from saadi import config, orders
from saadi.cli.common import Bar, HomeOption, JsonOption, ProjectArgument, answer, home_of, note
from saadi.decoding import value_name
from saadi.errors import BadInputError, TooFewError
from saadi.orders import ImportOrder
from saadi.records import IGNORE, LabelClass, Project, Task
from saadi.store import Store

if TYPE_CHECKING:
    from saadi.datasets.folder_scan import FolderScan

project_app = typer.Typer(no_args_is_help=True, help="Create and list projects.")


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("demo")(demo)
    app.add_typer(project_app, name="project")
    app.command("import")(import_images)


def demo(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Create the demo project: rendered laparoscopy, fitted weights, nothing from a patient."""
    from saadi import demo as recipe

    with Store.open(home_of(home)) as store:
        with Bar("demo") as bar:
            made = recipe.ensure_demo(store, actor=config.user_name(),
                                      on_progress=lambda step, total: bar.show(step, total, "rendering"))
        summary = _summary(store, made)
    answer(summary, as_json=as_json, lines=lambda: [_line(summary)])


@project_app.command("create")
def create(name: ProjectArgument,
           classes: Annotated[str, typer.Option(help="Names from index 0: background,polyp; in classification of whole images "
                                                     "dissection,clipping")],
           task: Annotated[str, typer.Option(help="segmentation or classification")] = "segmentation",
           resolution: Annotated[int, typer.Option(help="Side in pixels of generated images, a multiple of 32.")] = 128,
           colors: Annotated[str | None, typer.Option(help="#rrggbb per class; default: chosen for you.")] = None,
           home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Create an empty project."""
    if task not in get_args(Task):
        raise typer.BadParameter(f"--task is {' or '.join(get_args(Task))}, got {task!r}")
    if resolution % 32:
        nearest = max(32, round(resolution / 32) * 32)
        raise BadInputError(f"--resolution must be a multiple of 32, got {resolution}; take {nearest}")
    labels = _classes(_parts(classes), _parts(colors) if colors else None, has_background=task == "segmentation")
    with Store.open(home_of(home)) as store:
        made = store.create_project(name, task=cast(Task, task), classes=labels, resolution=resolution, actor=config.user_name())
        summary = _summary(store, made)
    answer(summary, as_json=as_json, lines=lambda: [f"project {made.name!r} with {len(labels)} classes; import images next"])


@project_app.command("list")
def list_projects(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the projects in the data folder."""
    with Store.open(home_of(home)) as store:
        found = [_summary(store, project) for project in store.projects()]
    answer({"projects": found}, as_json=as_json,
           lines=lambda: [_line(item) for item in found] or ["no projects yet; try `saadi demo`"])


def import_images(name: ProjectArgument,
                  images: Annotated[Path, typer.Option(help="Folder of images.")],
                  masks: Annotated[Path | None, typer.Option(help="Folder of masks; default: looked for in --images.")] = None,
                  values: Annotated[str | None, typer.Option(help="Mask value to class: 0=background,255=polyp")] = None,
                  csv: Annotated[Path | None, typer.Option(help="Table with a row per image.")] = None,
                  group_pattern: Annotated[str | None, typer.Option(help="Regex that finds the patient in a name.")] = None,
                  group_column: Annotated[str | None, typer.Option(help="CSV column: patient, video or operation.")] = None,
                  split_column: Annotated[str | None, typer.Option(help="CSV column: train, val or test.")] = None,
                  label_column: Annotated[str | None, typer.Option(help="CSV column: class of the image.")] = None,
                  limit: Annotated[int | None, typer.Option(min=1, help="Take only so many images.")] = None,
                  source: Annotated[str | None, typer.Option("--format", help="saadi, nnunet, coco, yolo, voc, imagefolder, "
                                                             "video, dicom or folder; default: looked for.")] = None,
                  every: Annotated[int, typer.Option(min=1, help="Videos, multi-frame DICOM: every n-th frame.")] = 25,
                  sharpness: Annotated[float, typer.Option(min=0, max=1, help="Videos: leave out frames less sharp than this "
                                                           "share of the video's median; 0 = none.")] = 0.5,
                  change: Annotated[float, typer.Option(min=0, max=255, help="Videos: leave out frames that differ from the one "
                                                        "before by fewer grey levels; 0 = none.")] = 2.0,
                  burnt_in: Annotated[bool, typer.Option("--burnt-in", help="Take DICOM pictures whose header says that text is "
                                                         "burnt in: you have looked at them.")] = False,
                  without_masks: Annotated[bool, typer.Option("--without-masks", help="Take images alone, to draw masks "
                                                              "here.")] = False,
                  home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Import a folder of images and masks, a data set (nnU-Net, COCO, YOLO, VOC, imagefolder, our own exports), videos or DICOM
    files, or a zip of any of them; split by patient. In classification images in a folder per class, or with a CSV."""
    from saadi.datasets import folder, mask_doctor
    from saadi.datasets.readers.archive import opened
    from saadi.privacy.burnt_in import is_available as can_read_text

    where = home_of(home)
    with (Store.open(where) as store, Bar("import") as bar,
          opened(images.expanduser(), where.path / "tmp", bar.show) as images_dir):  # fmt: skip
        project = store.project(name)
        order = cast(ImportOrder, orders.order(
            ImportOrder, project_id=project.id, images_dir=str(images), masks_dir=str(masks) if masks else None,
            csv=str(csv) if csv else None, group_pattern=group_pattern, group_column=group_column, split_column=split_column,
            label_column=label_column, source=source, every=every, sharpness=sharpness, change=change, burnt_in=burnt_in,
            without_masks=without_masks))  # fmt: skip
        found = folder.scan_order(order, images_dir, limit=limit, report=bar.show)
        mapping = folder.value_map(values, project.classes) if values is not None else None
        if values is None and found.has_masks and project.task == "segmentation":
            mapping = folder.suggested_values(found, project.classes)
            if not mask_doctor.is_certain(found.values, found.names, project.classes):
                bar.stop()
                _ask_for_values(project, found, mapping, as_json=as_json)
        outcome = folder.import_folder(store, project, found, values=mapping, actor=config.user_name(), report=bar.show,
                                       without_masks=without_masks)
        summary = _summary(store, project)
    for file, reason in outcome.refused:
        note(f"{file}: {reason}")
    can_read = outcome.num_added and can_read_text()
    answer({"project": summary, "import": asdict(outcome)}, as_json=as_json, lines=lambda: [
        f"{outcome.num_added} images added, {outcome.num_duplicates} there already, {len(outcome.refused)} refused",
        *outcome.notes, _line(summary),
        *([f"next: `saadi text-check {name}` looks for names and dates in the pictures"] if can_read else [])])
    if outcome.num_added == 0 and outcome.num_duplicates == 0:
        raise TooFewError("no image could be imported; see the reasons above")


def _ask_for_values(project: Project, scan: FolderScan, guess: Mapping[int, int], *, as_json: bool) -> None:
    """Say which values the masks hold and how to name them, then end with status 1."""
    from saadi.datasets import mask_doctor

    counts, names = scan.values, {label.index: label.name for label in project.classes} | {IGNORE: "ignore"}
    text = ",".join(f"{value_name(value)}={names.get(guess.get(value, IGNORE), 'ignore')}" for value in counts)
    found = {value_name(value): {"pixels": pixels, "masks": masks, "name": scan.names.get(value)}
             for value, (pixels, masks) in counts.items()}  # fmt: skip
    odd = mask_doctor.findings(counts, project.classes)
    answer({"values": found, "classes": list(project.class_names), "suggestion": text, "findings": odd}, as_json=as_json,
           lines=lambda: [*(f"{value:>7}: {one['pixels']} pixels in {one['masks']} masks"
                            + (f", called '{one['name']}'" if one["name"] else "") for value, one in found.items()), *odd])
    note(f"the masks hold {len(counts)} values; say which class each one is, for example --values {text} "
         f"(classes: {', '.join(project.class_names)}, or ignore)")
    raise typer.Exit(1)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _classes(names: list[str], colors: list[str] | None, *, has_background: bool) -> list[LabelClass]:
    if any(not name for name in names) or len(set(names)) != len(names):
        raise BadInputError(f"--classes needs different names, from index 0, comma-separated; got {','.join(names)!r}")
    first = 0 if has_background else 1
    chosen = colors if colors is not None else [_color(first + index) for index in range(len(names))]
    if len(chosen) != len(names) or any(not _is_color(color) for color in chosen):
        raise BadInputError(f"--colors needs {len(names)} colours like #e05263, comma-separated; got {','.join(chosen)!r}")
    return [LabelClass(index, name, color.lower()) for index, (name, color) in enumerate(zip(names, chosen, strict=True))]


def _is_color(text: str) -> bool:
    return len(text) == 7 and text[0] == "#" and all(char in "0123456789abcdefABCDEF" for char in text[1:])


def _color(index: int) -> str:
    """Black for the background, then hues a golden ratio apart, so that neighbours differ."""
    if index == 0:
        return "#000000"
    channels = colorsys.hsv_to_rgb((0.98 + (index - 1) * 0.618034) % 1.0, 0.65, 0.92)
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in channels)


def _summary(store: Store, project: Project) -> dict[str, Any]:
    return {"id": project.id, "name": project.name, "task": project.task, "resolution": project.resolution,
            "classes": list(project.class_names), "images": store.count_images(project.id),
            "samples": sum(store.count_curation(project.id).values()), "votes": store.count_votes(project.id)}


def _line(item: dict[str, Any]) -> str:
    images = ", ".join(f"{count} {split}" for split, count in sorted(item["images"].items())) or "no images"
    return (f"{item['name']}: {item['task']}, {len(item['classes'])} classes, {item['resolution']} px; {images}; "
            f"{item['samples']} generated")
