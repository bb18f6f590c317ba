"""Does the audit find what it should, and nothing else? Planted copies, growing shares of them, generators, and strangers.

After the acceptance list of methods.md, section 4. Training patients are those of the case; of its test patients one half are the
strangers on whom limits are set, the other half are images that an ideal generator might have made: of the same kind, and of
nobody who was learnt from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from saadi.engines.compact import CompactEngine
from saadi.engines.fitting import FitConfig, TrainingSet, borrow_shipped, fit
from saadi.errors import TooFewError
from saadi.evidence.cases import Case, Example, choose_real
from saadi.evidence.settings import Models
from saadi.jobs import Report, silent
from saadi.privacy import verifier
from saadi.privacy.audit import Audit, People, audit
from saadi.privacy.copies import CHANGES, Traces, Yardstick, of_others, planted, similarities, some_planted
from saadi.records import Image

SHARES = (0.0, 0.1, 0.5, 1.0)
NUM_MEMORISED = 10
"""Images that a generator is fitted to far too long."""
MIN_PATIENTS = 8
MAX_PLANTED = 200
FIRST_SEED = 2**42
EVERYTHING = "all of these"


def changed(image: Image, kind: str, draw: np.random.Generator) -> Image:
    """A copy with one of CHANGES, or with all of them one after the other."""
    for how in CHANGES[1:] if kind == EVERYTHING else (kind,):
        image = planted(image, draw, how=how)
    return image


@dataclass(frozen=True)
class Steps:
    """Of the fits of generators; 0 = that one is left out."""

    usual: int
    memorising: int


@dataclass
class World:
    """One seed's verifier and people."""

    training: list[Example]
    network: verifier.Verifier
    trained: People
    held_out: People
    strangers: list[Example]

    @classmethod
    def of(cls, training: Sequence[Example], strangers: Sequence[Example], *, seed: int, report: Report) -> World:
        patients = tuple(example.group for example in training)
        network, _ = verifier.fit([example.image for example in training], patients, seed=seed, report=report)
        own = traces_of(network, [example.image for example in training])
        others = traces_of(network, [example.image for example in strangers])
        held_out = People(others, tuple(example.group for example in strangers))
        return cls(list(training), network, People(own, patients), held_out, list(strangers))

    def audit(self, images: Sequence[Image]) -> Audit:
        copies = some_planted([example.image for example in self.training])
        return audit(traces_of(self.network, images), self.trained, self.held_out, planted=traces_of(self.network, copies))


def traces_of(network: verifier.Verifier, images: Sequence[Image]) -> Traces:
    return Traces.of(images, embeddings=network.embed(images))


def run(case: Case, *, seeds: int, steps: Steps, generated: int = 100, report: Report = silent) -> dict[str, Any]:
    """All tables.

    Args:
        generated: Images that each generator makes of each kind of mask.

    Raises:
        TooFewError: Fewer than twice MIN_PATIENTS test patients.
    """
    names = sorted({example.group for example in case.test})
    if len(names) < 2 * MIN_PATIENTS:
        raise TooFewError(f"{len(names)} test patients, {2 * MIN_PATIENTS} needed: half are strangers, half stand for what an "
                          "ideal generator would make; import more, or raise --test-share")  # fmt: skip
    found: dict[str, Any] = {
        "num_training": len(case.train), "num_training_patients": len({example.group for example in case.train}),
        "num_test_patients": len(names), "seeds": seeds, "copies": [], "growth": [], "generators": []}  # fmt: skip
    for seed in range(seeds):
        dealt = np.random.default_rng(seed).permutation(names)
        first = set(dealt[: len(names) // 2])
        strangers = [example for example in case.test if example.group in first]
        fresh = [example.image for example in case.test if example.group not in first]
        world = World.of(case.train, strangers, seed=seed, report=report)
        found["copies"].append(_copies(world, fresh, seed))
        found["growth"].append([_mixture(world, fresh, share, seed) for share in SHARES])
        if case.task == "segmentation" and (steps.usual or steps.memorising):
            found["generators"].append(_generators(world, case, seed=seed, steps=steps, count=generated, report=report))
    return found


def _copies(world: World, fresh: Sequence[Image], seed: int) -> dict[str, Any]:
    """Share of each kind of copy that is flagged, with the verifier and by pixels and hashes alone; and of fresh images."""
    close = {name: table.max(1) for name, table in similarities(world.held_out.traces, world.trained.traces).items()}
    strangers, patients, _ = of_others(close, world.held_out.patients)
    places = np.random.default_rng(seed).permutation(len(world.training))[:MAX_PLANTED]
    told: dict[str, Any] = {}
    for words, names in (("all measures", ("pixels", "hash", "verifier")), ("pixels and hash", ("pixels", "hash")),
                         ("verifier", ("verifier",))):  # fmt: skip
        stick = Yardstick.of_nearest({name: strangers[name] for name in names}, patients, by_held_out=True)
        assert stick is not None, "there are enough strangers"
        draw, rates = np.random.default_rng(seed), {}
        for kind in (*CHANGES, EVERYTHING):
            copies = [changed(world.training[place].image, kind, draw) for place in places]
            fits = similarities(traces_of(world.network, copies), world.trained.traces)
            rates[kind] = round(float(stick.flags({name: fits[name] for name in names}).mean()), 4)
        fits = similarities(traces_of(world.network, fresh), world.trained.traces)
        rates["images of unseen patients"] = round(float(stick.flags({name: fits[name] for name in names}).mean()), 4)
        told[words] = rates
    return told


def _mixture(world: World, fresh: Sequence[Image], share: float, seed: int) -> dict[str, Any]:
    """An audit of fresh images, a share of which are replaced by changed training images."""
    draw = np.random.default_rng(seed)
    count = min(len(fresh), len(world.training))
    places = draw.permutation(len(world.training))[: round(share * count)]
    copies = [planted(world.training[place].image, draw, how=CHANGES[number % len(CHANGES)])
              for number, place in enumerate(places)]  # fmt: skip
    return {"share": share} | _told(world.audit([*copies, *fresh[: count - len(copies)]]))


def _told(found: Audit) -> dict[str, Any]:
    nearest = found.nearest
    return {"flagged": round(len(found.flags) / found.num_items, 4), "false_flags": found.false_flags, "verdict": found.verdict,
            "excess": round(nearest.excess, 4) if nearest else None,
            "excess_interval": [round(value, 4) for value in nearest.excess_interval] if nearest else None,
            "fails": bool(found.reasons)}  # fmt: skip


def _generators(
    world: World, case: Case, *, seed: int, steps: Steps, count: int, report: Report
) -> dict[str, Any]:  # fmt: skip
    """A generator fitted to all training images as a project does it, and one fitted far too long to NUM_MEMORISED of them, each
    asked for images of strangers' label maps and of those that it has learnt from."""
    learnt = choose_real(case.train, NUM_MEMORISED, seed=seed)
    own = traces_of(world.network, [example.image for example in learnt])
    few = World(learnt, world.network, People(own, tuple(example.group for example in learnt)), world.held_out, world.strangers)
    told: dict[str, Any] = {}
    for name, seen, judged, num_steps in (("fitted as usual", list(case.train), world, steps.usual),
                                          (f"memorised {NUM_MEMORISED} images", learnt, few, steps.memorising)):  # fmt: skip
        if not num_steps:
            continue
        engine = fitted(case, seen, FitConfig(num_steps=num_steps, sample_every=0, seed=seed), report)
        for words, examples in (("strangers' masks", world.strangers), ("its own masks", seen)):
            masks = [examples[number % len(examples)].label_map for number in range(count)]
            images = engine.generate(masks, [FIRST_SEED + number for number in range(count)])
            told[f"{name}, {words}"] = _told(judged.audit(images))
    return told


def fitted(case: Case, seen: Sequence[Example], config: FitConfig, report: Report) -> CompactEngine:
    """A generator of some of the case's images, from the weights that a project's would begin with."""
    models = Models.of(case, side=case.train[0].image.shape[0])
    torch.manual_seed(config.seed)
    engine = CompactEngine(models.generator)
    if models.starts_from == "shipped":
        borrow_shipped(engine)
    data = TrainingSet([example.image for example in seen], [example.label_map for example in seen], engine=engine)
    fit(engine, data, config, report)
    return engine


def markdown(result: dict[str, Any]) -> list[str]:
    """The tables of `run`; ranges over the seeds."""
    ways = list(result["copies"][0])
    lines = [f"{result['num_training']} training images of {result['num_training_patients']} patients, "
             f"{result['num_test_patients']} test patients, {result['seeds']} seeds", "",
             f"| flagged | {' | '.join(ways)} |", f"|---|{'---|' * len(ways)}"]  # fmt: skip
    for kind in result["copies"][0][ways[0]]:
        cells = [span([100 * one[way][kind] for one in result["copies"]], "{:.0f} %") for way in ways]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines += ["", "| copies among them | flagged | excess of nearest | verdicts |", "|---|---|---|---|"]
    for place, share in enumerate(SHARES):
        row = [one[place] for one in result["growth"]]
        verdicts = ", ".join(one["verdict"] for one in row)
        lines.append(f"| {share:.0%} | {span([100 * one['flagged'] for one in row], '{:.0f} %')} | "
                     f"{span([one['excess'] for one in row], '{:.2f}')} | {verdicts} |")  # fmt: skip
    if result["generators"]:
        lines += ["", "| generator | flagged | excess of nearest | fails |", "|---|---|---|---|"]
        for name in result["generators"][0]:
            row = [one[name] for one in result["generators"]]
            lines.append(f"| {name} | {span([100 * one['flagged'] for one in row], '{:.0f} %')} | "
                         f"{span([one['excess'] for one in row], '{:.2f}')} | "
                         f"{sum(one['fails'] for one in row)} of {len(row)} |")  # fmt: skip
    return lines


def span(values: Sequence[float], form: str) -> str:
    low, middle, high = (form.format(value) for value in (min(values), float(np.mean(values)), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"
