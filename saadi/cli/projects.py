"""Commands that bring data in: demo, project, import."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from saadi import config
from saadi.cli.common import HomeOption, JsonOption, ProjectArgument, answer, home_of, note, parse_pairs
from saadi.errors import BadInputError, UnknownClassError
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
        recipe.ensure_demo(store, actor=config.user_name())
        newest = [_summary(store, project) for project in store.projects()]
    answer({"projects": newest}, as_json=as_json, lines=lambda: [_line(item) for item in newest])


@project_app.command("create")
def create(name: ProjectArgument,
           classes: Annotated[str, typer.Option(help="Names from index 0: background,polyp")],
           task: Annotated[str, typer.Option(help="segmentation or classification")] = "segmentation",
           resolution: Annotated[int, typer.Option(help="Side in pixels of generated images, a multiple of 16.")] = 128,
           colors: Annotated[str | None, typer.Option(help="#rrggbb per class; default: chosen for you.")] = None,
           home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Create an empty project."""
    if task not in get_args(Task):
        raise typer.BadParameter(f"--task is {' or '.join(get_args(Task))}, got {task!r}")
    if resolution % 16:
        nearest = max(16, round(resolution / 16) * 16)
        raise BadInputError(f"--resolution must be a multiple of 16, got {resolution}; take {nearest}")
    labels = _classes(_parts(classes), _parts(colors) if colors else None)
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
                  masks: Annotated[Path | None, typer.Option(help="Folder of masks; may be the same.")] = None,
                  values: Annotated[str | None, typer.Option(help="Mask value to class: 0=background,255=polyp")] = None,
                  csv: Annotated[Path | None, typer.Option(help="Table with a row per image.")] = None,
                  group_pattern: Annotated[str | None, typer.Option(help="Regex that finds the patient in a name.")] = None,
                  group_column: Annotated[str | None, typer.Option(help="CSV column: patient, video or operation.")] = None,
                  split_column: Annotated[str | None, typer.Option(help="CSV column: train, val or test.")] = None,
                  label_column: Annotated[str | None, typer.Option(help="CSV column: class of the image.")] = None,
                  limit: Annotated[int | None, typer.Option(min=1, help="Take only so many images.")] = None,
                  home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Import a folder of images and masks, split by patient."""
    from saadi.datasets import folder

    with Store.open(home_of(home)) as store:
        project = store.project(name)
        found = folder.scan(images, masks, csv=csv, group_pattern=group_pattern, group_column=group_column,
                            split_column=split_column, label_column=label_column, limit=limit)
        if values is None and masks is not None:
            _ask_for_values(project, _counts(found), as_json=as_json)
        mapping = _value_map(project, values) if values is not None else None
        outcome = folder.import_folder(store, project, found, values=mapping, actor=config.user_name())
        summary = _summary(store, project) | {"import": outcome}
    answer(summary, as_json=as_json, lines=lambda: [_line(summary), f"  {outcome}"])


def _counts(scan: Any) -> dict[int, int]:
    """Mask value -> number of pixels, as the scan counted them."""
    return {int(value): int(count) for value, count in dict(scan.values).items()}


def _ask_for_values(project: Project, counts: dict[int, int], *, as_json: bool) -> None:
    """Say which values the masks hold and how to name them, then end with status 1."""
    guess = ",".join(f"{value}={label.name}" for value, label in zip(sorted(counts), project.classes, strict=False))
    answer({"values": counts, "classes": list(project.class_names)}, as_json=as_json,
           lines=lambda: [f"{value:>4}: {count} pixels" for value, count in sorted(counts.items())])
    note(f"the masks hold {len(counts)} values; say which class each one is, for example --values {guess} "
         f"(classes: {', '.join(project.class_names)}, or ignore)")
    raise typer.Exit(1)


def _value_map(project: Project, text: str) -> dict[int, int]:
    """'0=background,255=polyp' as mask value -> class index; the class `ignore` is 255."""
    indices = {label.name: label.index for label in project.classes} | {"ignore": IGNORE}
    mapping: dict[int, int] = {}
    for value, label in parse_pairs(text, option="--values", example="--values 0=background,255=polyp").items():
        if not value.isdecimal() or int(value) > 65535:
            raise BadInputError(f"--values: a mask value is a whole number, got {value!r}; write for example 255=polyp")
        if label not in indices:
            raise UnknownClassError(f"--values: {project.name} has no class {label!r}; it has {', '.join(project.class_names)}")
        mapping[int(value)] = indices[label]
    return mapping


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _classes(names: list[str], colors: list[str] | None) -> list[LabelClass]:
    if any(not name for name in names) or len(set(names)) != len(names):
        raise BadInputError(f"--classes needs different names, from index 0, comma-separated; got {','.join(names)!r}")
    chosen = colors if colors is not None else [_color(index) for index in range(len(names))]
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
            "samples": len(store.samples(project.id)), "votes": len(store.votes(project.id))}


def _line(item: dict[str, Any]) -> str:
    images = ", ".join(f"{count} {split}" for split, count in sorted(item["images"].items())) or "no images"
    return (f"{item['name']}: {item['task']}, {len(item['classes'])} classes, {item['resolution']} px; {images}; "
            f"{item['samples']} generated")
