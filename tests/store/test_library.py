"""Projects, images, label maps: revisions conflict instead of overwriting, a resend gives the first answer."""

from __future__ import annotations

import pytest

from saadi.errors import BadInputError, ConflictError, NotFoundError
from saadi.records import Project, RealImage
from saadi.store import Store
from tests.builders import add_label_map, count, new_request
from tests.conftest import CLASSES


def blob(store: Store, text: str) -> str:
    return store.blobs.put(text.encode())


def add_image(store: Store, project: Project, pixels: str, *, label_map: str | None = None) -> RealImage | None:
    return store.add_image(project.id, blob=blob(store, pixels), size=(16, 16), group_id="patient-1", split="train",
                           source_name=f"{pixels}.png", label_map_blob=label_map, actor="ann")


def test_a_name_is_taken_once(store: Store, project: Project) -> None:
    with pytest.raises(BadInputError, match="already a project called 'tiny'"):
        store.create_project("tiny", task="segmentation", classes=CLASSES, resolution=16, actor="ann")


def test_a_wrong_name_lists_the_right_ones(store: Store, project: Project) -> None:
    with pytest.raises(NotFoundError, match="there are: tiny"):
        store.project("tny")


def test_the_same_pixels_come_in_once(store: Store, project: Project) -> None:
    assert add_image(store, project, "a", label_map=blob(store, "m")) is not None
    assert add_image(store, project, "a", label_map=blob(store, "m")) is None
    assert (count(store, "images"), count(store, "label_maps"), count(store, "audit", "action = 'image.add'")) == (1, 1, 1)


def test_an_image_knows_its_label_map_and_splits_select(store: Store, project: Project) -> None:
    image = add_image(store, project, "a", label_map=blob(store, "m"))
    assert image is not None
    assert [record.id for record in store.label_maps(project.id, splits=["train"])] == [image.label_map_id]
    assert store.label_maps(project.id, splits=["test"]) == []
    assert store.count_images(project.id) == {"train": 1}


def test_label_maps_of_held_out_patients_and_drawings_over_them_never_train(store: Store, project: Project) -> None:
    held = store.add_image(project.id, blob=blob(store, "x"), size=(16, 16), group_id="p2", split="test", source_name="x.png",
                           label_map_blob=blob(store, "own"), actor="ann")
    seen = add_image(store, project, "a", label_map=blob(store, "m"))
    assert held is not None and seen is not None and held.label_map_id is not None
    over, beside = (store.add_label_map(project.id, blob=blob(store, f"over {image.id}"), name="n", author="ann",
                                        request_id=new_request(), origin="drawn", underlay_id=image.id)
                    for image in (held, seen))
    store.save_label_map(over.id, blob=blob(store, "later"), rev=1, author="ann", request_id=new_request())
    ids, blobs = store.held_out_label_maps(project.id)
    assert ids == {held.label_map_id, over.id} and beside.id not in ids
    assert blobs == {blob(store, text) for text in ("own", f"over {held.id}", "later")}  # earlier revisions, too


def test_the_second_of_two_editors_is_told(store: Store, project: Project) -> None:
    drawing = add_label_map(store, project)
    store.save_label_map(drawing.id, blob=blob(store, "ann's"), rev=1, author="ann", request_id=new_request())
    with pytest.raises(ConflictError, match="ann saved revision 2 while you worked on revision 1"):
        store.save_label_map(drawing.id, blob=blob(store, "bob's"), rev=1, author="bob", request_id=new_request())
    assert store.label_map(drawing.id).blob == blob(store, "ann's")
    assert [row["author"] for row in store.label_map_history(drawing.id)] == ["ann", "ann"]


def test_a_resent_drawing_is_one_drawing(store: Store, project: Project) -> None:
    first, second = (store.add_label_map(project.id, blob=blob(store, "m"), name="n", author="ann", request_id="r",
                                         origin="drawn") for _ in range(2))
    assert first == second
    assert count(store, "label_maps") == 1


def test_a_resent_save_answers_with_its_own_revision(store: Store, project: Project) -> None:
    drawing = add_label_map(store, project)
    save = {"blob": blob(store, "ann's"), "rev": 1, "author": "ann", "request_id": "lost"}
    store.save_label_map(drawing.id, **save)
    store.save_label_map(drawing.id, blob=blob(store, "bob's"), rev=2, author="bob", request_id=new_request())
    again = store.save_label_map(drawing.id, **save)
    assert (again.rev, again.blob) == (2, blob(store, "ann's"))
    with pytest.raises(ConflictError):  # with revision 3 for an answer, ann's next stroke would have overwritten bob's work
        store.save_label_map(drawing.id, blob=blob(store, "more"), rev=again.rev, author="ann", request_id=new_request())


def test_a_request_of_another_drawing_stores_nothing_silently(store: Store, project: Project) -> None:
    one, other = add_label_map(store, project), add_label_map(store, project)
    store.save_label_map(one.id, blob=blob(store, "x"), rev=1, author="ann", request_id="same")
    with pytest.raises(BadInputError, match="already used for label map"):
        store.save_label_map(other.id, blob=blob(store, "y"), rev=1, author="ann", request_id="same")


def test_every_change_has_its_audit_row(store: Store, project: Project) -> None:
    drawing = add_label_map(store, project)
    store.save_label_map(drawing.id, blob=blob(store, "x"), rev=1, author="bob", request_id=new_request())
    assert [(row.actor, row.action) for row in store.audit_rows()] == [
        ("bob", "label_map.save"), ("ann", "label_map.add"), ("test", "project.create")]
