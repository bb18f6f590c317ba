"""Job `refine`: by how many pixels masks of synthetic images should be smaller than what was asked for, measured on validation
patients.

Nothing in the store is changed: an export that wants refined masks erodes them as it writes them, and says so with each.
"""

from __future__ import annotations

from typing import Any

from saadi import devices
from saadi.datasets.real import real_pairs
from saadi.downstream import scoring
from saadi.downstream.folds import CrossFitted
from saadi.engines.regions import named_region
from saadi.generation import chosen_adapter, warm_engine
from saadi.jobs import JobContext, Outcome
from saadi.orders.looking import MIN_TO_REFINE
from saadi.refinement import Choice, choose, eroded

MAX_IMAGES = 48
FIRST_SEED = 2**43
"""Far from those of pools, gates and evidence."""
NUM_EXAMPLES = 4
CHUNK = 8


def run_job(context: JobContext) -> Outcome:
    """Job `refine`."""
    devices.use_all_threads()
    store, order = context.store, context.params
    project = store.project(order["project_id"])
    model = store.model(order["model_id"])
    adapter = chosen_adapter(store, project, order["adapter"], model=model)
    engine = warm_engine(store, model)
    images, label_maps = real_pairs(store, project, "val", limit=MAX_IMAGES, side=engine.resolution)
    assert len(images) >= MIN_TO_REFINE, "checked when the job started"
    selector = scoring.load_scorer(store, store.model(order["selector_id"]))
    assert isinstance(selector, CrossFitted), "a project with masks has one"
    total, made = len(images), []
    for first in range(0, total, CHUNK):
        chunk = slice(first, first + CHUNK)
        pairs = zip(label_maps[chunk], images[chunk], strict=True)
        regions = [named_region(asked, image, side=engine.resolution) for asked, image in pairs] if engine.needs_picture else None
        made += engine.generate(
            label_maps[chunk], [FIRST_SEED + first + place for place in range(len(images[chunk]))],
            adapter=store.files.path(adapter.file) if adapter else None, adapter_scale=adapter.scale if adapter else 1.0,
            regions=regions)  # fmt: skip
        context.report(min(first + CHUNK, total), 2 * total, f"image {min(first + CHUNK, total)} of {total}")
    seen, seen_real = [], []
    for place, (image, real) in enumerate(zip(made, images, strict=True)):
        [one], [other] = selector.predict([image]), selector.predict([real])
        seen.append(one.label_map)
        seen_real.append(other.label_map)
        context.report(total + place + 1, 2 * total, f"looking at image {place + 1} of {total}")
    choices = choose(seen, label_maps, seen_real, label_maps, num_classes=len(project.classes))
    radii = {index: choice.radius for index, choice in choices.items() if choice.radius}
    places = sorted(range(total), key=lambda place: -int((eroded(label_maps[place], radii) != label_maps[place]).sum()))
    examples = [{"blob": store.blobs.put_image(made[place]), "before": store.blobs.put_label_map(label_maps[place]),
                 "after": store.blobs.put_label_map(eroded(label_maps[place], radii))}
                for place in places[:NUM_EXAMPLES]]  # fmt: skip
    # Named by the job, they are no leftovers.
    context.report(2 * total, 2 * total, "done", images={f"{name} {number}": blob for number, one in enumerate(examples)
                                                         for name, blob in one.items()})  # fmt: skip
    result: dict[str, Any] = {
        "radii": {project.class_names[index]: radius for index, radius in radii.items()}, "model_id": model.id,
        "adapter_id": adapter.id if adapter else None,
        "classes": {project.class_names[index]: _told(choice) for index, choice in choices.items()},
        "num_images": total, "side": engine.resolution, "examples": examples if radii else []}  # fmt: skip
    named = ", ".join(f"{name} {radius} px" for name, radius in result["radii"].items())
    message = f"smaller masks fit better: {named}" if named else "no class is found better with a smaller mask"
    return Outcome(f"{message} ({total} validation images)", lambda store: result)


def _told(choice: Choice) -> dict[str, Any]:
    """In numbers that JSON holds."""
    return {"radius": choice.radius, "num_images": choice.num_images,
            "gains": {str(radius): [round(value, 4) for value in gain] for radius, gain in choice.gains.items()},
            "real_gains": {str(radius): round(gain, 4) for radius, gain in choice.real_gains.items()}}  # fmt: skip
