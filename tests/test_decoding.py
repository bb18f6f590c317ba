"""One decode function: what is accepted, what is refused, and that nothing else ever comes out of it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, TiffImagePlugin

from saadi.config import MAX_FILE_BYTES
from saadi.decoding import COLOUR_BIT, decode_image, decode_mask, display_name, parse_value, value_name
from saadi.errors import BadImageError, BadInputError, UnknownClassError

SIDE = 24
RGB = np.random.default_rng(7).integers(0, 256, (SIDE, SIDE + 8, 3), dtype=np.uint8)
GREY = (np.arange(SIDE * SIDE) % 3).astype(np.uint8).reshape(SIDE, SIDE)


def saved(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    return pillow(Image.fromarray(array), kind, **options)


def pillow(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def header_only(width: int, height: int, *, depth: int = 8, colour: int = 0, rest: bytes = b"") -> bytes:
    body = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body) + rest + chunk(b"IEND", b"")


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


def with_chunk(extra: bytes) -> bytes:
    png = saved(RGB)
    return png[:33] + extra + png[33:]


def frames(kind: str, number: int = 3) -> bytes:
    pictures = [Image.fromarray(np.full((SIDE, SIDE, 3), 50 * index, np.uint8)) for index in range(number)]
    return pillow(pictures[0], kind, save_all=True, append_images=pictures[1:])


def deep_png(colour: int) -> bytes:
    channels = {0: 1, 2: 3}[colour]
    rows = b"".join(b"\0" + bytes(SIDE * 2 * channels) for _ in range(SIDE))
    return header_only(SIDE, SIDE, depth=16, colour=colour, rest=chunk(b"IDAT", zlib.compress(rows)))


def deep_rgb_tiff() -> bytes:
    """48 bits a pixel, one strip; Pillow reduces it to 8 bits a sample without a word."""
    size = SIDE * SIDE * 6
    entries = [
        (256, 3, 1, SIDE),
        (257, 3, 1, SIDE),
        (258, 3, 3, 134),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 140),
        (277, 3, 1, 3),
        (278, 3, 1, SIDE),
        (279, 4, 1, size),
    ]
    directory = (
        struct.pack("<H", len(entries))
        + b"".join(
            struct.pack("<HHI", tag, kind, count)
            + (struct.pack("<HH", value, 0) if kind == 3 and count == 1 else struct.pack("<I", value))
            for tag, kind, count, value in entries
        )
        + struct.pack("<I", 0)
    )
    return (b"II*\0" + struct.pack("<I", 8) + directory).ljust(134, b"\0") + struct.pack("<HHH", 16, 16, 16) + bytes(size)


def tagged_tiff(compression: str) -> bytes:
    return saved(GREY, "TIFF", compression=compression)


PNG, JPEG = saved(RGB), saved(RGB, "JPEG")

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "C01 empty": (lambda: b"", "is empty"),
    "C02 one byte": (lambda: b"\x89", "not a PNG, JPEG"),
    "C03 PNG cut in half": (lambda: PNG[: len(PNG) // 2], "damaged or cut off"),
    "C05 flipped pixel byte": (lambda: flipped(PNG, len(PNG) // 2), "checksum"),
    "C06 bad header checksum": (lambda: flipped(PNG, 30), "checksum"),
    "C07 width 0": (lambda: header_only(0, SIDE), "0 x 24"),
    "C08 no pixel chunk": (lambda: header_only(SIDE, SIDE), "damaged"),
    "C08 too few rows": (lambda: header_only(SIDE, SIDE, rest=chunk(b"IDAT", zlib.compress(bytes(SIDE + 1)))), "damaged"),
    "C09 2^31 square": (lambda: header_only(2**31 - 1, 2**31 - 1), "larger than 8192"),
    "C10 50,000 square, one bit": (lambda: header_only(50_000, 50_000, depth=1), "larger than 8192"),
    "C12 12,000 square": (lambda: header_only(12_000, 12_000), "larger than 8192"),
    "C12 8192 square": (lambda: header_only(8192, 8192), "million"),
    "C12 BMP of 30,000 square": (
        lambda: saved(RGB, "BMP")[:18] + struct.pack("<ii", 30_000, 30_000) + saved(RGB, "BMP")[26:],
        "8192",
    ),
    "C13 100,000 x 1": (lambda: header_only(100_000, 1), "larger than 8192"),
    "C14 1 x 1": (lambda: saved(RGB[:1, :1]), "outside 16..8192"),
    "C16 16-bit grey": (lambda: deep_png(0), "16-bit.*8 bit"),
    "C16 16-bit RGB": (lambda: deep_png(2), "16-bit.*8 bit"),
    "C16 16-bit RGB TIFF": (deep_rgb_tiff, "16-bit.*8 bit"),
    "C17 float TIFF of NaN": (lambda: saved(np.full((SIDE, SIDE), np.nan, np.float32), "TIFF"), "floating-point.*8 bit"),
    "C18 float TIFF": (lambda: saved(np.full((SIDE, SIDE), 0.5, np.float32), "TIFF"), "floating-point.*8 bit"),
    "C30 zTXt bomb": (lambda: with_chunk(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80 * 2**20), 9))), "damaged"),
    "C31 animated PNG": (lambda: frames("PNG"), "holds 3 pictures"),
    "C31 animation header that Pillow only warns of": (lambda: with_chunk(chunk(b"acTL", bytes(8))), "damaged"),
    "C32 animated GIF": (lambda: frames("GIF"), "GIF"),
    "C32 animated WebP": (lambda: frames("WEBP"), "holds 3 pictures"),
    "C33 four-page TIFF": (lambda: frames("TIFF", 4), "holds 4 pictures"),
    "C34 SVG with script": (
        lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>',
        "SVG",
    ),
    "C35 SVG with entity": (lambda: b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>', "SVG"),
    "C36 HTML": (lambda: b"<html><script>alert(1)</script></html>", "web page"),
    "C37 EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n", "PostScript"),
    "C38 PDF": (lambda: b"%PDF-1.7\n", "PDF"),
    "C39 ELF": (lambda: b"\x7fELF" + bytes(60), "program"),
    "C40 zip": (lambda: b"PK\x03\x04" + bytes(60), "zip"),
    "C41 DICOM": (lambda: bytes(128) + b"DICM" + bytes(60), "DICOM.*folder of their own"),
    "C41 DICOM with TIFF preamble": (lambda: b"II*\0" + bytes(124) + b"DICM", "DICOM"),
    "C42 NumPy": (lambda: b"\x93NUMPY\x01\0" + bytes(60), "NumPy"),
    "C45 JPEG cut": (lambda: JPEG[: len(JPEG) // 2], "damaged or cut off"),
    "C47 above 25 MB": (lambda: PNG + bytes(MAX_FILE_BYTES), "25 MB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_images_are_refused_in_one_sentence(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(BadImageError, match=message) as caught:
        decode_image(make(), name="/patients/../DOE_JANE/\x1b[31mframe\u202e.png")
    text = str(caught.value)
    assert "/" not in text.replace("8192 x", "") and "\x1b" not in text and "\u202e" not in text and "patients" not in text
    assert "\n" not in text and len(text) < 220 and ";" in text


@pytest.mark.parametrize("case", [case for case in REFUSED if not case.startswith("C47")])
def test_bad_masks_are_refused_like_images(case: str) -> None:
    with pytest.raises(BadImageError):
        decode_mask(REFUSED[case][0](), name="mask.png")


def test_png_without_its_end_mark_is_accepted_with_a_note() -> None:  # C04
    decoded = decode_image(PNG[:-12], name="a.png")
    assert np.array_equal(decoded.pixels, RGB) and "end mark" in decoded.notes[0]


def test_odd_sizes_keep_every_pixel() -> None:  # C15
    odd = np.random.default_rng(1).integers(0, 256, (77, 101, 3), dtype=np.uint8)
    assert np.array_equal(decode_image(saved(odd), name="a.png").pixels, odd)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_same_pixels(kind: str) -> None:
    assert np.array_equal(decode_image(saved(RGB, kind), name="a").pixels, RGB)


def test_one_bit_and_palette_images_become_rgb() -> None:  # C19, C20
    one_bit = decode_image(pillow(Image.fromarray(RGB).convert("1")), name="a")
    palette = decode_image(pillow(Image.fromarray(RGB).quantize(4)), name="a")
    assert set(np.unique(one_bit.pixels)) <= {0, 255} and one_bit.notes == ("1-bit picture converted",)
    assert palette.pixels.shape == RGB.shape and palette.notes == ("palette converted",)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_become_black(mode: str) -> None:  # C23, C24
    picture = Image.fromarray(np.full((SIDE, SIDE, 3), 200, np.uint8)).convert(mode)
    picture.putalpha(Image.fromarray(np.pad(np.full((SIDE, SIDE // 2), 255, np.uint8), ((0, 0), (SIDE // 2, 0)))))
    decoded = decode_image(pillow(picture), name="a")
    assert decoded.pixels[0, 0].tolist() == [0, 0, 0] and decoded.pixels[0, -1].tolist() == [200, 200, 200]
    assert decoded.notes == ("alpha flattened on black",)


def test_opaque_alpha_changes_nothing() -> None:
    decoded = decode_image(pillow(Image.fromarray(RGB).convert("RGBA")), name="a")
    assert np.array_equal(decoded.pixels, RGB) and decoded.notes == ()


@pytest.mark.parametrize("profile", [b"", b"garbage"])
def test_cmyk_is_converted_with_a_note(profile: bytes) -> None:  # C25, C44
    picture = Image.new("CMYK", (SIDE, SIDE), (0, 0, 0, 0))
    decoded = decode_image(pillow(picture, "JPEG", **({"icc_profile": profile} if profile else {})), name="a")
    assert decoded.pixels.min() > 250 and decoded.notes[0] == "CMYK converted"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(kind: str) -> None:  # C26
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = np.zeros((SIDE, SIDE + 16, 3), np.uint8)
    picture[:, : SIDE // 2] = 255
    decoded = decode_image(saved(picture, kind, exif=exif.tobytes()), name="a")
    assert decoded.pixels.shape == (SIDE + 16, SIDE, 3) and decoded.notes == ("turned upright by EXIF",)
    assert decoded.pixels[0].mean() > 200 and decoded.pixels[-1].mean() < 50  # left became top


def test_senseless_exif_orientation_is_ignored() -> None:  # C27
    exif = Image.Exif()
    exif[0x0112] = 99
    decoded = decode_image(saved(RGB, exif=exif.tobytes()), name="a")
    assert np.array_equal(decoded.pixels, RGB) and decoded.notes == ()


def test_names_in_metadata_are_no_pixels() -> None:  # C28, C29, C44
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", "DOE, JANE")
    decoded = decode_image(saved(RGB, pnginfo=info, icc_profile=b"garbage"), name="a")
    assert np.array_equal(decoded.pixels, RGB)


def test_a_tail_behind_the_picture_is_dropped() -> None:  # C43
    decoded = decode_image(PNG + b"<script>alert(1)</script>", name="a")
    assert np.array_equal(decoded.pixels, RGB) and "dropped" in decoded.notes[0]


def test_grey_masks_keep_their_values() -> None:
    for kind, options in (("PNG", {}), ("BMP", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})):
        mask = decode_mask(saved(GREY * 70, kind, **options), name="m")
        assert np.array_equal(mask.pixels, GREY * 70), kind
    assert mask.counts() == {0: 192, 70: 192, 140: 192}


def test_palette_masks_are_read_as_indices() -> None:  # C21, C22
    picture = Image.fromarray(GREY * 3)
    picture.putpalette([channel for index in range(256) for channel in (255 - index, index // 2, 17)])
    ways: tuple[dict[str, Any], ...] = ({}, {"transparency": 0}, {"bits": 4})
    for options in ways:
        assert np.array_equal(decode_mask(pillow(picture, **options), name="m").pixels, GREY * 3)


def test_one_bit_masks_are_0_and_255() -> None:
    assert decode_mask(pillow(Image.fromarray(GREY > 0)), name="m").counts() == {0: 192, 255: 384}


def test_grey_in_three_channels_is_reduced_to_one() -> None:
    mask = decode_mask(saved(np.repeat(GREY[..., None], 3, axis=2)), name="m")
    assert np.array_equal(mask.pixels, GREY) and mask.colours is None


def test_colour_masks_keep_one_value_per_colour_in_every_file() -> None:
    red, blue = COLOUR_BIT | 0xFF0000, COLOUR_BIT | 0x0000FF
    colours = np.zeros((SIDE, SIDE, 3), np.uint8)
    colours[:4, :, 0], colours[4:6, :, 2] = 255, 255
    assert decode_mask(saved(colours), name="m").counts() == {0: 18 * SIDE, blue: 2 * SIDE, red: 4 * SIDE}
    assert decode_mask(saved(np.roll(colours, 1, axis=2) // 255 * 255), name="m").counts()[0] == 18 * SIDE
    mapped = decode_mask(saved(colours), name="m").mapped({0: 0, red: 2, blue: 1})
    assert mapped[0, 0] == 2 and mapped[5, 0] == 1 and mapped[-1, 0] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: saved(GREY, "JPEG"), "saved with loss"),  # C72
        (lambda: saved(GREY, "WEBP", quality=50), "saved with loss"),
        (lambda: tagged_tiff("jpeg"), "saved with loss"),
        (lambda: pillow(Image.new("CMYK", (SIDE, SIDE)), "TIFF"), "CMYK"),
        (lambda: pillow(Image.new("RGBA", (SIDE, SIDE), (1, 1, 1, 100))), "transparent"),
        (lambda: saved(RGB), "colours, a mask has at most 256"),
        (lambda: saved(GREY.astype(np.float32) / 2, "TIFF"), "floating-point"),  # C70, C71
    ],
)
def test_masks_whose_values_cannot_be_trusted_are_refused(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(BadImageError, match=message):
        decode_mask(make(), name="m.png")


def test_a_value_without_class_never_becomes_background() -> None:  # C66, C73
    mask = decode_mask(saved(GREY), name="m")
    with pytest.raises(UnknownClassError, match=r"value 2 \(192 pixels\) has no class; known values are 0, 1"):
        mask.mapped({0: 0, 1: 1})
    assert np.array_equal(mask.mapped({0: 0, 1: 1, 2: 255}), np.where(GREY == 2, 255, GREY))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/x.png", "'x.png'"),
        ("..\\..\\x.png", "'x.png'"),
        ("a" * 300 + ".png", "'" + "a" * 27 + "…" + "a" * 8 + ".png'"),
        ("\u202egnp.exe", "'gnp.exe'"),
        ("a\x00b\n.png", "'ab.png'"),
        ("", "this file"),
        ("e\u0301.png", "'\u00e9.png'"),
        ("\udcff.png", "'.png'"),
    ],
)
def test_names_are_shown_short_and_harmless(name: str, shown: str) -> None:  # C82-C86
    assert display_name(name) == shown


@given(
    st.integers(0, 255)
    | st.integers(0, 0xFFFFFF)
    .map(lambda rgb: COLOUR_BIT | rgb)
    .filter(lambda value: len({value & 0xFF, value >> 8 & 0xFF, value >> 16 & 0xFF}) > 1)
)
def test_values_read_back_as_they_are_written(value: int) -> None:
    assert parse_value(value_name(value)) == value


@pytest.mark.parametrize("text", ["256", "-1", "#12345", "red", "", "٣"])
def test_other_words_are_no_mask_values(text: str) -> None:
    with pytest.raises(BadInputError, match="mask value"):
        parse_value(text)


SEEDS = [
    PNG,
    JPEG,
    saved(RGB, "TIFF"),
    saved(RGB, "WEBP"),
    saved(RGB, "BMP"),
    tagged_tiff("tiff_lzw"),
    frames("PNG"),
    frames("TIFF"),
]


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6), st.integers(0, 4000))
def test_any_bytes_give_pixels_or_one_refusal(seed: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(seed)
    for position, value in changes:
        data[position % len(data)] = value
    data = data[:cut] if cut % 3 == 0 else data
    for decode in (decode_image, decode_mask):
        try:
            pixels = decode(bytes(data), name="fuzz").pixels
        except BadImageError:
            continue
        assert pixels.dtype == np.uint8 and min(pixels.shape[:2]) >= 16


def test_decoding_leaves_the_warning_filters_alone() -> None:
    import warnings

    before = list(warnings.filters)
    for make, _ in list(REFUSED.values())[:8]:
        with pytest.raises(BadImageError):
            decode_image(make(), name="a")
    assert warnings.filters == before and TiffImagePlugin.READ_LIBTIFF is False
