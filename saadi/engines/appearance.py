"""What a class looks like in one image, as numbers that a generator can be asked for: one extractor for all classes.

After SAFE of Crucial-Diff (arXiv:2507.09915), whose code is not published: a frozen encoder looks at a masked crop, and a small
network that is trained together with the generator turns that into conditioning. Here the encoder is fixed arithmetic (colours in
Lab, brightness percentiles, oriented band energies at two scales): nothing has to be downloaded, and no domain is favoured.
What it gives is laid into the region of the class, which a token of a cross-attention would have to find first. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi.errors import BadInputError
from saadi.masks import fit_image_to, fit_to
from saadi.records import Image, LabelMap

SIDE = 128
"""Images are looked at in this size, whatever the crop's: a reference of another size is scaled."""
MIN_PX = 30
"""Of a class at `SIDE`; fewer tell nothing about its looks."""
ORIENTATIONS = 4
WAVELENGTHS = (4.0, 8.0)
"""Of the band filters, in pixels at `SIDE`."""
NUM_VALUES = 14 + ORIENTATIONS * len(WAVELENGTHS)
Appearance = NDArray[np.float32]
"""(NUM_VALUES,) float32, about -2 to 2 each."""


class Reference(NamedTuple):
    """Paint a class like it looks in an image."""

    class_index: int
    appearance: Appearance


def appearance_of(image: Image, label_map: LabelMap, class_index: int) -> Appearance:
    """How a class looks in an image.

    Args:
        image: (H, W, 3) uint8 RGB, any size.
        label_map: (H, W) uint8 of the same picture.

    Raises:
        BadInputError: The image shows no, or hardly any, of the class.
    """
    found = appearances(image, label_map, [class_index])
    if class_index not in found:
        where = fit_to(label_map, size=(SIDE, SIDE)) == class_index
        raise BadInputError(f"the reference shows {int(where.sum())} pixels of class {class_index} at {SIDE} px, {MIN_PX} needed "
                            "to see what it looks like; choose an image that shows more of it")  # fmt: skip
    return found[class_index]


def appearances(image: Image, label_map: LabelMap, classes: Sequence[int]) -> Mapping[int, Appearance]:
    """`appearance_of` each class that the image shows enough of."""
    small, labels = fit_image_to(image, side=SIDE), fit_to(label_map, size=(SIDE, SIDE))
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    grey = lab[..., 0]
    bands = [np.abs(cv2.filter2D(grey - 128, cv2.CV_32F, _band(wavelength, turn * np.pi / ORIENTATIONS)))
             for wavelength in WAVELENGTHS for turn in range(ORIENTATIONS)]  # fmt: skip
    found: dict[int, Appearance] = {}
    for index in classes:
        where = labels == index
        if where.sum() < MIN_PX:
            continue
        pixels = lab[where]
        colours = [*((pixels.mean(0) - 128) / 32), *(pixels.std(0) / 16 - 1)]
        spread = [(np.percentile(pixels[:, 0], share) - 128) / 48 for share in (2, 10, 50, 90, 98)]
        chroma = np.hypot(pixels[:, 1] - 128, pixels[:, 2] - 128)
        more = [chroma.mean() / 24 - 1, chroma.std() / 12 - 1, (pixels[:, 0] > 230).mean() * 8 - 1]
        energies = [np.log1p(band[where].mean()) - 1.5 for band in bands]
        found[index] = np.clip(np.array([*colours, *spread, *more, *energies]), -4, 4).astype(np.float32)
    return found


def styles(references: Sequence[Reference], *, num_classes: int) -> NDArray[np.float32]:
    """(num_classes, NUM_VALUES + 1): the appearance of each class and whether there is one; what is not referred to is zeros.

    Raises:
        BadInputError: A class that the generator does not have, or one that is referred to twice.
    """
    table = np.zeros((num_classes, NUM_VALUES + 1), np.float32)
    for class_index, appearance in references:
        if not 0 <= class_index < num_classes:
            raise BadInputError(f"class {class_index} is not in this project; it has classes 0 to {num_classes - 1}")
        if table[class_index, -1]:
            raise BadInputError(f"class {class_index} has two references; choose one")
        table[class_index] = [*appearance, 1.0]
    return table


def _band(wavelength: float, angle: float) -> NDArray[np.float64]:
    """An even Gabor filter without a mean, of unit energy."""
    size = int(2 * round(wavelength) + 1)
    kernel = cv2.getGaborKernel((size, size), wavelength / 2, angle, wavelength, 1.0, 0.0, cv2.CV_64F)
    kernel -= kernel.mean()
    return np.asarray(kernel / np.linalg.norm(kernel))
