"""Preference pairs in the layout of Hugging Face: a row for each pair in train/metadata.jsonl, for Diffusion-DPO and the like.

Rules of `datasets` 5.2 (see `imagefolder`): each column that ends in `_file_name` becomes an image column without that ending. So
a row has `mask`, `chosen` and `rejected`, and the same two images once more as Pick-a-Pic has them (`jpg_0`, `jpg_1`, `label_0`,
`caption`), which diffusers' train_diffusion_dpo reads. There is one split: pairs are for training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from saadi.exports.labels import LabelScheme, label_scheme
from saadi.exports.layout import nothing_lost
from saadi.exports.manifest import NOTICE
from saadi.exports.pairs import CHOSEN, PAIRS, num_pairs
from saadi.exports.selection import Item
from saadi.records import LabelClass, Project
from saadi.store.blobs import encode_png
from saadi.store.connection import dump

NAME = "preferences"
lost_in = nothing_lost
encode_mask = encode_png
ROOT = "train"
METADATA = f"{ROOT}/metadata.jsonl"
LOADING = """\
from pathlib import Path
from datasets import Image, load_dataset
pairs = load_dataset("imagefolder", data_dir=FOLDER, split="train")
pairs = pairs.cast_column("jpg_0", Image(decode=False)).cast_column("jpg_1", Image(decode=False))
names = {f"{side}_bytes": side for side in ("jpg_0", "jpg_1")}
pairs = pairs.map(lambda row: {name: Path(row[side]["path"]).read_bytes() for name, side in names.items()})
pairs = pairs.remove_columns(["jpg_0", "jpg_1"]).rename_columns(names)
"""


def check_project(project: Project) -> None:
    """Every project can have pairs."""


def scheme(classes: Sequence[LabelClass], *, has_ignore: bool) -> LabelScheme:
    """Class ids as in the store, 255 = ignore: nothing is lost."""
    return label_scheme(classes, has_ignore=has_ignore, background_is_zero=False, ignore_is_highest=False)


def paths(project: Project, item: Item) -> tuple[PurePosixPath, PurePosixPath | None]:
    """Where image and mask go; pairs share images, so each lies there once."""
    mask = PurePosixPath(ROOT, "masks", f"{item.name}.png") if item.label_map_blob is not None else None
    return PurePosixPath(ROOT, "images", f"{item.name}.png"), mask


def index_files(
    project: Project, rows: Sequence[Mapping[str, Any]], scheme: LabelScheme, folder: Path, options: Mapping[str, str],
    progress: Callable[[int], None],
) -> dict[str, bytes]:  # fmt: skip
    """train/metadata.jsonl with a line for each pair, and a README.md."""
    lines = "".join(f"{dump(entry)}\n" for entry in _entries(rows, project.class_names))
    return {METADATA: lines.encode(), "README.md": _readme(project, rows, scheme)}


def check(
    folder: Path, manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], progress: Callable[[int], None]
) -> list[str]:
    """Read the pairs as `datasets` does: each names three files that are there, and is the pair that the items tell of."""
    names = [label["name"] for label in manifest["classes"]]
    expected = _entries(rows, names)
    told = [json.loads(line) for line in (folder / METADATA).read_text(encoding="utf-8").splitlines()]
    problems = [] if told == expected else [f"{METADATA} does not tell the pairs of the items"]
    if manifest.get("num_pairs") != num_pairs(rows):
        problems.append("the number of pairs in the manifest differs from its items")
    by_name = {row["image"]: row for row in rows}
    for number, entry in enumerate(told, start=1):
        progress(number)
        files = {key: value for key, value in entry.items() if key.endswith("_file_name")}
        if missing := sorted(name for name in files.values() if not (folder / ROOT / name).is_file()):
            problems.append(f"{METADATA} line {number} names {missing[0]}, which is not there")
            continue
        chosen, rejected = (by_name[f"{ROOT}/{entry[f'{side}_file_name']}"] for side in ("chosen", "rejected"))
        if chosen["name"] == rejected["name"] or _asked(chosen) != _asked(rejected):
            problems.append(f"{METADATA} line {number} compares images of different masks, or one with itself")
        if {entry["jpg_0_file_name"], entry["jpg_1_file_name"]} != {entry["chosen_file_name"], entry["rejected_file_name"]} or (
                entry[f"jpg_{1 - entry['label_0']}_file_name"] != entry["chosen_file_name"]):  # fmt: skip
            problems.append(f"{METADATA} line {number} has another winner in its Pick-a-Pic columns")
    return problems


def _asked(row: Mapping[str, Any]) -> Any:
    """What both images of a pair were to show."""
    label_map = row["lineage"]["label_map"]
    return label_map["blob"] if row["mask"] is not None else row["label"]


def _entries(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each pair, by its number. The mask is that of the chosen image: a real one may be larger than its rival."""
    chosen: dict[int, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    rejected: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        for entry in row["lineage"].get(PAIRS, ()):
            if entry["side"] == CHOSEN:
                chosen[entry["pair"]] = row, entry
            else:
                rejected[entry["pair"]] = row
    found = []
    for number, (winner, told) in sorted(chosen.items()):
        loser = rejected[number]
        # By their hashes, which is as good as by lot: a side that always wins would be learnt.
        first, second = sorted((winner, loser), key=lambda row: str(row["blob"]))
        files = {"mask_file_name": _name(winner["mask"])} if winner["mask"] is not None else {}
        files |= {"chosen_file_name": _name(winner["image"]), "rejected_file_name": _name(loser["image"]),
                  "jpg_0_file_name": _name(first["image"]), "jpg_1_file_name": _name(second["image"])}  # fmt: skip
        found.append({**files, "label_0": int(first is winner), "caption": _caption(winner, class_names),
                      "p_chosen": told["p_chosen"], "n_votes": told["n_votes"], "raters": told["raters"],
                      "source": told["source"], "group": winner["group"]})
    return found


def _name(path: str) -> str:
    """Relative to the folder of metadata.jsonl."""
    return path.removeprefix(f"{ROOT}/")


def _caption(row: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """The classes that were asked for, since no prompt was."""
    if row["mask"] is None:
        return str(row["label"])
    return ", ".join(name for name in class_names[1:] if row["pixels"].get(name))


def _readme(project: Project, rows: Sequence[Mapping[str, Any]], scheme: LabelScheme) -> bytes:
    header = ("---\ntask_categories:\n- image-to-image\ntags:\n- synthetic\n- surgery\n- preference\n- diffusion-dpo\nconfigs:\n"
              f"- config_name: default\n  data_files:\n  - split: train\n    path: {ROOT}/**\n---\n")  # fmt: skip
    classes = "".join(f"- {index}: {name}\n" for name, index in scheme.names.items())
    classes += "- 255: ignore\n" if scheme.ignore_id is not None else ""
    asked = "under one mask" if project.task == "segmentation" else "of one class"
    return (f"{header}{NOTICE}.\n\n{num_pairs(rows)} pairs: of two images {asked}, `chosen` is preferred to `rejected`, with the "
            "probability `p_chosen`, by `source` (ruling, vote, agreed = vote and score, score = a segmenter alone, real = a "
            "real training image wins by rule). `raters` are numbers of the people who voted. Ties are left out.\n\n"
            "`jpg_0`, `jpg_1`, `label_0` (1 = the first is preferred) and `caption` are the same pairs as in Pick-a-Pic. For "
            f"train_diffusion_dpo of diffusers, which wants bytes:\n\n```python\n{LOADING}```\n\n"
            "`manifest.json` and `items.jsonl` tell which images are synthetic or edited and how each was made; none shows a "
            f"validation or test patient.\n\nClasses of the masks:\n\n{classes}").encode()  # fmt: skip
