"""The label compiler: ids, ignored pixels, sizes and what gets lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from saadi.errors import SizeMismatchError, UnknownClassError
from saadi.exports.labels import (
    IGNORED,
    LabelScheme,
    at_image_size,
    check_real_size,
    compile_label_map,
    count_pixels,
    label_scheme,
    vanished_classes,
)
from saadi.records import IGNORE, LabelClass

CLASSES = [LabelClass(0, "tissue", "#000000"), LabelClass(1, "liver", "#000000"), LabelClass(2, "background", "#000000")]
label_maps = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, IGNORE]))


def scheme(*, has_ignore: bool = True, highest: bool = True) -> LabelScheme:
    return label_scheme(CLASSES, has_ignore=has_ignore, background_is_zero=highest, ignore_is_highest=highest)


def test_reserved_names_are_renamed_and_the_loss_is_told() -> None:
    found = scheme()
    assert found.names == {"background": 0, "liver": 1, "background_class": 2, "ignore": 3} and found.ignore_id == 3
    assert found.lost == (
        "class 0 'tissue' is called 'background' in this format",
        "class 2 'background' is called 'background_class' in this format",
    )
    assert (
        scheme(highest=False).lost == ()
        and scheme(highest=False).ignore_id == IGNORE
        and scheme(has_ignore=False).ignore_id is None
    )


@given(label_maps)
def test_compiling_changes_only_ignored_pixels(pixels: np.ndarray) -> None:
    assert np.array_equal(compile_label_map(pixels, scheme(highest=False)), pixels)
    compiled = compile_label_map(pixels, scheme())
    assert np.array_equal(np.where(compiled == 3, IGNORE, compiled), pixels) and compiled.dtype == np.uint8


def test_an_unknown_value_is_named_with_its_pixels() -> None:
    with pytest.raises(UnknownClassError, match=r"value 7 \(4 pixels\)"):
        compile_label_map(np.full((2, 2), 7, np.uint8), scheme())


def test_unexpected_ignored_pixels_stop_the_export() -> None:
    with pytest.raises(UnknownClassError, match="1 ignored pixels"):
        compile_label_map(np.array([[0, 255]], np.uint8), scheme(has_ignore=False))


@given(label_maps, st.integers(1, 20), st.integers(1, 20))
def test_resizing_invents_no_value(pixels: np.ndarray, height: int, width: int) -> None:
    fitted = at_image_size(pixels, size=(height, width))
    assert fitted.shape == (height, width) and set(np.unique(fitted)) <= set(np.unique(pixels))
    assert set(vanished_classes(pixels, fitted)) == set(np.unique(pixels)) - set(np.unique(fitted)) - {IGNORE}
    assert np.array_equal(at_image_size(pixels, size=pixels.shape), pixels)


def test_a_real_mask_is_never_resized() -> None:
    with pytest.raises(SizeMismatchError, match="import the pair again"):
        check_real_size(np.zeros((4, 4), np.uint8), size=(4, 5))


def test_pixels_are_counted_by_name() -> None:
    assert count_pixels(np.array([[0, 1, 1, 255]], np.uint8), CLASSES) == {"tissue": 1, "liver": 2, "background": 0, IGNORED: 1}
