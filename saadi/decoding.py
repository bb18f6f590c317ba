"""Every picture that comes in passes here: bytes in, checked pixels out, or one sentence that says what to do instead.

Two decoders disagree silently (16-bit ramps, EXIF turns, palettes), so there is one. What is inside the bytes decides, never the
name: an allow-list of formats, limits on the header before pixels are touched, one frame, 8 bits. Pure functions, so that
they can run in a process pool.
"""

from __future__ import annotations

import io
import struct
import threading
import unicodedata
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms, ImageOps

from saadi.config import MAX_FILE_BYTES, MAX_SIDE_PX, MIN_SIDE_PX
from saadi.decoding_formats import FORMATS, advice_for, check_pixels, check_png, is_lossy, sniff
from saadi.errors import BadImageError, BadInputError, UnknownClassError
from saadi.records import Image, LabelMap

MAX_MASK_COLOURS = 256
"""A mask with more colours was saved with loss, or is no mask."""
MAX_NAME_CHARS = 40
MASK_ADVICE = "save it as grey or palette PNG with one value per class"
COLOUR_BIT = 1 << 24
"""Marks a mask value that is a colour: COLOUR_BIT | 0xRRGGBB. Grey pixels of a colour mask keep their level 0..255."""

_ORIENTATION_TAG = 0x0112
_TURNED = "turned upright by EXIF"
_BITS_PER_SAMPLE_TAG = 258
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError,
                   EOFError, MemoryError, struct.error, zlib.error, Warning)
"""What Pillow and its codecs raise on hostile bytes; each becomes a `BadImageError` with its cause kept."""
_WARNINGS_LOCK = threading.Lock()


@dataclass(frozen=True)
class DecodedImage:
    """A picture, upright, without metadata."""

    pixels: Image
    """(H, W, 3) uint8 RGB."""
    notes: tuple[str, ...] = ()
    """What had to be changed, for people: 'turned upright by EXIF'."""


@dataclass(frozen=True)
class DecodedMask:
    """A mask with the values that its file holds; which class a value means is decided by `mapped`."""

    pixels: LabelMap
    """(H, W) uint8: grey levels, palette indices, or indices into `colours`."""
    colours: tuple[int, ...] | None = None
    """For a true-colour mask the mask value of each index (see `COLOUR_BIT`), ascending; else None."""
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[int, int]:
        """Mask value -> number of pixels, ascending; only values that occur."""
        found = np.bincount(self.pixels.ravel(), minlength=256)
        return {self._value(index): int(found[index]) for index in np.flatnonzero(found).tolist()}

    def mapped(self, values: Mapping[int, int]) -> LabelMap:
        """Return the label map in which each mask value has become its class index, (H, W) uint8.

        Raises:
            UnknownClassError: A value is missing from `values`; nothing becomes background by itself.
        """
        check_values(self.counts(), values)
        table = np.zeros(256, np.uint8)
        for index in range(256 if self.colours is None else len(self.colours)):
            table[index] = values.get(self._value(index), 0)
        return np.asarray(table[self.pixels], dtype=np.uint8)

    def _value(self, index: int) -> int:
        return index if self.colours is None else self.colours[index]


def check_values(counts: Mapping[int, int], values: Mapping[int, int]) -> None:
    """Raises: UnknownClassError: a mask value of `counts` has no class in `values`; names it and its pixels."""
    if unknown := [value for value in counts if value not in values]:
        first, known = unknown[0], ", ".join(value_name(value) for value in sorted(values)) or "none"
        rest = f" and {len(unknown) - 1} more values" if len(unknown) > 1 else ""
        raise UnknownClassError(f"mask value {value_name(first)} ({counts[first]} pixels){rest} has no class; "
                                f"known values are {known}; say which class it is, or correct the mask")


def decode_image(data: bytes, *, name: str, max_bytes: int = MAX_FILE_BYTES) -> DecodedImage:
    """Decode a picture to (H, W, 3) uint8 RGB, upright.

    Args:
        name: Only for the message of a refusal, where a shortened form appears.
        max_bytes: Larger files are refused; our own PNGs may be larger than what people bring.

    Raises:
        BadImageError: With one sentence; nothing else is raised for any bytes.
    """
    shown = display_name(name)
    with _opened(data, shown, max_bytes) as (picture, notes):
        turned = _upright(picture, notes)
        pixels = np.asarray(_to_rgb(turned, shown, notes), dtype=np.uint8)
    return DecodedImage(np.ascontiguousarray(pixels), tuple(notes))


def decode_mask(data: bytes, *, name: str, max_bytes: int = MAX_FILE_BYTES) -> DecodedMask:
    """Decode a mask to (H, W) uint8 without changing any value: palette masks give their indices.

    Raises:
        BadImageError: With one sentence; a file that was saved with loss is refused, its values cannot be trusted.
    """
    shown = display_name(name)
    with _opened(data, shown, max_bytes, lossless=True) as (picture, notes):
        turned = _upright(picture, notes)
        if turned.mode == "P":
            notes.append("palette mask read as indices")
            return DecodedMask(np.array(turned, dtype=np.uint8), None, tuple(notes))
        if turned.mode == "1":
            notes.append("1-bit mask: values 0 and 255")
            return DecodedMask(np.array(turned.convert("L"), dtype=np.uint8), None, tuple(notes))
        if turned.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
            turned = _without_alpha(turned, shown)
        if turned.mode == "L":
            return DecodedMask(np.array(turned, dtype=np.uint8), None, tuple(notes))
        if turned.mode not in ("RGB", "RGBX"):
            raise BadImageError(f"{shown} is a mask in {turned.mode} colours; {MASK_ADVICE}")
        return _colour_mask(np.asarray(turned.convert("RGB"), dtype=np.uint8), shown, notes)


def display_name(name: str) -> str:
    """The last part of a file name for messages: at most 40 characters, none that could steer a terminal or a page."""
    last = unicodedata.normalize("NFC", name.replace("\\", "/").rstrip("/").rpartition("/")[2])
    clean = "".join(char for char in last if unicodedata.category(char)[0] not in "CZ" or char == " ").strip()
    if len(clean) > MAX_NAME_CHARS:
        clean = f"{clean[:MAX_NAME_CHARS - 13]}…{clean[-12:]}"
    return f"'{clean}'" if clean else "this file"


def value_name(value: int) -> str:
    """How people write a mask value: '70', or '#ff0000' for a colour."""
    return f"#{value & 0xFFFFFF:06x}" if value & COLOUR_BIT else str(value)


def parse_value(text: str) -> int:
    """The mask value that `value_name` writes as `text`.

    Raises:
        BadInputError: Neither 0..255 nor '#rrggbb'.
    """
    word = text.strip().lower()
    digits = word[1:] if word.startswith("#") else ""
    if len(digits) == 6 and all(char in "0123456789abcdef" for char in digits):
        red, green, blue = bytes.fromhex(digits)
        return red if red == green == blue else COLOUR_BIT | int(digits, 16)
    if word.isascii() and word.isdigit() and int(word) <= 255:
        return int(word)
    raise BadInputError(f"a mask value is 0 to 255 or a colour such as #ff0000, got {word[:20]!r}")


@contextmanager
def _opened(data: bytes, shown: str, max_bytes: int, *, lossless: bool = False) -> Iterator[tuple[Pillow.Image, list[str]]]:
    """Give the loaded picture and its notes, or refuse; limits are checked on the header, before any pixel."""
    notes: list[str] = []
    kind = _allowed_format(data, shown, max_bytes)
    if lossless and is_lossy(kind, data):
        raise BadImageError(f"{shown} was saved with loss ({kind}), which changes mask values; save the mask as PNG")
    if kind == "PNG":
        notes += check_png(data, shown)
    try:
        with _pillow_warnings_as_errors(), Pillow.open(io.BytesIO(data), formats=[kind]) as picture:
            _check_header(picture, shown, lossless=lossless)
            if getattr(picture, "tag_v2", {}).get(_ORIENTATION_TAG, 1) in range(2, 9):
                notes.append(_TURNED)  # a TIFF is turned while it is loaded, and its tag is gone then
            picture.load()
            yield picture, notes
    except BadImageError:
        raise
    except Pillow.DecompressionBombError as error:
        raise BadImageError(f"{shown} is larger than {MAX_SIDE_PX} pixels on a side; scale it down first") from error
    except _DECODER_ERRORS as error:
        raise BadImageError(f"{shown} is damaged or cut off and cannot be read as {kind}; "
                            "export it again from the original") from error


def _allowed_format(data: bytes, shown: str, max_bytes: int) -> str:
    if not data:
        raise BadImageError(f"{shown} is empty (0 bytes); choose a picture")
    if len(data) > max_bytes:
        raise BadImageError(f"{shown} is larger than {max_bytes // 2**20} MB; scale it down first")
    kind = sniff(data)
    if kind is None:
        raise BadImageError(f"{shown} is {advice_for(data) or f'not a {FORMATS}; save it as PNG'}")
    return kind


def _check_header(picture: Pillow.Image, shown: str, *, lossless: bool) -> None:
    width, height = picture.size
    if min(width, height) < MIN_SIDE_PX or max(width, height) > MAX_SIDE_PX:
        raise BadImageError(f"{shown} has {width} x {height} pixels, outside {MIN_SIDE_PX}..{MAX_SIDE_PX} on a side; "
                            "scale or crop it first")
    check_pixels(width, height, shown)
    if (num_frames := getattr(picture, "n_frames", 1)) > 1:
        raise BadImageError(f"{shown} holds {num_frames} pictures, one was expected; save the frames as single files first")
    bits = _bits_per_sample(picture)
    if picture.mode in _DEEP_MODES or bits > 8:
        kind = "floating-point or 32-bit" if picture.mode in ("I", "F") or bits > 16 else "16-bit"
        raise BadImageError(f"{shown} is a {kind} picture, 8 bit were expected; export it as 8 bit first")
    if lossless and picture.mode == "CMYK":
        raise BadImageError(f"{shown} is a mask in CMYK colours; {MASK_ADVICE}")


def _bits_per_sample(picture: Pillow.Image) -> int:
    """Deepest sample of a TIFF (Pillow would reduce 16-bit RGB without a word); 8 elsewhere, PNG is checked by its header."""
    tags = getattr(picture, "tag_v2", None)
    if tags is None:
        return 8
    bits = tags.get(_BITS_PER_SAMPLE_TAG, 8)
    return max(bits) if isinstance(bits, tuple) else int(bits)


def _upright(picture: Pillow.Image, notes: list[str]) -> Pillow.Image:
    """Apply the EXIF orientation once; 1, missing or senseless values leave the picture alone."""
    if picture.getexif().get(_ORIENTATION_TAG, 1) in range(2, 9):
        notes.append(_TURNED)
    return ImageOps.exif_transpose(picture)


def _to_rgb(picture: Pillow.Image, shown: str, notes: list[str]) -> Pillow.Image:
    if picture.mode == "CMYK":
        notes.append("CMYK converted")
        return _cmyk_to_rgb(picture, notes)
    if picture.mode in ("1", "P", "PA"):
        notes.append("1-bit picture converted" if picture.mode == "1" else "palette converted")
    if picture.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        if cast(tuple[int, int], seen.getchannel("A").getextrema())[0] < 255:
            notes.append("alpha flattened on black")
        return Pillow.alpha_composite(Pillow.new("RGBA", seen.size, (0, 0, 0, 255)), seen).convert("RGB")
    if picture.mode not in ("1", "L", "P", "RGB", "RGBX", "YCbCr"):
        raise BadImageError(f"{shown} is in {picture.mode} colours, RGB was expected; save it as RGB PNG")
    return picture.convert("RGB")


def _cmyk_to_rgb(picture: Pillow.Image, notes: list[str]) -> Pillow.Image:
    profile = picture.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(picture, ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                                                  ImageCms.createProfile("sRGB"), outputMode="RGB")
            assert converted is not None, "not in place, so a picture comes back"
            return converted
        except (ImageCms.PyCMSError, OSError, TypeError):
            notes.append("unreadable colour profile dropped")
    return picture.convert("RGB")


def _without_alpha(picture: Pillow.Image, shown: str) -> Pillow.Image:
    alpha = cast(tuple[int, int], picture.getchannel(picture.getbands()[-1]).getextrema())
    if alpha[0] < 255:
        raise BadImageError(f"{shown} is a mask with transparent pixels, whose class nobody knows; save it without transparency")
    return picture.convert("L" if picture.mode in ("LA", "La") else "RGB")


def _colour_mask(rgb: Image, shown: str, notes: list[str]) -> DecodedMask:
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    grey = (red == green) & (green == blue)
    if grey.all():
        notes.append("three equal channels reduced to one")
        return DecodedMask(np.ascontiguousarray(rgb[..., 0]), None, tuple(notes))
    packed = np.where(grey, red, COLOUR_BIT | red << 16 | green << 8 | blue)
    colours, indices = np.unique(packed, return_inverse=True)
    if len(colours) > MAX_MASK_COLOURS:
        raise BadImageError(f"{shown} has {len(colours)} colours, a mask has at most {MAX_MASK_COLOURS}; "
                            "choose the mask and not the picture, saved without smoothing")
    notes.append(f"{len(colours)} colours: " + ", ".join(value_name(value) for value in colours[:8].tolist()))
    return DecodedMask(indices.reshape(packed.shape).astype(np.uint8), tuple(colours.tolist()), tuple(notes))


@contextmanager
def _pillow_warnings_as_errors() -> Iterator[None]:
    """Where Pillow would only warn (broken APNG, truncated TIFF directory), refuse.

    The filter list belongs to the process: hence the lock, and the limit to Pillow's own modules.
    """
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"PIL\.")
        yield
