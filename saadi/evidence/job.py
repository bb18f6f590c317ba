"""Job `evidence`: whether synthetic data help a project's downstream model, measured arm by arm while nobody waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saadi import devices, orders
from saadi.errors import BadInputError, TooFewError
from saadi.evidence import cases, gains, tables
from saadi.evidence.measures import told
from saadi.evidence.settings import Models, Settings
from saadi.evidence.stages import Stages
from saadi.jobs import JobContext, Outcome

SIDE_PX = 128
"""All arms are compared at this size: what a few minutes on two cores allow."""


def run_job(context: JobContext) -> Outcome:
    """Compute the arms of every seed. What is computed stays in the data folder: stopped, overtaken or asked for again with other
    shares, nothing is computed twice."""
    store, order = context.store, context.params
    context.yields = True
    project = store.project(order["project_id"])
    if order["data"] != orders.EvidenceOrder(**order).fingerprint(store):
        raise BadInputError("the project's images or masks have changed since this measurement began; measure again: what is "
                            "unchanged is not computed twice")  # fmt: skip
    case = cases.of_project(store, project, side=min(SIDE_PX, project.resolution), test_share=order["test_share"])
    settings = Settings(
        fit_steps=order["fit_steps"],
        scorer_steps=order["scorer_steps"],
        downstream_steps=order["downstream_steps"],
        align_steps=order["align_steps"],
        rounds=order["rounds"],
        shares=tuple(order["shares"]),
    )
    side = case.train[0].image.shape[0]
    models = Models.of(case, side=side)
    if order["num_real"] is not None and order["num_real"] > len(case.train):
        raise TooFewError(f"{order['num_real']} real images wanted, {len(case.train)} are left to train on; choose fewer")
    num_real = order["num_real"] or len(case.train)
    stages = Stages(store.home.evidence)
    devices.use_all_threads()
    done, run, total = 0, [], 0
    for seed in range(order["seeds"]):
        cell = gains.Cell(case, num_real, seed, settings, models, stages)
        total = order["seeds"] * len(cell.arms())
        found: gains.Measured = {}
        for arm in cell.arms():
            cell.learners.report = _within(context, done, total, f"seed {seed + 1} of {order['seeds']}, {arm}")
            found[str(arm)] = [cell.arm(arm)]
            done += 1
            context.report(done, total, "measured an arm", metrics={str(arm): told(case.task, found[str(arm)][0])})
        run.append((cell, found))
    result = {
        "case": case.name,
        "task": case.task,
        "class_names": list(case.class_names),
        "num_real": num_real,
        "num_test": len(case.test),
        "num_test_patients": len({example.group for example in case.test}),
        "settings": vars(settings),
        "seconds_computed": round(stages.computed_s, 1),
        "seconds_reused": round(stages.reused_s, 1),
        **tables.summary(run, report=lambda message: context.report(total, total, message)),
    }
    return Outcome(f"{total} arms measured on {len(case.test)} images of patients that nothing has seen", lambda store: result)


def _within(context: JobContext, done: int, total: int, arm: str) -> Any:
    """Reports the steps of a stage as words: an arm counts when it is done."""

    def report(
        step: int, of: int, message: str, *, metrics: Mapping[str, float] | None = None, images: Mapping[str, str] | None = None
    ) -> None:
        context.report(done, total, f"{arm}: {message} ({step} of {of})")

    return report
