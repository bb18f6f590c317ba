"""Commands that place jobs and decide on their results: fit, generate, score, align, curate, export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from saadi import config, orders
from saadi.cli.common import DetachOption, HomeOption, JsonOption, ProjectArgument, answer, home_of, note, run_order
from saadi.config import Home
from saadi.errors import BadInputError, NotFoundError, TooFewError
from saadi.mining import seen
from saadi.mining.choosing import MIN_UNSEEN, QUADRANTS
from saadi.records import Adapter, Project
from saadi.store import Store

MAX_SHOWN = 1_000_000
"""Pairs in one listing; nobody has more."""
Build = Callable[[Store, Project], orders.Order]


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    for command in (fit, train_scorer, generate, score, sample_map, pairs, align, measure, adapters, adapter_export, curate,
                    refine, export, verify):
        app.command(command.__name__.replace("_", "-"))(command)
    app.command("zip")(zip_export)


def order_from(kind: type[orders.Order], **values: Any) -> Build:
    """An order from those options that were given; the others keep the order's defaults."""
    given = {name: value for name, value in values.items() if value is not None}
    return lambda store, project: orders.order(kind, project_id=project.id, **given)


def fit(name: ProjectArgument, steps: int | None = None, minutes: float | None = None,
        few: Annotated[bool, typer.Option("--few", help="5 to 50 images are enough: adapt the weights in use, hold patients out, "
                                          "end before the images are learnt by heart.")] = False,
        references: Annotated[bool, typer.Option("--references", help="Learn to paint a class like it looks in an image that is "
                                                 "shown, for `generate --like`.")] = False,
        from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Do not start from the weights in use.")] = False,
        batch_size: int | None = None, learning_rate: float | None = None, seed: int | None = None,
        engine: Annotated[str | None, typer.Option(help="compact (default) or stable-diffusion, for a GPU.")] = None,
        base: Annotated[str | None, typer.Option(help="Stable Diffusion: folder in diffusers layout, or hub id in the "
                                                      "cache.")] = None,
        mode: Annotated[str | None, typer.Option(help="inpainting (default): paint into pictures; controlnet: whole "
                                                      "scenes.")] = None,
        full: Annotated[bool, typer.Option("--full", help="Train the whole U-Net instead of a LoRA adapter.")] = False,
        rank: Annotated[int | None, typer.Option(help="Rank of the LoRA adapter; with --few on compact: train one.")] = None,
        controlnet: Annotated[str | None, typer.Option(help="Folder of a ControlNet to start from.")] = None,
        prompt: Annotated[str | None, typer.Option(help="{classes} becomes the names of the classes in the mask.")] = None,
        saves_memory: Annotated[bool, typer.Option("--saves-memory", help="Slower, with less memory (checkpointing).")] = False,
        detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Fit the generator to the project's own training images."""
    if steps is not None and minutes is not None:
        raise typer.BadParameter("give --steps or --minutes, not both")
    build = order_from(orders.FitOrder, steps=steps, minutes=minutes, few=few, references=references,
                       from_scratch=from_scratch, batch_size=batch_size, learning_rate=learning_rate, seed=seed, engine=engine,
                       base=base, mode=mode, full=full, lora_rank=rank, controlnet=controlnet, prompt=prompt,
                       saves_memory=saves_memory)
    run_order(home_of(home), name, build, detach=detach, as_json=as_json)


def train_scorer(name: ProjectArgument, steps: int | None = None, batch_size: int | None = None, seed: int | None = None,
                 folds: Annotated[int | None, typer.Option(help="Selectors, each blind to one fold of the patients; 1 = one that "
                                                                "has seen all. Default 2.")] = None,
                 detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Train selector and judge on the real training images."""
    build = order_from(orders.TrainScorerOrder, steps=steps, batch_size=batch_size, folds=folds, seed=seed)
    run_order(home_of(home), name, build, detach=detach, as_json=as_json)


def generate(name: ProjectArgument,
             count: Annotated[int | None, typer.Option(help="Number of label maps, drawn from the training split; in "
                                                            "classification of sets, dealt out evenly to the classes.")] = None,
             candidates: Annotated[int | None, typer.Option(help="Images per label map or set.")] = None, seed: int | None = None,
             masks: Annotated[str | None, typer.Option(help="Whose label maps: training (drawn at random; default), weak "
                                                            "(of those, by what the selector misses), drawings or suggested "
                                                            "(the newest of them).")] = None,
             classes: Annotated[str | None, typer.Option(help="Classification: names with commas; default: all that training "
                                                              "images show.")] = None,
             steps: Annotated[int | None, typer.Option(help="Sampling steps; default: stored with the weights.")] = None,
             guidance: Annotated[float | None, typer.Option(help="Guidance scale; 1 = off.")] = None,
             adapter: Annotated[str | None, typer.Option(help="accepted, none, or the number of an adapter.")] = None,
             negative_adapter: Annotated[int | None, typer.Option(metavar="ID", help="A version made by `align --negative`: "
                                                                  "guidance leads away from what it makes.")] = None,
             negative_weight: Annotated[float, typer.Option(help="Of the negative adapter, 0 to 1; 0 = plain guidance.")] = 1.0,
             real_surroundings: Annotated[bool, typer.Option("--real-surroundings", help="Paint what a mask names into the real "
                                                             "image under it; the rest keeps the patient's pixels.")] = False,
             reach: Annotated[int | None, typer.Option(help="Pixels by which a painted part begins wider than its mask, so that "
                                                       "it settles with its surroundings; default: none.")] = None,
             until: Annotated[float, typer.Option(help="Share of the steps after which the part is exact.")] = 0.6,
             like: Annotated[list[str] | None, typer.Option(metavar="CLASS=ID", help="Paint the class like in this training "
                                                            "image (see `fit --references`); may be repeated.")] = None,
             detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Generate candidates for label maps (or classes) of the project, and score them where there are scorers."""
    negative = None if negative_adapter is None else {"adapter_id": negative_adapter, "weight": negative_weight}
    named = {"num_inference_steps": steps, "guidance_scale": guidance, "negative": negative,
             "surroundings": "real" if real_surroundings else None,
             "guide": None if reach is None else {"reach_px": reach, "until": until}}  # fmt: skip
    settings: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    wanted = int(adapter) if adapter is not None and adapter.isdecimal() else adapter

    def build(store: Store, project: Project) -> orders.Order:
        indices = class_indices(project, classes) if classes is not None else None
        if like:
            settings["references"] = [_reference(project, one) for one in like]
        ids = _own_masks(store, project, masks, count) if masks not in (None, "training", "weak") else None
        return order_from(orders.GenerateOrder, count=count, candidates=candidates, seed=seed, settings=settings or None,
                          adapter=wanted, classes=indices, label_map_ids=ids,
                          focus="weak" if masks == "weak" else None)(store, project)

    run_order(home_of(home), name, build, detach=detach, as_json=as_json)


def _reference(project: Project, told: str) -> dict[str, int]:
    """'polyp=12' as an order has it.

    Raises:
        BadInputError: No such class, or no number.
    """
    name, _, number = told.rpartition("=")
    if not name or not number.isdecimal():
        raise BadInputError(f"--like takes a class and an image, for example {project.class_names[-1]}=12; got {told[:40]!r}")
    return {"class_index": class_indices(project, name)[0], "image_id": int(number)}


def _own_masks(store: Store, project: Project, masks: str | None, count: int | None) -> tuple[int, ...]:
    """The newest label maps that people drew, or that were suggested and kept.

    Raises:
        BadInputError, TooFewError: No such kind, or none of it.
    """
    if masks not in ("drawings", "suggested"):
        raise BadInputError(f"--masks is training, weak, drawings or suggested; got {masks!r}")
    found = [record.id for record in store.label_maps(project.id)
             if record.image_id is None and (record.origin == "sampled") == (masks == "suggested")]  # fmt: skip
    if not found:
        way = "draw one in the tab Draw" if masks == "drawings" else f"make some with `saadi suggest {project.name} --keep`"
        raise TooFewError(f"{project.name} has no {'drawings' if masks == 'drawings' else 'suggested masks'} yet; {way}")
    return tuple(found[::-1][: count or 8])


def class_indices(project: Project, names: str) -> tuple[int, ...]:
    """Raises: BadInputError: The project has no such class."""
    known = {label.name.casefold(): label.index for label in project.classes}
    wanted = [part.strip() for part in names.split(",") if part.strip()]
    if unknown := [part for part in wanted if part.casefold() not in known]:
        there = ", ".join(project.class_names)
        raise BadInputError(f"there is no class {unknown[0][:30]!r} in {project.name}; classes are {there}")
    if not wanted:
        raise BadInputError(f"--classes names classes with commas, for example {','.join(project.class_names[:2])}; got nothing")
    return tuple(dict.fromkeys(known[part.casefold()] for part in wanted))


def score(name: ProjectArgument, detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Let selector and judge look at every image they have not seen."""
    run_order(home_of(home), name, order_from(orders.ScoreOrder), detach=detach, as_json=as_json)


def sample_map(name: ProjectArgument, detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Measure all images and lay them out on the map of Curate, those that look alike side by side."""
    run_order(home_of(home), name, order_from(orders.MapOrder), detach=detach, as_json=as_json)


def pairs(name: ProjectArgument,
          show: Annotated[bool, typer.Option("--show", help="List each pair and who decided it, and those left out; freeze "
                                                            "nothing.")] = False,
          home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Turn scores and votes into a frozen set of pairs."""
    from saadi import pairing

    if show:
        _show_pairs(name, home_of(home), as_json=as_json)
        return
    with Store.open(home_of(home)) as store:
        made = pairing.build_pairs(store, store.project(name).id, actor=config.user_name())
    summary = [f"  {key}: {value}" for key, value in made.summary.items()]
    answer({"pair_set": made.id, "num_pairs": len(made.pairs), "sha256": made.sha256, "summary": made.summary}, as_json=as_json,
           lines=lambda: [f"{len(made.pairs)} pairs (set {made.id})", *summary])


def _show_pairs(name: str, home: Home, *, as_json: bool) -> None:
    from saadi import settled

    with Store.open(home) as store:
        project = store.project(name)
        found, left = (settled.page(store, project, who=who, count=MAX_SHOWN)["rows"] for who in ("all", "left_out"))

    def image(side: dict[str, Any]) -> str:
        return "real image" if side["sample_id"] is None else f"image {side['sample_id']}"

    def lines() -> list[str]:
        decided = [f"{image(row['first']):<14} > {image(row['second']):<14} {row['decider']:<7} weight {row['weight']:g}"
                   + (f", {row['num_people']} for, {row['num_against']} against" if row["num_people"] else "") for row in found]
        waiting = [f"{image(row['first']):<14} ? {image(row['second']):<14} left out: {row['reason']}" for row in left]
        return decided + waiting or ["no pairs yet"]

    answer({"pairs": found, "left_out": left}, as_json=as_json, lines=lines)


def align(name: ProjectArgument, steps: int | None = None, batch_size: int | None = None, learning_rate: float | None = None,
          beta: float | None = None, sft_weight: float | None = None, seed: int | None = None,
          loss: Annotated[str | None, typer.Option(help="dpo (default), kto, mapo, or sft: winners alone.")] = None,
          sdpo_mu: Annotated[float | None, typer.Option(help="Damp the losers' gradient, 0 to 1; default: do not.")] = None,
          accumulation: Annotated[int | None, typer.Option(help="Batches per step, for larger steps in the same memory.")] = None,
          ema_decay: Annotated[float | None, typer.Option(help="Keep a moving average of the adapter, for example 0.99.")] = None,
          scale_search: Annotated[str | None, typer.Option(help="Try weaker versions at the end: never, rescue (none passed "
                                                                "the test; default), always.")] = None,
          checkpointing: Annotated[bool, typer.Option("--checkpointing", help="One pair at a time, with the least memory; "
                                                                              "slower.")] = False,
          gpus: Annotated[int | None, typer.Option(help="GPUs of this machine that share each step; default 1.")] = None,
          negative: Annotated[float | None, typer.Option(metavar="GUIDANCE", help="Learn what is not wanted instead, for "
                                                         "`generate --negative-adapter`; tested at this guidance scale.")] = None,
          rounds: Annotated[int | None, typer.Option(help="Generate, score, pair, align and accept so many times; a round starts "
                                                          "only if the last one won.", min=1, max=10)] = None,
          masks: Annotated[int, typer.Option(help="Masks (or sets of a class) of each round's pool.", min=1)] = 64,
          candidates: Annotated[int, typer.Option(help="Images per mask or set of each round's pool.", min=2)] = 4,
          detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Learn from pairs, as an adapter, which images are preferred; the adapter is a candidate until accepted."""
    if negative is not None and rounds is not None:
        raise typer.BadParameter("--negative makes one adapter; leave --rounds out")

    def build(store: Store, project: Project) -> orders.Order:
        from saadi import pairing
        from saadi.alignment.rounds import first_order

        settings = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "beta": beta,
                    "sft_weight": sft_weight, "loss": loss, "sdpo_mu": sdpo_mu, "accumulation": accumulation,
                    "ema_decay": ema_decay, "scale_search": scale_search, "checkpointing": checkpointing or None,
                    "gpus": gpus}  # fmt: skip
        if rounds is not None:
            return first_order(project.id, rounds=rounds, masks=masks, candidates=candidates, seed=seed or 0, settings=settings)

        made = pairing.build_pairs(store, project.id, actor=config.user_name())
        note(f"{len(made.pairs)} pairs (set {made.id})")
        return order_from(orders.AlignOrder, pair_set_id=made.id, seed=seed, negative=negative, **settings)(store, project)

    run_order(home_of(home), name, build, detach=detach, as_json=as_json)


def measure(name: ProjectArgument,
            real: Annotated[int | None, typer.Option(help="Real images to learn from; 0 = all training images.", min=0)] = None,
            seeds: Annotated[int | None, typer.Option(help="Repeats.")] = None,
            rounds: Annotated[int | None, typer.Option(help="Alignments one after the other.")] = None,
            shares: Annotated[str | None, typer.Option(help="Synthetic images per real one, with commas.")] = None,
            test_share: Annotated[float | None, typer.Option(help="Deal the patients out anew, this share to the test.")] = None,
            detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Does it help? The same training with and without synthetic images, on unseen patients; shown in the tab Evidence."""
    try:
        wanted = tuple(float(part) for part in shares.split(",")) if shares else None
    except ValueError:
        raise BadInputError(f"numbers with commas between them are expected, for example 0.5,1; got {shares!r}") from None

    def build(store: Store, project: Project) -> orders.Order:
        given = {"seeds": seeds, "rounds": rounds, "shares": wanted, "test_share": test_share}
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if real is not None:
            values["num_real"] = real or None  # an order's None means all
        return orders.order(orders.EvidenceOrder, project_id=project.id, **values)

    run_order(home_of(home), name, build, detach=detach, as_json=as_json)


def adapters(name: ProjectArgument,
             accept: Annotated[int | None, typer.Option(metavar="ID", help="Put this version into use.")] = None,
             reject: Annotated[int | None, typer.Option(metavar="ID", help="Mark this version as not wanted.")] = None,
             rollback: Annotated[bool, typer.Option("--rollback", help="Back to the parent of the version in use.")] = False,
             reason: Annotated[str, typer.Option(help="Kept in the audit trail.")] = "",
             home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the project's adapters; accept, reject or roll back one."""
    if sum((accept is not None, reject is not None, rollback)) > 1:
        raise typer.BadParameter("give one of --accept, --reject and --rollback")
    with Store.open(home_of(home)) as store:
        project = store.project(name)
        for adapter_id in (accept, reject):
            if adapter_id is not None:
                _own_adapter(store, project, adapter_id)
        if accept is not None:
            store.accept_adapter(accept, project_id=project.id, actor=config.user_name(), reason=reason)
        if reject is not None:
            store.reject_adapter(reject, actor=config.user_name(), reason=reason)
        if rollback:
            in_use = store.accepted_adapter(project.id)
            if in_use is None:
                raise TooFewError(f"{name} uses the base model already; there is nothing to roll back")
            store.accept_adapter(in_use.parent_id, project_id=project.id, actor=config.user_name(), reason=reason or "rollback")
        found = store.adapters(project.id)
        in_use = store.accepted_adapter(project.id)
        tied = store.standing_trace(project.id).adapters
    rows = [{"id": item.id, "name": item.name, "state": item.state, "parent_id": item.parent_id, "scale": item.scale,
             "metrics": item.metrics, "created_at": item.created_at, "learnt_from_withdrawn": item.id in tied} for item in found]
    negative = {item.id for item in found if orders.is_negative(item)}
    answer({"in_use": in_use.id if in_use else None, "adapters": rows}, as_json=as_json,
           lines=lambda: [f"{item['id']:>4}  {item['name']:<6} {'negative' if item['id'] in negative else item['state']}"
                          f"{', may have learnt from a patient who has withdrawn' if item['id'] in tied else ''}"
                          for item in rows] or ["no adapters yet"])


def adapter_export(name: ProjectArgument,
                   adapter_id: Annotated[int, typer.Argument(metavar="ID", help="Number of the version; see `saadi adapters`.")],
                   out: Annotated[Path, typer.Option("--out", help="New or empty folder.")],
                   format: Annotated[str, typer.Option("--format", help="peft or diffusers")] = "peft",
                   despite_withdrawn: Annotated[str | None, typer.Option(metavar="REASON", help="Although it may have learnt "
                                                                         "from a patient who has withdrawn, and why.")] = None,
                   home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Write a version as a folder that peft or diffusers loads."""
    if format not in ("peft", "diffusers"):
        raise typer.BadParameter(f"--format is peft or diffusers, got {format!r}")
    with Store.open(home_of(home)) as store:
        adapter = _own_adapter(store, store.project(name), adapter_id)
        from saadi.exports.adapters import export_adapter  # torch takes seconds

        files = export_adapter(store, adapter, format=cast(Any, format), out_dir=out, actor=config.user_name(),
                               despite_withdrawn=despite_withdrawn)
    answer({"adapter": adapter.id, "name": adapter.name, "format": format, "files": files}, as_json=as_json,
           lines=lambda: [f"{adapter.name} as {format}: {', '.join(files)}"])


def _own_adapter(store: Store, project: Project, adapter_id: int) -> Adapter:
    adapter = store.adapter(adapter_id)
    if adapter.project_id != project.id:
        raise NotFoundError(f"adapter {adapter_id} belongs to another project; see `saadi adapters {project.name}`")
    return adapter


def curate(name: ProjectArgument,
           accept_above: Annotated[float | None, typer.Option(min=0.0, max=1.0, metavar="SCORE",
                                                              help="Lowest score that both give: Dice, in classification the "
                                                                   "probability of the asked class.")] = None,
           accept_hard: Annotated[bool, typer.Option("--accept-hard", help="Instead: images that are hard for the selector and "
                                                     "right for the judge (`saadi mine`).")] = False,
           include_refused: Annotated[bool, typer.Option("--include-refused", help="Also images that the quality gate refuses: "
                                                         "unlike real ones, or like one of them.")] = False,
           home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Accept the pending images that selector and judge both find at least this good, or those that are hard and right."""
    if accept_hard and include_refused:
        raise typer.BadParameter("what the quality gate refuses is not hard but wrong; leave --include-refused out")
    if (accept_above is None) != accept_hard:
        raise typer.BadParameter("give --accept-above or --accept-hard, one of them")
    if accept_above is None:
        _accept_hard(home_of(home), name, as_json=as_json)
        return
    with Store.open(home_of(home)) as store:
        project = store.project(name)
        dice: dict[int, dict[str, float]] = {}
        for item in store.scores(project.id):
            dice.setdefault(item.sample_id, {})[item.kind] = item.dice
        pending = store.samples(project.id, curation="pending")
        scored = [sample.id for sample in pending if {"selector", "judge"} <= dice.get(sample.id, {}).keys()]
        from saadi import quality_gate

        looked = [quality_gate.Looked(sample.blob, sample.label_map_blob, sample.is_composite) for sample in pending]
        refused = {sample.id for sample, is_refused in zip(pending, quality_gate.refused(store, project, looked), strict=True)
                   if is_refused}
        fine = [sample_id for sample_id in scored if min(dice[sample_id].values()) >= accept_above]
        good = [sample_id for sample_id in fine if include_refused or sample_id not in refused]
        if good:
            store.curate(good, "accepted", actor=config.user_name())
    counts = {"accepted": len(good), "below": len(scored) - len(fine), "unscored": len(pending) - len(scored),
              "refused": len(fine) - len(good)}
    answer(counts, as_json=as_json, lines=lambda: [
        f"{counts['accepted']} accepted, {counts['below']} below {accept_above:g}, {counts['unscored']} without scores, "
        f"{counts['refused']} good but refused by the quality gate (unlike real images, or like one of them)"])


def _accept_hard(home: Home, name: str, *, as_json: bool) -> None:
    from saadi.curation import quadrants_of

    with Store.open(home) as store:
        project = store.project(name)
        if seen.limits(store, project) is None:
            raise TooFewError(f"what is hard is not known yet: selector and judge must have looked at {MIN_UNSEEN} real images "
                              "of patients that they have not learnt from; run `train-scorer`, then `score`")  # fmt: skip
        places = quadrants_of(store, project)
        pending = {sample.id for sample in store.samples(project.id, curation="pending")}
        chosen = [sample_id for sample_id, quadrant in places.items() if quadrant == "prize" and sample_id in pending]
        if chosen:
            store.curate(chosen, "accepted", actor=config.user_name())
    counts = {"accepted": len(chosen)} | {one: sum(place == one for place in places.values()) for one in QUADRANTS}
    answer(counts, as_json=as_json, lines=lambda: [
        f"{counts['accepted']} accepted; of all scored images {counts['prize']} are hard and right, {counts['filler']} easy and "
        f"right, {counts['quarantine']} hard and wrong or unlike real ones, {counts['doubtful']} wrong for the judge alone"])


def _whole(path: Path | None) -> str | None:
    """Absolute, because the worker runs elsewhere."""
    return str(path.expanduser().resolve()) if path is not None else None


def export(name: ProjectArgument,
           format: Annotated[str, typer.Option("--format", help="imagefolder, nnunet, coco, yolo, voc, folders or "
                                                      "preferences (pairs)")],
           out: Annotated[Path, typer.Option("--out", help="New or empty folder.")],
           no_real: Annotated[bool, typer.Option("--no-real", help="Synthetic images only.")] = False,
           include_refused: Annotated[bool, typer.Option("--include-refused", help="Also images that the quality gate refuses: "
                                                         "unlike real ones, or like one of them.")] = False,
           without_unreadable: Annotated[bool, typer.Option("--without-unreadable", help="Leave out images that the data folder "
                                                            "has lost or damaged, instead of ending.")] = False,
           refined: Annotated[bool, typer.Option("--refined", help="Masks of synthetic images without the soft rim, as `refine` "
                                                 "has measured it.")] = False,
           despite_withdrawn: Annotated[str | None, typer.Option(metavar="REASON", help="Also images by versions that may have "
                                                                 "learnt from a patient who has withdrawn, and why; kept in the "
                                                                 "audit trail.")] = None,
           instances: Annotated[str | None, typer.Option(help="COCO: an object for each component (default) or class.")] = None,
           outlines: Annotated[str | None, typer.Option(help="COCO: rle (default), polygons, which fill holes, or both.")] = None,
           credentials: Annotated[Path | None, typer.Option(help="PEM file with your certificate: synthetic images get content "
                                                            "credentials (C2PA).")] = None,
           credentials_key: Annotated[Path | None, typer.Option(help="PEM file with its private key.")] = None,
           detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Write the accepted images (and the real training images) as a data set, and verify it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInputError(f"the folder {out.name!r} is not empty; choose a new one for --out")
    # Absolute, because the worker runs elsewhere.
    build = order_from(orders.ExportOrder, format=format, out_dir=str(out.expanduser().resolve()), include_real=not no_real,
                       include_refused=include_refused or None, refined=refined or None,
                       without_unreadable=without_unreadable or None, instances=instances, outlines=outlines,
                       despite_withdrawn=despite_withdrawn, credentials=_whole(credentials),
                       credentials_key=_whole(credentials_key))  # fmt: skip
    run_order(home_of(home), name, build, detach=detach, as_json=as_json)


def refine(name: ProjectArgument, detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Measure on validation patients by how many pixels masks of synthetic images should be smaller, for `export --refined`."""
    run_order(home_of(home), name, order_from(orders.RefineOrder), detach=detach, as_json=as_json)


def verify(directory: Annotated[Path, typer.Argument(metavar="DIR", help="An exported folder.")], home: HomeOption = None,
           as_json: JsonOption = False) -> None:
    """Read an exported folder again by the rules of its format and compare every hash; with --home, also with the store."""
    from saadi.exports.verify import verify_export

    if home is None:
        problems = verify_export(directory)
    else:
        with Store.open(home_of(home)) as store:
            problems = verify_export(directory, store=store)
    answer({"verified": not problems, "problems": problems}, as_json=as_json,
           lines=lambda: problems or ["every file, hash, mask and split is as the manifest promises"])
    if problems:
        note(f"{len(problems)} problems, the first: {problems[0]}")
        raise typer.Exit(1)


def zip_export(directory: Annotated[Path, typer.Argument(metavar="DIR", help="An exported folder.")],
               target: Annotated[Path, typer.Argument(metavar="FILE", help="New file.")], as_json: JsonOption = False) -> None:
    """Pack an exported folder into one file, each byte checked against the manifest; the same export gives the same bytes."""
    from saadi.exports.archive import Archive

    archive = Archive(directory.absolute())
    archive.write(target)
    answer({"file": str(target), "num_files": len(archive.entries), "num_bytes": archive.size}, as_json=as_json,
           lines=lambda: [f"{len(archive.entries)} files, {archive.size / 2**20:.1f} MiB"])
