"""Commands that bring data in: demo, project, import."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from saadi import config
from saadi.cli.common import Bar, HomeOption, JsonOption, ProjectArgument, answer, home_of, note
from saadi.errors import BadInputError, TooFewError
from saadi.records import IGNORE, LabelClass, Project, Task
from saadi.store import Store

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
                  home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Import a folder of images and masks, split by patient; in classification images in a folder per class, or with a CSV."""
    from saadi.datasets import folder

    with Store.open(home_of(home)) as store, Bar("import") as bar:
        project = store.project(name)
        found = folder.scan(images, masks, csv=csv, group_pattern=group_pattern, group_column=group_column,
                            split_column=split_column, label_column=label_column, limit=limit, report=bar.show)
        if values is None and found.has_masks and project.task == "segmentation":
            guess = folder.suggested_values(found, project.classes)
            bar.stop()
            _ask_for_values(project, found.values, guess, as_json=as_json)
        mapping = folder.value_map(values, project.classes) if values is not None else None
        outcome = folder.import_folder(store, project, found, values=mapping, actor=config.user_name(), report=bar.show)
        summary = _summary(store, project)
    for file, reason in outcome.refused:
        note(f"{file}: {reason}")
    answer({"project": summary, "import": asdict(outcome)}, as_json=as_json, lines=lambda: [
        f"{outcome.num_added} images added, {outcome.num_duplicates} there already, {len(outcome.refused)} refused",
        *outcome.notes, _line(summary)])
    if outcome.num_added == 0 and outcome.num_duplicates == 0:
        raise TooFewError("no image could be imported; see the reasons above")


def _ask_for_values(project: Project, counts: Mapping[int, tuple[int, int]], guess: Mapping[int, int], *, as_json: bool) -> None:
    """Say which values the masks hold and how to name them, then end with status 1."""
    names = {label.index: label.name for label in project.classes} | {IGNORE: "ignore"}
    text = ",".join(f"{value}={names.get(guess.get(value, IGNORE), 'ignore')}" for value in counts)
    found = {str(value): {"pixels": pixels, "masks": masks} for value, (pixels, masks) in counts.items()}
    answer({"values": found, "classes": list(project.class_names), "suggestion": text}, as_json=as_json,
           lines=lambda: [f"{value:>5}: {pixels} pixels in {masks} masks" for value, (pixels, masks) in counts.items()])
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
