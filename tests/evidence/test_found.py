"""What arms of hard images are made of, and what is found of the parts that were missed most."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saadi.evidence import found, gains, tables
from saadi.evidence.extra_arms import OF_WEAKNESS
from saadi.evidence.gains import Cell
from saadi.evidence.settings import Arm
from saadi.mining.weakness import Part, Weakness
from tests.evidence.test_gains import QUICK, cell

HARD = replace(QUICK, rounds=0, recipes=("mixed",), curated=False, extras=OF_WEAKNESS)


def part(index: int, area: float, recall: float) -> Part:
    return Part(index, area, 20.0, 4, recall, "p")


def known(*parts: Part) -> Weakness:
    return Weakness.of(parts)


def test_the_weak_cell_is_the_class_and_size_found_worst_of_those_that_are_found_at_all():
    organ = [part(1, 0.1 * (1 + number // 4), [0.9, 0.4, 0.8][number // 4]) for number in range(12)]
    bar = [part(2, 0.1, 0.6)] * 12
    never = [part(3, 0.1, 0.0)] * 12
    assert found.weakest_of(known(*organ, *bar, *never)) == (1, 1)
    assert found.weakest_of(known(*organ[:2], *bar[:2])) == (2, 0)  # too few parts in any cell: the class alone


def test_recall_is_told_image_by_image():
    weakness = known(*[part(1, 0.1 * (1 + number // 4), 0.5) for number in range(12)])
    low, high = weakness.classes[1].size_edges
    rows = np.array([[0, 1, low / 2, 20, 4, 0.2], [0, 1, low / 2, 20, 4, 0.6], [0, 1, high + 1, 20, 4, 1.0],
                     [2, 1, high + 1, 20, 4, 0.5], [2, 3, 0.1, 20, 4, 0.9]])  # fmt: skip
    arrays = {"group": np.array(["a", "b", "c"]), "parts": rows}
    small = found._recall(arrays, weakness, lambda one: one == (1, 0))
    np.testing.assert_allclose(small, [0.4, np.nan, np.nan])
    np.testing.assert_allclose(found._recall(arrays, weakness, lambda one: one != (1, 0)), [1.0, np.nan, 0.5])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cell, gains.Measured]:
    made = cell(tmp_path_factory.mktemp("stages"), settings=HARD)
    return made, gains.run_cell(made, note=lambda line: None)


def test_each_arm_tells_what_its_images_are_like(run):
    made, _ = run
    rows = found.material([made])
    assert list(rows) == list(OF_WEAKNESS) and rows["weak"]["distance"] == [1.0]
    masks = made.extras.weak_masks(8, first=0)
    asked, outsider = [label_map for label_map, _ in masks], made.learners.scorer("expert")
    for kind in OF_WEAKNESS:
        stage, _ = made.synthetic(Arm(kind, 1.0))
        images = list(stage["images"])
        assert rows[kind]["loss"][0] == pytest.approx(1 - made.learners.scores(images, masks).mean(), abs=1e-3)
        seen = [one.mean for one in outsider.fidelity(images, asked)]
        assert rows[kind]["outsider"][0] == pytest.approx(np.mean(seen), abs=1e-3)
        np.testing.assert_array_equal(stage["label_maps"], asked)
        assert stage["_sources"].tolist() == [source for _, source in masks]
    assert 16 <= rows["learned"]["made"][0] <= 48 and rows["hardest"]["made"] == [16] and "made" not in rows["weak"]


def test_arms_that_were_not_ordered_are_not_made(tmp_path: Path):
    made = cell(tmp_path, settings=replace(HARD, extras=("mined",)))
    asked = []
    original = made.synthetic
    made.synthetic = lambda arm, **rest: (asked.append(arm.kind), original(arm, **rest))[1]  # type: ignore[method-assign]
    rows = found.material([made])
    assert list(rows) == ["mined"] and set(asked) == {"mined"} and "outsider over weak" not in rows["mined"]


def test_the_same_arm_has_no_gain_in_the_weak_cell_and_a_better_one_has(run):
    made, measured = run
    told = found.weak_cell([(made, measured)])
    assert set(told["arms"]) == {str(arm) for arm in made.arms()} and len(told["cells"]) == 1
    weak = found.weakest_of(made.extras.weakness())
    stage = measured["mined 1"][0]
    better = [{**one.arrays} for one in measured["weak 1"]]
    for arrays in better:
        arrays["parts"] = arrays["parts"].copy()
        arrays["parts"][:, 5] = (arrays["parts"][:, 5] + 1) / 2
    original, stage.arrays = stage.arrays, better[0]
    try:
        row = found.weak_cell([(made, measured)])["arms"]["mined 1"]
    finally:
        stage.arrays = original
    missed = told["arms"]["weak 1"]["weak"][0]
    assert row["weak over weak"][0] == pytest.approx((1 - missed) / 2, abs=1e-3), weak
    markdown = "\n".join(tables.markdown({"task": "segmentation", "settings": {}, "real": {
        "8": tables.summary([(made, measured)]) | {"material": found.material([made]), "weak cell": told}}}))  # fmt: skip
    assert "| + hard and right, learnt start |" in markdown and f"Missed most: {told['cells'][0]}." in markdown


def test_where_a_class_is_scarce_on_purpose_all_its_parts_are_the_weak_cell(run, monkeypatch: pytest.MonkeyPatch):
    made, measured = run
    monkeypatch.setattr(made, "settings", replace(made.settings, scarce=("bar",)))
    told = found.weak_cell([(made, measured)])
    parts = measured["mined 1"][0].arrays["parts"]
    of_images = [parts[(parts[:, 0] == row) & (parts[:, 1] == 2), 5] for row in range(len(made.case.test))]
    assert told["cells"] == ["bar"]
    assert told["arms"]["mined 1"]["by class"]["bar"]["recall"] == told["arms"]["mined 1"]["weak"]
    assert told["arms"]["mined 1"]["by class"]["bar"]["over base"] == told["arms"]["mined 1"]["weak over base"]
    assert told["arms"]["mined 1"]["weak"][0] == pytest.approx(np.mean([one.mean() for one in of_images if len(one)]), abs=1e-3)


def test_stages_of_before_say_why_they_tell_nothing(run):
    made, measured = run
    stage = measured["base 1"][0]
    original, stage.arrays = stage.arrays, {name: value for name, value in stage.arrays.items() if name != "parts"}
    try:
        told = found.weak_cell([(made, measured)])
    finally:
        stage.arrays = original
    assert "kept no parts" in told["missing"]
    markdown = tables.markdown({"task": "segmentation", "settings": {}, "real": {
        "8": tables.summary([(made, measured)]) | {"weak cell": told}}})  # fmt: skip
    assert any(line.startswith("Missed most: unknown; some of these arms") for line in markdown)
    assert found.material([cell(Path(made.stages.folder), settings=replace(HARD, extras=("gated",)))]) == {}


