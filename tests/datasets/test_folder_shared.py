"""The real data sets beside this checkout come in by one call each; skipped where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from saadi.datasets.folder import import_folder, scan
from saadi.records import LabelClass, Project
from saadi.store import Store

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no shared data sets beside this checkout")
VALUES = {0: 0, 255: 1}


def test_kvasir_comes_in_by_one_call(store: Store, project: Project) -> None:
    root = DATA / "kvasir_seg"
    found = scan(root / "images", root / "masks", csv=root / "split.csv", split_column="split", limit=24)
    result = import_folder(store, project, found, values=VALUES, actor="ann")
    assert result.num_added == 24 and set(found.values) == {0, 255} and set(result.splits) == {"train", "val"}


def test_endovis_comes_in_by_one_call(store: Store) -> None:
    root = DATA / "endovis2015_rigid"
    classes = [LabelClass(index, name, "#000000") for index, name in enumerate(("background", "tip", "shaft"))]
    project = store.create_project("endovis", task="segmentation", classes=classes, resolution=16, actor="test")
    found = scan(root / "images", root / "masks", group_pattern=r"op(\d+)_", limit=12)
    result = import_folder(store, project, found, values={0: 0, 70: 1, 160: 2}, actor="ann")
    assert result.splits == {"train": 4, "val": 4, "test": 4} and set(found.groups) == {"1", "2", "3"}


def test_cholect50_comes_in_by_one_call(store: Store) -> None:
    root = DATA / "cholect50_frames"
    found = scan(root / "images", csv=root / "labels.csv", label_column="phase", group_column="video", limit=30)
    classes = [LabelClass(index, name, "#000000") for index, name in enumerate(found.labels)]
    project = store.create_project("cholec", task="classification", classes=classes, resolution=16, actor="test")
    result = import_folder(store, project, found, actor="ann")
    assert result.num_added == 30 and set(found.groups) == {"68", "70", "73"} and sum(result.groups.values()) == 3
