import hashlib

import pytest

from saadi.config import assets_dir
from saadi.demo import KINDS, ensure_demo, split_of
from saadi.engines import shipped
from saadi.store import Store


def test_demo_is_made_once_and_finished_when_it_was_interrupted(store: Store):
    first = ensure_demo(store, actor="test", num_images=3)
    assert len(store.images(first.id)) == 3 and all(store.active_model(first.id, kind) for kind in KINDS)
    again = ensure_demo(store, actor="test", num_images=5)
    assert again == first and len(store.images(first.id)) == 5 and len(store.models(first.id)) == 3
    assert {image.label for image in store.images(first.id)} <= {"preparation", "dissection", "clipping", "extraction"}


def test_patients_of_the_demo_stay_on_one_side():
    assert [split_of(patient) for patient in (0, 15, 16, 19, 20, 23)] == ["train", "train", "val", "val", "test", "test"]


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_weights_are_those_of_the_manifest_and_small(kind):
    data = shipped.file(kind).read_bytes()
    assert hashlib.sha256(data).hexdigest() == shipped.manifest()[kind]["sha256"]
    assert sum(file.stat().st_size for file in assets_dir().rglob("*")) < 40e6
