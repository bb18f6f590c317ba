"""The map: neighbours stay neighbours, the same input gives the same map, and the job makes it anew only when needed."""

from __future__ import annotations

import numpy as np
import pytest

from saadi import atlas, orders
from saadi.config import Home
from saadi.jobs import run_worker
from saadi.records import Project
from saadi.store import Store
from saadi.worker import HANDLERS
from tests.builders import add_samples


def groups(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Three far groups in ten dimensions, and to which one each row belongs."""
    draw = np.random.default_rng(0)
    label = np.arange(count) % 3
    return (draw.normal(size=(3, 10)) * 20)[label] + draw.normal(size=(count, 10)), label


def test_groups_stay_together_inside_the_unit_square() -> None:
    vectors, label = groups()
    points = atlas.lay_out(vectors)
    assert points.shape == (60, 2) and points.dtype == np.float32
    assert points.min() >= -1e-6 and points.max() <= 1 + 1e-6
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + 9 * np.eye(60)
    assert (label[distance.argmin(1)] == label).all()


def test_the_same_input_gives_the_same_map() -> None:
    vectors, _ = groups(30)
    assert (atlas.lay_out(vectors) == atlas.lay_out(vectors)).all()


def test_those_beyond_the_landmarks_join_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas, "MAX_LANDMARKS", 30)
    vectors, label = groups(90)
    points = atlas.lay_out(vectors)
    centers = np.stack([np.median(points[label == index], axis=0) for index in range(3)])
    assert (np.linalg.norm(points[:, None] - centers[None], axis=2).argmin(1) == label).all()


@pytest.mark.parametrize("count", [2, 5, 8])
def test_a_handful_of_images_has_a_map_too(count: int) -> None:
    points = atlas.lay_out(groups(count)[0])
    assert points.shape == (count, 2) and np.isfinite(points).all()


@pytest.mark.parametrize("spread", [0, 1e-12])
def test_images_that_are_all_alike_share_a_place(spread: float) -> None:
    alike = np.ones((40, 4)) + spread * np.random.default_rng(0).normal(size=(40, 4))
    points = atlas.lay_out(alike)
    assert points.shape == (40, 2) and np.allclose(points, points[0])


def test_equal_images_lie_on_one_another() -> None:
    vectors, _ = groups(30)
    points = atlas.lay_out(np.concatenate([vectors, vectors[:4]]))
    assert (points[30:] == points[:4]).all() and len(np.unique(points, axis=0)) == 30


def test_the_job_lays_out_what_there_is_and_again_only_after_a_change(store: Store, home: Home, project: Project) -> None:
    add_samples(store, project, count=9)
    order = orders.order(orders.MapOrder, project_id=project.id)
    job, _ = orders.place(store, order, actor="ann")
    run_worker(home, HANDLERS, exit_when_idle=True)
    assert store.job(job.id).message == "9 synthetic and 0 real images laid out"
    found = store.projection(project.id)
    assert found is not None and found.points.shape == (9, 2)
    assert orders.place(store, order, actor="ann") == (store.job(job.id), False)
    add_samples(store, project, count=10)
    assert orders.place(store, order, actor="ann")[1]


def test_one_image_makes_no_map(store: Store, home: Home, project: Project) -> None:
    add_samples(store, project, count=1)
    job, _ = orders.place(store, orders.order(orders.MapOrder, project_id=project.id), actor="ann")
    run_worker(home, HANDLERS, exit_when_idle=True)
    assert "fewer than two images" in (store.job(job.id).error or "")
