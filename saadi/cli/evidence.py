"""`saadi evidence ...`: measurements with seeds and intervals, written as JSON with the command that made them."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from saadi.cli.common import HomeOption, JsonOption, ProjectArgument, answer, home_of, note
from saadi.config import VERSION
from saadi.errors import NotFoundError
from saadi.store import Store

OutOption = Annotated[Path | None, typer.Option("--out", help="Write the result to this JSON file.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    group = typer.Typer(help="Measure whether it helps: seeds, intervals, results as JSON.", no_args_is_help=True)
    group.command("planted")(planted)
    group.command("adapter")(adapter)
    app.add_typer(group, name="evidence")


def planted(
    fit_steps: Annotated[int, typer.Option(help="Steps that spoil the shipped generator.")] = 300,
    steps: Annotated[int, typer.Option(help="Steps of each alignment.")] = 150,
    masks: Annotated[int, typer.Option(help="Unseen masks to measure on.")] = 64,
    seed: int = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Spoil the shipped generator so that it displaces the organ half of the time, then see whether alignment cures it."""
    from saadi.evidence import planted as experiment

    def report(step: int, total: int, message: str, *, metrics: Any = None, images: Any = None) -> None:
        if metrics is not None and (step % 25 == 0 or "win_rate" in metrics):
            note(f"{message}: step {step} of {total} " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))

    result = experiment.run(fit_steps=fit_steps, align_steps=steps, num_masks=masks, seed=seed, report=report)
    _finish(result, out, as_json=as_json)


def adapter(
    name: ProjectArgument,
    adapter_id: Annotated[int | None, typer.Option("--adapter", help="Number of the adapter; default: the newest.")] = None,
    masks: Annotated[int, typer.Option(help="Unseen masks to measure on.")] = 64,
    out: OutOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure an adapter against its parent on masks of the test split, which neither pairs nor gate have used."""
    from saadi import devices
    from saadi.evidence.fresh import measure_adapter

    devices.use_all_threads()
    with Store.open(home_of(home)) as store:
        project = store.project(name)
        known = store.adapters(project.id)
        if not known:
            raise NotFoundError(f"project {name} has no adapter yet; run `align` first")
        chosen = store.adapter(adapter_id) if adapter_id is not None else known[-1]
        engine = store.model(chosen.model_id)
        result = measure_adapter(store, project, chosen, num_masks=masks)
        result |= {
            "project": name,
            "resolution": project.resolution,
            "images": store.count_images(project.id),
            "engine_architecture": engine.architecture,
            "engine_metrics": engine.metrics,
            "config": chosen.config,
            "alignment": {key: value for key, value in chosen.metrics.items() if not key.startswith("strip")},
        }
    _finish(result, out, as_json=as_json)


def _finish(result: dict[str, Any], out: Path | None, *, as_json: bool) -> None:
    # Options only: a data folder's path says nothing to others.
    words = [word for word in sys.argv[1:] if "/" not in word and word not in ("--home", "--out", "--json")]
    result |= {"command": "python -m saadi " + shlex.join(words), "version": VERSION}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
    answer(result, as_json=as_json)
