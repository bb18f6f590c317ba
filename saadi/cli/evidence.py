"""`saadi evidence ...`: measurements with seeds and intervals, written as JSON with the command that made them."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer.core import TyperGroup

from saadi.cli.common import HomeOption, JsonOption, ProjectArgument, answer, home_of, note
from saadi.config import VERSION, Home
from saadi.errors import BadInputError, NotFoundError, TooFewError
from saadi.orders.recipe import LossName, learning_rate_and_term
from saadi.records import Task
from saadi.store import Store

if TYPE_CHECKING:
    from saadi.evidence.cases import Case

PATHS = ("--home", "--out", "--folder")
OutOption = Annotated[Path | None, typer.Option("--out", help="Write the result to this JSON file.")]
CaseArgument = Annotated[str, typer.Argument(help="A project with imported images, 'phantom', or 'phantom-phases'.")]
FirstSeedOption = Annotated[int, typer.Option(help="Number of the first seed.", min=0)]
FoldsOption = Annotated[int, typer.Option(help="Selectors; each scores the patients that it has not seen.", min=2, max=10)]
CandidatesOption = Annotated[int, typer.Option(help="Images per mask to choose from and to make pairs of.", min=2)]
PoolOption = Annotated[int, typer.Option(help="Masks per round of alignment.", min=8)]
TestShareOption = Annotated[
    float | None, typer.Option(help="Deal the patients out anew, this share of them to the test set.", min=0.05, max=0.9)
]
SideOption = Annotated[int, typer.Option(help="Side of all images in pixels.", min=32)]
WidthOption = Annotated[
    float, typer.Option(help="Width of the downstream networks; 1 = those that the program scores with.", min=0.125, max=4)
]
RoughOption = Annotated[
    float, typer.Option(help="Displace this share of the label maps that the generator is fitted to.", min=0, max=1)
]
FolderOption = Annotated[Path | None, typer.Option(help="Where stages are kept; default: evidence in the data folder.")]


class _GainsOf(TyperGroup):
    """What is no command is a project whose gains are wanted."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        is_name = bool(args) and not get_close_matches(args[0], self.commands) and not args[0].startswith("-")
        return super().resolve_command(ctx, ["gains", *args] if is_name else args)


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    group = typer.Typer(cls=_GainsOf, no_args_is_help=True, help="Measure whether it helps: seeds, intervals, results as JSON. "
                        "`evidence NAME` is `evidence gains NAME` where NAME is not like a command.")  # fmt: skip
    group.command("planted")(planted)
    group.command("adapter")(adapter)
    group.command("gains")(gains)
    group.command("ablations")(ablations)
    group.command("quality")(quality)
    group.command("disclosure")(disclosure)
    group.command("strangers")(strangers)
    group.command("variety")(variety)
    group.command("votes")(votes)
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
    from saadi.orders import is_negative

    devices.use_all_threads()
    with Store.open(home_of(home)) as store:
        project = store.project(name)
        known = [found for found in store.adapters(project.id) if not is_negative(found)]
        if not known and adapter_id is None:
            raise NotFoundError(f"project {name} has no adapter yet; run `align` first")
        chosen = store.adapter(adapter_id) if adapter_id is not None else known[-1]
        if is_negative(chosen):
            raise BadInputError(f"adapter {chosen.id} is a negative one, which makes no images by itself; choose another one")
        engine = store.model(chosen.model_id)
        result = measure_adapter(store, project, chosen, num_masks=masks)
        result |= {
            "project": name,
            "resolution": project.resolution,
            "images": store.count_images(project.id),
            "engine_architecture": {key: value for key, value in engine.architecture.items() if key != "base"},
            "engine_metrics": engine.metrics,
            "config": chosen.config,
            "alignment": {key: value for key, value in chosen.metrics.items() if not key.startswith("strip")},
        }
    _finish(result, out, as_json=as_json)


def votes(
    seeds: Annotated[int, typer.Option(help="Simulated sessions.", min=2)] = 20,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """How rightly pairs are ordered by scores, by votes, and by both: simulated reviewers, the program's own merge."""
    from saadi.evidence import votes as experiment

    _finish(experiment.run(num_seeds=seeds), out, as_json=as_json)


def quality(
    name: CaseArgument,
    test_share: TestShareOption = None,
    side: SideOption = 256,
    out: OutOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """How well the quality check tells spoilt images and copies from real images of unseen patients."""
    from saadi.evidence import plausible as experiment

    (case,) = _cases(name, home_of(home), side=side, test_share=test_share, test_groups=(), each=False)
    if case.task == "classification":
        raise BadInputError(f"images are spoilt under their masks, and {name} has classes of whole images; choose another one")
    result = {"case": name, "side": side} | experiment.run(case)
    _finish(result, out, as_json=as_json, lines=lambda: experiment.markdown(result))


def disclosure(
    name: CaseArgument,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, ...: other verifiers, strangers and copies.", min=1)] = 3,
    fit_steps: Annotated[int, typer.Option(help="Of a generator fitted to all training images; 0 = none.", min=0)] = 800,
    memorising_steps: Annotated[int, typer.Option(help="Of one fitted far too long to ten; 0 = none.", min=0)] = 3000,
    test_share: TestShareOption = None,
    side: SideOption = 64,
    out: OutOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Does the audit find planted copies, and a generator that memorises, and nothing in images of unseen patients?"""
    from saadi.evidence import disclosure as experiment

    (case,) = _cases(name, home_of(home), side=side, test_share=test_share, test_groups=(), each=False)
    steps = experiment.Steps(fit_steps, memorising_steps)
    told = {"fit_steps": fit_steps, "memorising_steps": memorising_steps}
    result = {"case": name, "side": side} | told | experiment.run(case, seeds=seeds, steps=steps)
    _finish(result, out, as_json=as_json, lines=lambda: experiment.markdown(result))


def strangers(
    name: CaseArgument,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, ...: other verifiers and copies.", min=1)] = 3,
    deals: Annotated[int, typer.Option(help="How often the test patients are dealt for each.", min=1)] = 100,
    test_share: TestShareOption = None,
    side: SideOption = 64,
    out: OutOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """How many unseen patients are flagged as copies, and how many copies are found, by how many strangers there are."""
    from saadi.evidence import cases
    from saadi.evidence import strangers as experiment

    (case,) = _cases(name, home_of(home), side=side, test_share=test_share, test_groups=(), each=False)
    if name == "phantom":  # patients cost nothing there
        case = cases.rendered(side=side, num_test=1600, num_test_patients=320)
    result = {"case": name, "side": side} | experiment.run(case, seeds=seeds, deals=deals)
    _finish(result, out, as_json=as_json, lines=lambda: experiment.markdown(result))


def variety(
    name: CaseArgument,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, ...: other weights and noise.", min=1)] = 3,
    fit_steps: Annotated[int, typer.Option(help="Of each generator.", min=1)] = 800,
    scorer_steps: Annotated[int, typer.Option(help="Of the segmenter that measures.", min=1)] = 500,
    test_share: TestShareOption = None,
    side: SideOption = 64,
    out: OutOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What hiding masks in fitting, and guidance, do for variety, and whether images come nearer to patients by it."""
    from saadi.evidence import variety as experiment

    (case,) = _cases(name, home_of(home), side=side, test_share=test_share, test_groups=(), each=False)
    result = {"case": name, "side": side, "fit_steps": fit_steps, "scorer_steps": scorer_steps}
    result |= experiment.run(case, seeds=seeds, fit_steps=fit_steps, scorer_steps=scorer_steps)
    _finish(result, out, as_json=as_json, lines=lambda: experiment.markdown(result))


def gains(
    name: CaseArgument,
    real: Annotated[str, typer.Option(help="Numbers of real images, with commas; 'full' = all.")] = "50",
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, ...: other images, weights and masks.", min=1)] = 3,
    first_seed: FirstSeedOption = 0,
    shares: Annotated[str, typer.Option(help="Synthetic images per real one, with commas.")] = "0.5,1,2",
    rounds: Annotated[int, typer.Option(help="Alignments one after the other; 0 = none.", min=0, max=5)] = 2,
    arms: Annotated[
        str | None, typer.Option(help="Arms beside the usual ones, with commas: few, weak, hardest, mined, learned, gated, "
                                      "unlike, refined, painted, guided; `saadi/evidence/extra_arms.py` says what they are.")
    ] = None,
    fit_steps: int = 600,
    scorer_steps: int = 400,
    downstream_steps: int = 600,
    align_steps: int = 150,
    align_lr: Annotated[float | None, typer.Option(help="Learning rate of each alignment.", min=1e-7, max=1e-2)] = None,
    sft_weight: Annotated[
        float | None, typer.Option(help="Weight of the denoising term of each alignment.", min=0, max=10)
    ] = None,
    sdpo_mu: Annotated[float | None, typer.Option(help="As in `align`.", min=0, max=1)] = None,
    loss: Annotated[str, typer.Option(help="dpo, kto, mapo or sft, as in `align`.")] = "dpo",
    real_winners: Annotated[
        bool, typer.Option("--real-winners", help="Learn only from pairs whose winner is a real image.")
    ] = False,
    ungated: Annotated[bool, typer.Option("--ungated", help="Take each round's last step, whatever the gate says.")] = False,
    draws: Annotated[int, typer.Option(help="Per arm and seed: times to draw masks, noise and weights anew.", min=1)] = 1,
    voters: Annotated[
        bool, typer.Option("--voters", help="A segmenter of all other training images orders candidates, as clinicians would.")
    ] = False,
    prefer: Annotated[str, typer.Option(help="Candidates are ordered by fidelity to the mask, or by usefulness to the "
                                             "selector.")] = "fidelity",
    folds: FoldsOption = 2,
    masks: Annotated[str, typer.Option(help="Masks of synthetic images: real ones moved, or warped as well.")] = "moved",
    rough: RoughOption = 0.0,
    scarce: Annotated[
        str, typer.Option(help="Of rendered scenes: classes, with commas, that 3 real images show and no more, while generator "
                               "and judge know them well.")
    ] = "",
    recipes: Annotated[str, typer.Option(help="How synthetic images train, with commas: mixed, first, sure.")] = "mixed",
    ceiling: Annotated[bool, typer.Option("--ceiling", help="Also a generator of all training images, 4 x the steps.")] = False,
    curated: Annotated[bool, typer.Option(help="Also arms that take the best of K images of the aligned generator.")] = False,
    candidates: CandidatesOption = 4,
    pool: PoolOption = 64,
    test_share: TestShareOption = None,
    test_group: Annotated[list[str] | None, typer.Option(help="Test on this patient or operation; repeat for several.")] = None,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Test on each patient or operation in turn, train on the others.")
    ] = False,
    side: SideOption = 128,
    width: WidthOption = 1.0,
    folder: FolderOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Does synthetic data help? Arms with equal budgets, measured on unseen patients. An interrupted run goes on where it was."""
    from saadi.evidence import found as found_images
    from saadi.evidence import gains as experiment
    from saadi.evidence import tables
    from saadi.evidence.settings import Models, Prefer, Settings
    from saadi.evidence.stages import Stages

    learns: LossName = _chosen("losses", loss, LossName)
    kind = tuple(part.strip() for part in scarce.split(",") if part.strip())
    learning_rate, term = learning_rate_and_term("compact", learns, learning_rate=align_lr, sft_weight=sft_weight)
    settings = Settings(
        fit_steps=fit_steps, scorer_steps=scorer_steps, downstream_steps=downstream_steps, align_steps=align_steps, rounds=rounds,
        shares=tuple(_numbers(shares)), recipes=_recipes(recipes), curated=curated, candidates=candidates,
        pool_masks=pool, learning_rate=learning_rate, sft_weight=term, loss=learns, prefer=_chosen("orders", prefer, Prefer),
        real_winners_alone=real_winners, folds=folds, masks=_shape(masks), rough=rough,
        sdpo_mu=sdpo_mu, gated=not ungated, draws=draws, ceiling=ceiling, voters=voters, scarce=kind,
        extras=tuple(part.strip() for part in (arms or "").split(",") if part.strip()))  # fmt: skip
    _check_scarce(kind, name)
    if kind and (rough or ceiling or "few" in settings.extras):
        raise BadInputError("with --scarce the generator has learnt all training images; leave out --rough, --ceiling and few")
    counts, opened = _counts(real), home_of(home)
    found = _cases(name, opened, side=side, test_share=test_share, test_groups=test_group or (), each=leave_one_out,
                   many=bool(kind))  # fmt: skip
    if found[0].task == "classification" and "sure" in settings.recipes:
        raise BadInputError("recipe 'sure' leaves out pixels, and a classification project has none; choose mixed or first")
    models = Models.of(found[0], side=side, width=width, knows_more=bool(kind))
    stages = Stages(folder or opened.evidence)
    result: dict[str, Any] = {"case": found[0].name, "task": found[0].task, "num_test": [len(case.test) for case in found],
                              "settings": vars(settings) | {"side": side, "width": width}, "real": {}}  # fmt: skip
    numbers = range(first_seed, first_seed + seeds)
    sizes = [[experiment.Cell(case, min(num_real, len(case.train)), seed, settings, models, stages)
              for case in found for seed in numbers] for num_real in counts]  # fmt: skip
    everything: list[Any] = []
    for num_real, cells in zip(counts, sizes, strict=True):
        run: list[Any] = []
        for cell in cells:
            run.append((cell, experiment.run_cell(cell, note=note)))
            everything.append(run[-1])
            size = "full" if num_real == sys.maxsize else str(cells[0].num_real)
            result["real"][size] = tables.summary(run)
            if settings.extras:
                result["real"][size] |= {"material": found_images.material([cell for cell, _ in run]),
                                         "weak cell": found_images.weak_cell(run)}  # fmt: skip
            _keep(result, out)
    if len(counts) > 1:  # whether a gain is the same at each size; runs of one seed count together
        result["real"]["together"] = tables.summary(everything)
    _finish(result, out, as_json=as_json, lines=lambda: tables.markdown(result))


def ablations(
    name: CaseArgument,
    real: Annotated[int, typer.Option(help="Number of real images.", min=8)] = 50,
    seeds: Annotated[int, typer.Option(min=1)] = 1,
    first_seed: FirstSeedOption = 0,
    fit_steps: int = 600,
    scorer_steps: int = 400,
    align_steps: int = 150,
    folds: FoldsOption = 2,
    pool: PoolOption = 96,
    candidates: CandidatesOption = 4,
    rough: RoughOption = 0.0,
    only: Annotated[str | None, typer.Option(help="Only variants whose name holds this.")] = None,
    test_share: TestShareOption = None,
    side: SideOption = 128,
    width: WidthOption = 1.0,
    folder: FolderOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What each setting of an alignment is worth: one changed at a time, on masks of no pair. Interrupted runs go on."""
    from saadi.evidence import ablations as experiment
    from saadi.evidence.gains import Cell
    from saadi.evidence.settings import Models, Settings
    from saadi.evidence.stages import Stages

    opened = home_of(home)
    (case,) = _cases(name, opened, side=side, test_share=test_share, test_groups=(), each=False)
    settings = Settings(fit_steps=fit_steps, scorer_steps=scorer_steps, align_steps=align_steps, pool_masks=pool,
                        candidates=candidates, rounds=1, folds=folds, rough=rough)  # fmt: skip
    models = Models.of(case, side=side, width=width)
    stages = Stages(folder or opened.evidence)
    cells = [Cell(case, min(real, len(case.train)), seed, settings, models, stages)
             for seed in range(first_seed, first_seed + seeds)]  # fmt: skip
    wanted = [variant for variant in experiment.VARIANTS if only is None or only in variant.name]
    if not wanted:
        names = ", ".join(variant.name for variant in experiment.VARIANTS)
        raise BadInputError(f"no variant has {only!r} in its name; there are: {names}")
    result = experiment.run(cells, wanted, note=note) | {"settings": vars(settings) | {"side": side, "width": width},
                                                         "num_test": len(case.test)}  # fmt: skip
    _finish(result, out, as_json=as_json, lines=lambda: experiment.markdown(result))


def _check_scarce(kind: Sequence[str], name: str) -> None:
    """Raises: BadInputError: not classes that the shipped generator has seen often."""
    from saadi.datasets.phantom import CLASS_NAMES

    if kind and name != "phantom":
        raise BadInputError(f"--scarce is about classes of rendered scenes, which the shipped generator knows; {name} has none "
                            "of them: choose phantom, or leave it out")  # fmt: skip
    if unknown := [one for one in kind if one not in CLASS_NAMES[1:]]:
        raise BadInputError(f"there is no class {unknown[0]!r} to be scarce; there are {', '.join(CLASS_NAMES[1:])}")


def _cases(
    name: str, home: Home, *, side: int, test_share: float | None, test_groups: Sequence[str], each: bool, many: bool = False
) -> list[Case]:
    """One data set, or one for each patient that is left out in turn; of rendered scenes `many` where few are to be chosen."""
    from saadi.evidence import cases

    if side % 32:
        raise BadInputError(f"the side of images is a multiple of 32; got {side}")
    if name in ("phantom", "phantom-phases"):
        if not 64 <= side <= 512:
            raise BadInputError(f"rendered scenes are 64 to 512 px; got --side {side}")
        if each or test_share is not None or test_groups:
            raise BadInputError("rendered scenes have test patients of their own; leave the options on test patients out")
        task: Task = "classification" if name == "phantom-phases" else "segmentation"
        return [cases.rendered(side=side, task=task, num_train=cases.MANY if many else cases.FEW)]
    if each and (test_share is not None or test_groups):
        raise BadInputError("--leave-one-out tests on each patient in turn; leave --test-share and --test-group out")
    with Store.open(home) as store:
        project = store.project(name)
        if not each:
            return [cases.of_project(store, project, side=side, test_share=test_share, test_groups=test_groups)]
        if len(groups := cases.patients(store, project)) < 2:
            raise TooFewError(f"{len(groups)} patients with labelled images, 2 needed to leave one out; import more")
        return [cases.of_project(store, project, side=side, test_groups=[group]) for group in groups]


def _recipes(text: str) -> tuple[Any, ...]:
    """Raises: BadInputError: something between the commas is no recipe."""
    found = tuple(part.strip() for part in text.split(","))
    if unknown := [part for part in found if part not in ("mixed", "first", "sure")]:
        raise BadInputError(f"recipes are mixed, first and sure, with commas between them; got {unknown[0]!r}")
    return found


def _chosen(what: str, text: str, among: Any) -> Any:
    """Raises: BadInputError: it is none of these."""
    if text not in get_args(among):
        raise BadInputError(f"{what} are {', '.join(get_args(among))}; got {text!r}")
    return text


def _shape(text: str) -> Any:
    """Raises: BadInputError: no way to make masks."""
    if text not in ("moved", "warped"):
        raise BadInputError(f"masks are moved or warped; got {text!r}")
    return text


def _counts(text: str) -> list[int]:
    """Numbers of real images, and 'full'; raises as `_numbers` does."""
    parts = [part.strip() for part in text.split(",")]
    found = [sys.maxsize if part == "full" else int(_numbers(part)[0]) for part in parts]
    if min(found) < 1:
        raise BadInputError(f"whole numbers of real images are expected, for example 20,50,full; got {text!r}")
    return found


def _numbers(text: str) -> list[float]:
    """Raises: BadInputError: something between the commas is no number above 0."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        raise BadInputError(f"numbers above 0 with commas between them are expected, for example 0.5,1,2; got {text!r}")
    return found


def _told(words: Sequence[str]) -> list[str]:
    """A command without the folders of this machine, which say nothing to others."""
    found: list[str] = []
    is_path = False
    for word in words:
        option = word.partition("=")[0]
        if not is_path and option not in (*PATHS, "--json"):
            found.append(word)
        is_path = not is_path and option in PATHS and "=" not in word
    return found


def _finish(
    result: dict[str, Any], out: Path | None, *, as_json: bool, lines: Callable[[], list[str]] | None = None
) -> None:
    _keep(result, out)
    answer(result, as_json=as_json, lines=lines)


def _keep(result: dict[str, Any], out: Path | None) -> None:
    """Write down what there is so far, with the command that made it."""
    result |= {"command": "python -m saadi " + shlex.join(_told(sys.argv[1:])), "version": VERSION}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        half = out.with_name(out.name + ".part")
        half.write_text(json.dumps(result, indent=1) + "\n")
        half.replace(out)
