"""Content credentials (C2PA) in exported synthetic and edited images, on request: a signed statement of what made a file.

A chunk `caBX` of some 3 kB a PNG, made by c2pa-python (MIT or Apache-2.0, optional) with a certificate and key of the site;
pixels and all other bytes stay as they are. Signatures have a random number in them, so such an export is not the same twice. A
certificate that no list of trust knows makes them valid and untrusted, which readers say.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

from saadi.config import VERSION
from saadi.decoding_formats import PNG_SIGNATURE
from saadi.errors import BadInputError
from saadi.exports.manifest import PROGRAM

CHUNK = b"caBX"
_MAX_PEM_BYTES = 2**20
_SOURCES = {"synthetic": "TRAINED_ALGORITHMIC_MEDIA", "composite": "COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA"}
_ALGORITHMS = ("ES256", "ES384", "ES512", "PS256", "ED25519")


class Signer:
    """Signs images with one certificate."""

    def __init__(self, chain: Path, key: Path) -> None:
        """From the certificate with those above it, and its private key, both PEM.

        Raises:
            BadInputError: c2pa-python is not installed, a file is missing, or they do not belong together.
        """
        self._library = _library()
        parts = [_pem(path, what) for path, what in ((chain, "the certificates"), (key, "the private key"))]
        for name in _ALGORITHMS:
            try:
                info = self._library.C2paSignerInfo(alg=getattr(self._library.C2paSigningAlg, name), sign_cert=parts[0],
                                                    private_key=parts[1], ta_url=None)  # fmt: skip
                self._signer = self._library.Signer.from_info(info)
                self.sign(_PROBE, "synthetic", name="probe")
                return
            except self._library.C2paError:
                continue
        raise BadInputError("the certificate and the key do not sign together; C2PA wants an end certificate for digital "
                            "signatures (key usage digitalSignature, e.g. for e-mail) with those above it in one file")

    def sign(self, png: bytes, kind: str, *, name: str) -> bytes:
        """The PNG with its credentials.

        Args:
            kind: 'synthetic' or 'composite'.
            name: Of the item, as in the manifest.
        """
        library = self._library
        context = library.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})  # which would hold the pixels again
        builder = library.Builder({"claim_generator_info": [{"name": PROGRAM, "version": VERSION}], "title": name},
                                  context=context)  # fmt: skip
        builder.set_intent(library.C2paBuilderIntent.CREATE, getattr(library.C2paDigitalSourceType, _SOURCES[kind]))
        signed = io.BytesIO()
        builder.sign(self._signer, "image/png", io.BytesIO(png), signed)
        return signed.getvalue()


def without_credentials(png: bytes) -> bytes:
    """The bytes before `Signer.sign`."""
    place, parts = len(PNG_SIGNATURE), [png[: len(PNG_SIGNATURE)]]
    while place + 12 <= len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        if kind != CHUNK:
            parts.append(png[place : place + 12 + length])
        place += 12 + length
    return b"".join((*parts, png[place:]))


def problem_with(png: bytes) -> str | None:
    """What is wrong with the credentials of a PNG; None = they hold, or c2pa-python is not there to ask."""
    if without_credentials(png) == png:
        return "the image lacks its content credentials"
    try:
        library = _library()
    except BadInputError:
        return None
    try:
        state = library.Reader("image/png", io.BytesIO(png)).get_validation_state()
    except library.C2paError:
        state = "Invalid"
    return None if str(state) in ("Valid", "Trusted") else "the content credentials do not fit the image"


def _pem(path: Path, what: str) -> bytes:
    try:
        with path.expanduser().open("rb") as stream:
            content = stream.read(_MAX_PEM_BYTES)
    except OSError as error:
        raise BadInputError(f"{what} in {path.name!r} cannot be read ({error.strerror}); choose a PEM file") from error
    if b"-----BEGIN" not in content:
        raise BadInputError(f"{path.name!r} is no PEM file; {what} of the site were expected")
    return content


def _library() -> Any:
    try:
        import c2pa  # type: ignore[import-untyped]
    except ImportError as error:
        raise BadInputError("content credentials are made by c2pa-python, which is not installed; run `pip install c2pa-python`, "
                            "or leave them out") from error  # fmt: skip
    return c2pa


_PROBE = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010800000000"
                       "3a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082")  # fmt: skip
"""A PNG of one black pixel."""
