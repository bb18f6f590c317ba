"""Commands that draw label maps."""

from __future__ import annotations

from typing import Annotated

import typer

from saadi import orders
from saadi.cli.common import DetachOption, HomeOption, JsonOption, ProjectArgument, home_of, run_order
from saadi.cli.work import class_indices, order_from
from saadi.records import Project
from saadi.store import Store


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("fit-masks")(fit_masks)
    app.command("suggest")(suggest)


def fit_masks(name: ProjectArgument,
              steps: Annotated[int | None, typer.Option(help="Default: 2,000, some minutes on two cores.")] = None,
              seed: int | None = None,
              detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Learn to draw label maps like those of the training images; `suggest` does it by itself the first time."""
    run_order(home_of(home), name, order_from(orders.FitMasksOrder, steps=steps, seed=seed), detach=detach, as_json=as_json)


def suggest(name: ProjectArgument, count: Annotated[int | None, typer.Option(help="Default: 12.")] = None,
            seed: int | None = None,
            classes: Annotated[str | None, typer.Option(help="Names with commas of classes that must occur.")] = None,
            vary: Annotated[int | None, typer.Option(metavar="ID", help="Vary this label map; default: new ones.")] = None,
            strength: Annotated[float | None, typer.Option(help="0 keeps the mask that is varied, 1 draws everything anew; "
                                                                "default: by chance.")] = None,
            keep: Annotated[bool, typer.Option("--keep", help="Store them for `generate --masks suggested`.")] = False,
            detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Draw new label maps of the project's own anatomy: sizes, parts and neighbours of classes are those of real ones."""

    def build(store: Store, project: Project) -> orders.Order:
        indices = class_indices(project, classes) if classes is not None else None
        return order_from(orders.SuggestMasksOrder, count=count, seed=seed, classes=indices, label_map_id=vary, strength=strength,
                          keep=keep or None)(store, project)  # fmt: skip

    run_order(home_of(home), name, build, detach=detach, as_json=as_json)
