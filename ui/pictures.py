"""Pictures for the browser: thumbnails, masks, overlays. All made from blobs, so every answer may be cached for good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from fastapi import APIRouter, Query, Response

from saadi import masks
from saadi.errors import BadInputError
from saadi.records import LabelClass
from saadi.store.blobs import BlobStore
from ui.context import Context

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
WEBP_QUALITY = 90
"""Thumbnails only; whatever is stored, trained on or exported is lossless PNG."""
JPEG_QUALITY = 90
Classes = tuple[LabelClass, ...]


def build_router(context: Context) -> APIRouter:
    """Return the picture routes; a name that is no SHA-256 is refused before any file is touched."""
    router = APIRouter()

    def classes_of(project_id: int) -> Classes:
        with context.open() as store:
            return store.project(project_id).classes

    @router.get("/image/{blob}.png")
    def image(blob: str, size: int | None = Query(default=None, ge=16, le=2048)) -> Response:
        if size is not None:
            return Response(_thumbnail(context.home.blobs, blob, size), media_type="image/jpeg", headers=FOREVER)
        return Response(BlobStore(context.home.blobs).get(blob), media_type="image/png", headers=FOREVER)

    @router.get("/mask/{project_id}/{label_map}.webp")
    def mask(
        project_id: int, label_map: str, size: int = Query(default=256, ge=16, le=2048), hatch: bool = False
    ) -> Response:
        return _webp(_mask(context.home.blobs, label_map, classes_of(project_id), size, hatch))

    @router.get("/outline/{project_id}/{label_map}.png")
    def outline(
        project_id: int, label_map: str, size: int = Query(default=768, ge=16, le=2048), like: str | None = None
    ) -> Response:
        """Class outlines on nothing; `like` names an image whose proportions are taken."""
        picture = _outline(context.home.blobs, label_map, classes_of(project_id), size, like)
        return Response(picture, media_type="image/png", headers=FOREVER)

    @router.get("/overlay/{project_id}/{image_blob}/{label_map}.webp")
    def overlay(
        project_id: int,
        image_blob: str,
        label_map: str,
        size: int = Query(default=256, ge=16, le=2048),
        hatch: bool = False,
    ) -> Response:
        return _webp(_overlay(context.home.blobs, image_blob, label_map, classes_of(project_id), size, hatch))

    @router.get("/disagreement/{project_id}/{asked}/{predicted}.webp")
    def disagreement(project_id: int, asked: str, predicted: str, size: int = Query(default=512, ge=16, le=2048)) -> Response:
        return _webp(_disagreement(context.home.blobs, asked, predicted, classes_of(project_id), size))

    return router


def _webp(data: bytes) -> Response:
    return Response(data, media_type="image/webp", headers=FOREVER)


def _encode(picture: np.ndarray, suffix: str, options: Sequence[int] = ()) -> bytes:
    convert = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    ok, encoded = cv2.imencode(suffix, cv2.cvtColor(np.ascontiguousarray(picture), convert), list(options))
    if not ok:
        raise BadInputError(f"a picture of shape {picture.shape} cannot be shown")
    return encoded.tobytes()


def _as_webp(picture: np.ndarray) -> bytes:
    return _encode(picture, ".webp", [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])


def _shrunk(picture: np.ndarray, size: int) -> np.ndarray:
    """Return the picture with its longer side at `size`, never enlarged."""
    height, width = picture.shape[:2]
    factor = size / max(height, width)
    if factor >= 1:
        return picture
    return cv2.resize(picture, (max(1, round(width * factor)), max(1, round(height * factor))), interpolation=cv2.INTER_AREA)


def cached(function: Callable[..., bytes]) -> Callable[..., bytes]:
    """Keep the last 4,096 encoded pictures (about 40 MB): blobs never change, so neither do these."""
    return lru_cache(maxsize=4096)(function)


@cached
def _thumbnail(root: Path, blob: str, size: int) -> bytes:
    # JPEG: 0.2 ms at 256 px, WebP takes 6 ms, which a scroll through a large grid waits for.
    return _encode(_shrunk(BlobStore(root).image(blob), size), ".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


@cached
def _mask(root: Path, label_map: str, classes: Classes, size: int, hatched: bool) -> bytes:
    labels = BlobStore(root).label_map(label_map)
    factor = min(1.0, size / max(labels.shape))
    small = masks.fit_to(labels, size=(max(1, round(labels.shape[0] * factor)), max(1, round(labels.shape[1] * factor))))
    picture = masks.colorize(small, classes, hatched=hatched)
    return _encode(picture, ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101])  # above 100 = lossless


@cached
def _outline(root: Path, label_map: str, classes: Classes, size: int, like: str | None) -> bytes:
    labels = BlobStore(root).label_map(label_map)
    height, width = labels.shape if like is None else BlobStore(root).image(like).shape[:2]
    factor = size / max(height, width)
    large = masks.fit_to(labels, size=(max(1, round(height * factor)), max(1, round(width * factor))))
    return _encode(masks.outline(large, classes, width_px=max(2, round(size / 250))), ".png")


@cached
def _overlay(root: Path, image_blob: str, label_map: str, classes: Classes, size: int, hatched: bool) -> bytes:
    picture = _shrunk(BlobStore(root).image(image_blob), size)
    labels = masks.fit_to(BlobStore(root).label_map(label_map), size=picture.shape[:2])
    return _as_webp(masks.overlay(picture, labels, classes, opacity=0.4, outline_px=1, hatched=hatched))


@cached
def _disagreement(root: Path, asked: str, predicted: str, classes: Classes, size: int) -> bytes:
    seen = BlobStore(root).label_map(predicted)
    wanted = masks.fit_to(BlobStore(root).label_map(asked), size=seen.shape)
    return _encode(_shrunk(masks.disagreement(wanted, seen, classes), size), ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101])
