"""Preference pairs: those of the next alignment, as far as both images may leave, by the rules of Hugging Face's reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlcroissant
import numpy as np
import pytest
from PIL import Image

from saadi import pairing
from saadi.errors import BadInputError, TooFewError
from saadi.exports.manifest import sha256
from saadi.exports.preferences import LOADING
from saadi.exports.verify import verify_export
from saadi.orders import ExportOrder
from saadi.records import Answer, Project, RealImage, Sample, Score
from saadi.store import Store
from tests.builders import new_request
from tests.exports import builders
from tests.exports.builders import export


def add_scorers(store: Store, project: Project) -> dict[str, int]:
    return {kind: store.add_model(project.id, kind=kind, architecture={}, file=store.files.put(kind.encode()), metrics={},
                                  actor="ann").id for kind in ("selector", "judge")}  # fmt: skip


def score(store: Store, models: dict[str, int], sample: Sample, dice: float) -> None:
    store.add_scores([Score(sample.id, model_id, kind, dice, dice, 0.9, {}, sample.label_map_blob)
                      for kind, model_id in models.items()])  # fmt: skip


def vote(store: Store, project: Project, left: Sample, right: Sample, answer: Answer, voter: str) -> None:
    store.add_vote(project.id, left_id=left.id, right_id=right.id, answer=answer, voter=voter, request_id=new_request())


def two(store: Store, project: Project, source: RealImage | Any, seed: int) -> tuple[Sample, Sample]:
    """Two candidates of one label map, scored 0.9 and 0.4; nobody has accepted them."""
    models = {model.kind: model.id for kind in ("selector", "judge") if (model := store.active_model(project.id, kind))}
    made = [builders.add_sample(store, project, source, seed + place, curation=curation)
            for place, curation in enumerate(("pending", "rejected"))]  # fmt: skip
    for sample, dice in zip(made, (0.9, 0.4), strict=True):
        score(store, models or add_scorers(store, project), sample, dice)
    return made[0], made[1]


@pytest.fixture
def project(store: Store) -> Project:
    """Six patients, each with a mask of their own; the last two are held out."""
    made = store.create_project("pairs", task="segmentation", classes=builders.CLASSES, resolution=builders.SIDE, actor="ann")
    for number in range(6):
        pixels = builders.label_map(number)
        pixels[20, : number + 1] = 1
        added = store.add_image(
            made.id, blob=store.blobs.put_image(builders.image(number)), size=(24, 24), group_id=f"DOE_{number}",
            split="train" if number < 4 else "test", source_name=f"{number}.png",
            label_map_blob=store.blobs.put_label_map(pixels), actor="ann")  # fmt: skip
        assert added is not None
    builders.engine_id(store, made)
    add_scorers(store, made)
    return made


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train/metadata.jsonl").read_text().splitlines()]


def read_as_datasets(folder: Path) -> list[dict[str, Any]]:
    """folder_based_builder of `datasets`: columns that end in `_file_name` become images, relative to the metadata's folder."""
    found = []
    for line in rows_of(folder):
        row = {}
        for key, value in line.items():
            if key.endswith("_file_name"):
                with Image.open(folder / "train" / value) as picture:
                    row[key.removesuffix("_file_name")] = (picture.mode, np.asarray(picture))
            else:
                row[key] = value
        found.append(row)
    return found


def test_a_pair_is_read_back_pixel_for_pixel(tmp_path: Path, store: Store, project: Project) -> None:
    drawn = builders.drawing(store, project, builders.label_map(1, size_px=builders.SIDE))
    better, worse = two(store, project, drawn, 1)
    for voter in ("dr. doe", "ann"):
        vote(store, project, better, worse, "left", voter)
    job = export(store, project, tmp_path / "out", format="preferences")
    assert job.state == "done" and job.message.startswith("1 pairs of 2 images exported"), job.error
    (row,) = read_as_datasets(tmp_path / "out")
    assert row["chosen"][0] == "RGB" and row["mask"][0] == "L"
    np.testing.assert_array_equal(row["chosen"][1], store.blobs.image(better.blob))
    np.testing.assert_array_equal(row["rejected"][1], store.blobs.image(worse.blob))
    np.testing.assert_array_equal(row["mask"][1], store.label_map_pixels(drawn.blob))
    winner = "jpg_0" if row["label_0"] == 1 else "jpg_1"
    np.testing.assert_array_equal(row[winner][1], row["chosen"][1])
    loser = {"jpg_0": "jpg_1", "jpg_1": "jpg_0"}[winner]
    np.testing.assert_array_equal(row[loser][1], row["rejected"][1])
    assert row["caption"] == "organ, ignore" and row["source"] == "agreed" and 0.5 < row["p_chosen"] < 1
    assert (row["n_votes"], row["raters"]) == (2, [1, 2])
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"dr. doe" not in everything and b'"ann"' not in everything
    assert verify_export(tmp_path / "out", store=store) == []
    assert len(list(mlcroissant.Dataset(jsonld=str(tmp_path / "out/croissant.json")).records("items"))) == 2


def test_they_are_the_pairs_that_alignment_learns_from(tmp_path: Path, store: Store, project: Project) -> None:
    images = store.images(project.id)
    for place in range(4):  # training images: the real one wins, too
        two(store, project, images[place], 10 * place)
    drawn = builders.drawing(store, project, builders.label_map(2, size_px=builders.SIDE))
    two(store, project, drawn, 90)
    assert export(store, project, tmp_path / "out", format="preferences").state == "done"
    names = {row["image"].removeprefix("train/"): row["blob"] for row in map(
        json.loads, (tmp_path / "out/items.jsonl").read_text().splitlines())}  # fmt: skip
    found = sorted((names[row["chosen_file_name"]], names[row["rejected_file_name"]], row["source"])
                   for row in rows_of(tmp_path / "out"))  # fmt: skip
    assert found == sorted((pair.chosen_blob, pair.rejected_blob, pair.source)
                           for pair in pairing.settle(store, project.id).pairs)  # fmt: skip
    assert len(found) == 9 and {row["p_chosen"] for row in rows_of(tmp_path / "out") if row["source"] == "real"} == {1.0}
    assert {row["label_0"] for row in rows_of(tmp_path / "out")} == {0, 1}  # neither side always wins
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["num_pairs"] == 9 and manifest["counts"] == {"train": {"real": 4, "synthetic": 10}}
    job = export(store, project, tmp_path / "made", format="preferences", include_real=False)
    assert job.state == "done" and {row["source"] for row in rows_of(tmp_path / "made")} == {"score"}


def test_ties_and_open_pairs_are_left_out_and_counted(tmp_path: Path, store: Store, project: Project) -> None:
    shapes = [builders.drawing(store, project, builders.label_map(seed, size_px=builders.SIDE + seed), request_id=f"d{seed}")
              for seed in range(4)]  # fmt: skip
    pairs = [two(store, project, shape, 10 * place) for place, shape in enumerate(shapes)]
    vote(store, project, *pairs[0], "both_good", "ann")
    vote(store, project, *pairs[1], "both_bad", "ann")
    vote(store, project, *pairs[2], "right", "ann")  # against the score, and alone
    job = export(store, project, tmp_path / "out", format="preferences")
    assert job.result["left_out"] == {"pair, a tie: both bad": 1, "pair, a tie: both good": 1,
                                      "pair, waits for a second opinion": 1}
    assert len(rows_of(tmp_path / "out")) == 1


def test_pixels_of_held_out_patients_and_flagged_copies_stay_out(tmp_path: Path, store: Store, project: Project) -> None:
    images = store.images(project.id)
    models = {kind: found.id for kind in ("selector", "judge") if (found := store.active_model(project.id, kind))}
    held = next(image for image in images if image.split == "test")
    drawn = builders.drawing(store, project, builders.label_map(1, size_px=builders.SIDE))
    for place, dice in enumerate((0.9, 0.3)):  # a pool painted into a test patient's picture, under a free mask
        sample = store.add_sample(
            project.id, label_map_id=drawn.id, label_map_rev=1, label_map_blob=drawn.blob, seed=place, engine="compact",
            blob=store.blobs.put_image(builders.image(700 + place, size_px=builders.SIDE)), adapter_id=None, purpose="pool",
            model_id=builders.engine_id(store, project), settings={"inpaint": {"image_id": held.id, "is_whole": True}},
            is_composite=True, source_blob=held.blob)  # fmt: skip
        score(store, models, sample, dice)
    flagged, _ = two(store, project, images[1], 20)
    store.add_disclosure(project.id, export_id=None, actor="ann", findings={
        "verdict": "fails", "looked_at": [flagged.blob], "flagged": [{"blob": flagged.blob, "image_id": images[0].id}]})
    two(store, project, images[0], 40)
    settled = pairing.settle(store, project.id)
    assert len(settled.pairs) == 5  # also the one in the test patient's picture, and the flagged one
    job = export(store, project, tmp_path / "out", format="preferences")
    assert job.result["left_out"] == {"pair, composite, pixels of a validation or test patient": 1,
                                      "pair, synthetic, held for a copy of a training image by an audit": 1}
    assert len(rows_of(tmp_path / "out")) == 3


def test_a_lost_image_takes_its_pairs_with_it(tmp_path: Path, store: Store, project: Project) -> None:
    images = store.images(project.id)
    two(store, project, images[0], 1)
    _, worse = two(store, project, images[1], 10)
    assert len(pairing.settle(store, project.id).pairs) == 4
    store.blobs.path(worse.blob).unlink()  # it loses against its rival and against the real image
    job = export(store, project, tmp_path / "out", format="preferences")
    assert job.error == (f"1 of 6 images cannot be read (synthetic-{worse.id:06d}); restore them from a backup, or export "
                         "without them (--without-unreadable)")  # fmt: skip
    job = export(store, project, tmp_path / "out", format="preferences", without_unreadable=True)
    assert job.state == "done" and job.message.startswith("2 pairs of 3 images"), job.error
    assert job.result["left_out"] == {"synthetic, cannot be read": 1} and len(rows_of(tmp_path / "out")) == 2


def test_a_pair_that_was_turned_round_is_found(tmp_path: Path, store: Store, project: Project) -> None:
    two(store, project, store.images(project.id)[0], 1)
    assert export(store, project, tmp_path / "out", format="preferences").state == "done"
    metadata, manifest = tmp_path / "out/train/metadata.jsonl", tmp_path / "out/manifest.json"
    rows = rows_of(tmp_path / "out")
    rows[0]["label_0"] = 1 - rows[0]["label_0"]
    metadata.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    told = json.loads(manifest.read_text())
    told["index_files"]["train/metadata.jsonl"] = sha256(metadata.read_bytes())
    manifest.write_text(json.dumps(told))
    problems = verify_export(tmp_path / "out")
    assert any("does not tell the pairs" in one for one in problems) and any("another winner" in one for one in problems)


def test_classes_have_pairs_without_masks(tmp_path: Path, store: Store) -> None:
    project = store.create_project("phases", task="classification", classes=builders.CLASSES, resolution=builders.SIDE,
                                   actor="ann")  # fmt: skip
    builders.engine_id(store, project)
    add_scorers(store, project)
    real = store.add_image(project.id, blob=store.blobs.put_image(builders.image(1)), size=(24, 24), group_id="v", split="train",
                           label="organ", source_name="x.png", label_map_blob=store.class_map(project, "organ"), actor="ann")
    assert real is not None
    two(store, project, real, 1)
    job = export(store, project, tmp_path / "out", format="preferences")
    assert job.state == "done", job.error
    rows = rows_of(tmp_path / "out")
    assert {row["caption"] for row in rows} == {"organ"} and not any("mask_file_name" in row for row in rows)


def test_without_pairs_nothing_is_written(tmp_path: Path, store: Store, project: Project) -> None:
    with pytest.raises(TooFewError, match="no scored candidates yet, so there are no pairs"):
        ExportOrder(project_id=project.id, format="preferences").check(store)
    better, worse = two(store, project, builders.drawing(store, project, builders.label_map(1, size_px=30)), 1)
    vote(store, project, better, worse, "both_good", "ann")
    job = export(store, project, tmp_path / "out", format="preferences")
    assert job.state == "failed" and "no pair that may be exported (1 pair, a tie: both good)" in str(job.error)
    assert not (tmp_path / "out").exists()
    with pytest.raises(BadInputError, match="compared under the mask that was asked for"):
        ExportOrder(project_id=project.id, format="preferences", refined=True).check(store)


def test_what_the_readme_tells_to_run_is_python() -> None:
    compile(LOADING, "README.md", "exec")
