"""Label maps moved, bent and displaced: other poses of the same anatomy, and a fault that is planted."""

from __future__ import annotations

import math

import cv2
import numpy as np

from saadi.records import LabelMap


def moved(label_map: LabelMap, draw: np.random.Generator) -> LabelMap:
    """Mirrored, turned by up to 15 degrees, scaled by up to 15 % and shifted by up to 10 %; the border reflects."""
    side = label_map.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), draw.uniform(-15, 15), draw.uniform(0.87, 1.15))
    matrix[:, 2] += draw.uniform(-0.1, 0.1, 2) * side
    if draw.random() < 0.5:
        label_map = np.ascontiguousarray(label_map[:, ::-1])
    turned = cv2.warpAffine(label_map, matrix, (side, side), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, dtype=np.uint8)


def displaced(label_map: LabelMap, draw: np.random.Generator) -> LabelMap:
    """Shifted by 15 to 25 % of the side in a random direction; the border is repeated."""
    side = label_map.shape[0]
    angle, length = draw.uniform(0, 2 * math.pi), draw.uniform(0.15, 0.25) * side
    matrix = np.array([[1, 0, length * math.cos(angle)], [0, 1, length * math.sin(angle)]])
    shifted = cv2.warpAffine(label_map, matrix, (side, side), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(shifted, dtype=np.uint8)


def warped(label_map: LabelMap, draw: np.random.Generator) -> LabelMap:
    """Bent by a smooth random field of up to 8 % of the side (elastic deformation, Simard et al. 2003)."""
    side = label_map.shape[0]
    field = np.stack([cv2.GaussianBlur(draw.uniform(-1, 1, (side, side)), (0, 0), side / 8) for _ in range(2)])
    field *= 0.08 * side / max(float(np.abs(field).max()), 1e-9)
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    to_column, to_row = (columns + field[0]).astype(np.float32), (rows + field[1]).astype(np.float32)
    bent = cv2.remap(label_map, to_column, to_row, interpolation=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(bent, dtype=np.uint8)
