"""A patient who withdraws: who is meant, what their data are in, and what is to be done about each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from saadi.errors import BadInputError, NotFoundError
from saadi.exports.selection import group_names
from saadi.records import Project
from saadi.store import Store
from saadi.store.withdrawals import Tie

TIES: dict[Tie, tuple[str, str]] = {
    "real": ("image of theirs", "images of theirs"),
    "pixels": ("image that holds pixels of theirs", "images that hold pixels of theirs"),
    "mask": ("image made under a mask of theirs", "images made under masks of theirs"),
    "look": ("image made after the look of one of theirs", "images made after the look of one of theirs"),
    "version": ("image made by a version that may have learnt from them",
                "images made by versions that may have learnt from them")}  # fmt: skip
"""Of one image and of several."""


def patient_of(store: Store, project: Project, wanted: str) -> str:
    """The patient of the store that is meant.

    Args:
        wanted: The patient's, video's or operation's name as imported; as an export names them (group-000012); or an image of
            theirs (real-000012, or its number).

    Raises:
        NotFoundError, BadInputError: Nobody is called so, or a number may mean two.
    """
    images = store.images(project.id)
    groups = {image.group_id for image in images}
    by_name = {name: group for group, name in group_names(images).items()}
    number = re.fullmatch(r"(?:real-)?0*(\d+)", wanted)
    image = next((one for one in images if number and one.id == int(number[1])), None)
    if wanted in groups and by_name.get(wanted, wanted) != wanted:
        first = {group: f"real-{one.id:06d}" for one in reversed(images) for group in [one.group_id]}
        raise BadInputError(f"one patient was imported as {wanted}, and exports call another one so; write {first[wanted]}, an "
                            f"image of the first, or {first[by_name[wanted]]}, one of the other")
    if wanted in groups:
        if image is not None and image.group_id != wanted:
            raise BadInputError(f"there is a patient and an image of that number; write real-{image.id:06d} for the image, or "
                                f"{group_names(images)[wanted]} for the patient")  # fmt: skip
        return wanted
    if wanted in by_name:
        return by_name[wanted]
    if image is not None:
        return image.group_id
    raise NotFoundError("this project has no such patient or image; the Data tab shows whose each image is, and real-000012 "
                        "names one by its number")  # fmt: skip


def report(store: Store, project: Project, group: str) -> dict[str, Any]:
    """Where data of a patient are, or may be, and a sentence for each place; JSON, without the patient's name."""
    trace = store.trace(project.id, [group])
    ties = Counter(trace.samples.values())
    names = {adapter.id: adapter.name for adapter in store.adapters(project.id)}
    models = [{"id": model.id, "kind": model.kind, "in_use": model.is_active} for model in store.models(project.id)
              if model.id in trace.models]  # fmt: skip
    signed = {one.export_id for one in store.releases(project.id) if one.disclosure_id is not None}
    told = {
        "patient": group_names(store.images(project.id))[group], "images": len(trace.images), "models": models,
        "adapters": [{"id": number, "name": names[number]} for number in sorted(trace.adapters)],
        "mask_models": sorted(trace.mask_models), "noise_shifts": sorted(trace.noise_shifts),
        "samples": {tie: ties[tie] for tie in TIES if ties[tie]},
        "exports": [{"id": number, "released": number in signed, "images": counts} for number, counts in trace.exports.items()],
        "jobs": list(trace.jobs), "projects": [store.project(number).name for number in trace.elsewhere]}  # fmt: skip
    return told | {"sentences": sentences(told)}


def sentences(told: Mapping[str, Any]) -> list[str]:
    """What the data are in, and what to do, one place each."""
    one_or_more = "image is" if told["images"] == 1 else "images are"
    found = [f"{told['images']} real {one_or_more} in no split once they withdraw: no fit, training, alignment, mask suggestion, "
             "audit or export uses them any more."]  # fmt: skip
    if told["jobs"]:
        numbers = ", ".join(map(str, told["jobs"]))
        found.append(f"Jobs {numbers} run or wait and may have read them already: cancel them and start them again.")
    words = {"engine": "Generator", "selector": "Scorer", "judge": "Judge"}
    again = {"engine": "fit again from the shipped weights (`fit --from-scratch`), since a fit goes on from the version in use",
             "selector": "train the scorers again", "judge": "train the scorers again"}  # fmt: skip
    for model in told["models"]:
        found.append(f"{words[model['kind']]} version {model['id']}{' (in use)' if model['in_use'] else ''} may have learnt from "
                     f"them: {again[model['kind']]}.")  # fmt: skip
    if told["adapters"]:
        names = ", ".join(adapter["name"] for adapter in told["adapters"])
        found.append(f"Aligned versions {names} may have learnt from them: align again on a new generator.")
    if told["mask_models"]:
        found.append(f"Mask generators {', '.join(map(str, told['mask_models']))} draw from their masks: none of them is used "
                     "any more, and a new one is learnt when masks are asked for.")  # fmt: skip
    if told["noise_shifts"]:
        found.append(f"Learnt starts {', '.join(map(str, told['noise_shifts']))} may have learnt from them: learn anew "
                     "(`mine --learned --learn-steps`).")  # fmt: skip
    for tie, count in told["samples"].items():
        way = ("stays out of exports unless a lead confirms" if tie == "version" else
               "goes into no export and no alignment" if tie != "look" else "goes into no export")  # fmt: skip
        way = way if count == 1 else way.replace("stays", "stay").replace("goes", "go")
        found.append(f"{count} synthetic {TIES[tie][count != 1]}: {way}.")
    for export in told["exports"]:
        held = ", ".join(f"{count} {TIES[tie][count != 1]}" for tie in TIES if (count := export["images"].get(tie, 0)))
        way = ("tell those who have it, what left cannot be called back" if export["released"] else
               "delete its folder and say that it never left, or tell those who have it")  # fmt: skip
        found.append(f"Export {export['id']} holds {held}: {way}.")
    if told["projects"]:
        found.append(f"The same pixels are in the projects {', '.join(told['projects'])}: withdraw there, too.")
    return found
