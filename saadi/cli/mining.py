"""Commands about what a downstream model misses."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from saadi import orders
from saadi.cli.common import DetachOption, HomeOption, JsonOption, ProjectArgument, answer, home_of, run_order
from saadi.cli.work import class_indices, order_from
from saadi.mining import seen
from saadi.mining.weakness import AXES, MIN_PARTS, ClassWeakness, in_numbers
from saadi.orders.generating import known_weakness
from saadi.records import Project
from saadi.store import Store


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("weakness")(weakness)
    app.command("mine")(mine)


def weakness(name: ProjectArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """What the selector misses in real images it has not learnt from: by class, size, contrast and place."""
    with Store.open(home_of(home)) as store:
        project = store.project(name)
        found, limits = known_weakness(store, project.id), seen.limits(store, project)
    answer({"classes": in_numbers(found, project.class_names), "limits": asdict(limits) if limits else None}, as_json=as_json,
           lines=lambda: [line for index, one in found.classes.items() for line in _told(project.class_names[index], one)])


def _told(class_name: str, one: ClassWeakness) -> list[str]:
    lines = [f"{class_name}: {one.recall:.0%} found ({one.num_parts} parts in {one.num_patients} patients)"]
    for axis, names in AXES.items():
        cells = [f"{name} {cell.recall:.0%} ({cell.num_parts})" for name, cell in zip(names, one.axes[axis], strict=True)
                 if cell.num_parts >= MIN_PARTS]  # fmt: skip
        if len(cells) > 1:
            lines.append(f"  {axis}: {', '.join(cells)}")
    return lines


def mine(name: ProjectArgument,
         count: Annotated[int | None, typer.Option(help="Hard images to search for, one a mask at most; default: 16.")] = None,
         candidates: Annotated[int | None, typer.Option(help="Images per label map and turn; default: 2.")] = None,
         turns: Annotated[int | None, typer.Option(help="Turns for each image searched for; default: 6.")] = None,
         seed: int | None = None,
         classes: Annotated[str | None, typer.Option(help="Classification: names with commas.")] = None,
         training_masks: Annotated[bool, typer.Option("--training-masks", help="Masks of real images alone, none new.")] = False,
         adapter: Annotated[str | None, typer.Option(help="accepted, none, or the number of an adapter.")] = None,
         learned: Annotated[bool, typer.Option("--learned", help="Start from noise learnt to become hard images; where there is "
                                               "none it is learnt first, in minutes.")] = False,
         learn_steps: Annotated[int | None, typer.Option(help="Learn it anew, with so many steps; default: 150.")] = None,
         detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Search for images that are hard for the selector and right for the judge, where the selector misses most."""
    wanted = int(adapter) if adapter is not None and adapter.isdecimal() else adapter

    def build(store: Store, project: Project) -> orders.Order:
        indices = class_indices(project, classes) if classes is not None else None
        return order_from(orders.MineOrder, count=count, candidates=candidates, turns=turns, seed=seed, classes=indices,
                          suggests=False if training_masks else None, adapter=wanted, learned=learned or None,
                          learn_steps=learn_steps)(store, project)  # fmt: skip

    run_order(home_of(home), name, build, detach=detach, as_json=as_json)
