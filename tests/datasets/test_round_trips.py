"""Rendered and real images through every export format and back: equal class ids, pixel for pixel, holes and all."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from saadi.datasets.folder import import_folder, scan, suggested_values, value_map
from saadi.datasets.phantom import CLASS_NAMES, render_set
from saadi.records import LabelClass
from saadi.store import Store
from tests.datasets.test_readers import FORMATS, NAMES, OWN, label_maps
from tests.exports.builders import add_sample, export

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SETS = {
    "kvasir": (SHARED / "kvasir_seg", "0=background,255=polyp", ("background", "polyp"), None),
    "endovis": (SHARED / "endovis2015_rigid", "0=background,70=tip,160=shaft", ("background", "tip", "shaft"), r"(op\d+)_"),
}


NEEDS_IMAGES = pytest.mark.skipif(not SHARED.is_dir(), reason="the real images are not in the repository")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    for number, scene in enumerate(render_set(12, seed=5, num_patients=6, size_px=96)):
        for part, pixels in (("images", scene.image), ("masks", scene.label_map)):
            (folder / part).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / part / f"p{number % 6}_{number}.png")
    return folder


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["phantom", *(pytest.param(name, marks=NEEDS_IMAGES) for name in SETS)])
def test_masks_come_back_pixel_for_pixel(tmp_path: Path, store: Store, rendered: Path, name: str, kind: str) -> None:
    phantom = (rendered, ",".join(f"{index}={called}" for index, called in enumerate(CLASS_NAMES)), CLASS_NAMES, r"^(p\d)_")
    folder, values, names, pattern = SETS.get(name, phantom)
    classes = [LabelClass(index, label, f"#0{index}0000") for index, label in enumerate(names)]
    first, second = (store.create_project(part, task="segmentation", classes=classes, resolution=64, actor="ann")
                     for part in "ab")  # fmt: skip
    found = scan(folder, group_pattern=pattern, limit=12)
    assert import_folder(store, first, found, values=value_map(values, classes), actor="ann").num_added == 12
    train = next(image for image in store.images(first.id) if image.split == "train")
    add_sample(store, first, train, 1)
    assert export(store, first, tmp_path / "out", format=kind, include_real=True).state == "done"
    for own in OWN:
        (tmp_path / "out" / own).unlink(missing_ok=True)
    again = scan(tmp_path / "out")
    assert again.kind == NAMES[kind]
    result = import_folder(store, second, again, values=suggested_values(again, classes), actor="ann")
    assert result.num_added == 12, result
    before, after = label_maps(store, first), label_maps(store, second)
    assert {blob: mask for blob, (mask, _) in before.items()} == {blob: mask for blob, (mask, _) in after.items()}
