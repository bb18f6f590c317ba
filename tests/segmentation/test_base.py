"""A prompt is checked before anybody works on it."""

from __future__ import annotations

import pytest

from saadi.errors import BadInputError
from saadi.segmentation.base import MAX_CLICKS, Prompt, checked


def test_a_box_drawn_backwards_or_over_the_rim_is_put_right():
    assert checked(Prompt(box=(50, 20, 10, -5)), size=(30, 40)).box == (10, 0, 40, 20)


@pytest.mark.parametrize(("prompt", "words"), [
    (Prompt(), "click the object first"),
    (Prompt(((3, 3, False),)), "click the object first"),
    (Prompt(((40, 3, True),)), "outside the image of 40 x 30"),
    (Prompt(((3, 3, True),) * (MAX_CLICKS + 1)), "is the limit"),
    (Prompt(box=(1, 1, 2, 9)), "smaller than 3 pixels"),
    (Prompt(box=(60, 1, 80, 9)), "smaller than 3 pixels"),
])  # fmt: skip
def test_what_cannot_mean_an_object_is_refused(prompt: Prompt, words: str):
    with pytest.raises(BadInputError, match=words):
        checked(prompt, size=(30, 40))
