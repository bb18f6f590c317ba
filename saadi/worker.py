"""Which job is done by which recipe; recipes are imported when their first job comes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module

from saadi import orders
from saadi.jobs import Handler, JobContext, Outcome

RECIPES: Mapping[str, str] = {
    "fit": "saadi.engines.fitting:run_job",
    "generate": "saadi.generation:run_job",
    "train_scorer": "saadi.downstream.training:run_job",
    "score": "saadi.downstream.scoring:run_job",
    "predict": "saadi.downstream.prediction:run_job",
    "align": "saadi.alignment.job:run_job",
    "import": "saadi.datasets.folder:run_job",
    "export": "saadi.exports.recipe:run_job",
    "audit": "saadi.release.job:run_job",
    "text_check": "saadi.release.texts:run_job",
    "map": "saadi.atlas:run_job",
    "evidence": "saadi.evidence.job:run_job",
    "fit_masks": "saadi.mask_generator.job:run_fit_job",
    "refine": "saadi.refining:run_job",
    "mine": "saadi.mining.job:run_job",
    "surrogates": "saadi.release.surrogates:run_job",
    "suggest_masks": "saadi.mask_generator.job:run_suggest_job",
}


def _lazy(target: str) -> Handler:
    def handler(context: JobContext) -> Outcome:
        context.job = orders.freeze(context.store, context.job)
        module, function = target.split(":")
        try:
            outcome: Outcome = getattr(import_module(module), function)(context)
            if context.params.get("series"):
                outcome = _with_what_follows(outcome, context)
        finally:
            if "torch" in sys.modules:  # an export or import needs no torch
                import_module("saadi.devices").release_memory()
        return outcome

    return handler


def _with_what_follows(outcome: Outcome, context: JobContext) -> Outcome:
    """The next job of a series is placed in the transaction that ends this one."""
    job, publish = context.job, outcome.publish
    go_on = import_module("saadi.alignment.rounds").go_on
    return replace(outcome, publish=lambda store: go_on(store, job, publish(store)))


HANDLERS: Mapping[str, Handler] = {kind: _lazy(target) for kind, target in RECIPES.items()}
