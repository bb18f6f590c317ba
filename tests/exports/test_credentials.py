"""Content credentials: valid for their readers, gone without a trace when taken off, and looked for by verify."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from saadi.errors import BadInputError
from saadi.exports import credentials
from saadi.exports.credentials import Signer, problem_with, without_credentials
from saadi.exports.manifest import sha256
from saadi.exports.marks import SYNTHETIC, mark
from saadi.exports.residue import residues
from saadi.exports.verify import verify_export
from saadi.store import Store
from saadi.store.blobs import encode_png
from tests.exports.builders import export, full_project, order_export

_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
           "crl_sign", "encipher_only", "decipher_only")  # fmt: skip


def certificate(subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, signed_by: ec.EllipticCurvePrivateKey, *,
                is_authority: bool) -> bytes:  # fmt: skip
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "test")])
             for one in (subject, issuer)]  # fmt: skip
    begins = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    wanted = ("key_cert_sign", "crl_sign") if is_authority else ("digital_signature",)
    built = (x509.CertificateBuilder(issuer_name=names[1], subject_name=names[0], public_key=key.public_key(),
                                     serial_number=x509.random_serial_number(), not_valid_before=begins,
                                     not_valid_after=begins + datetime.timedelta(days=36500))
             .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
             .add_extension(x509.KeyUsage(**{name: name in wanted for name in _USAGES}), critical=True)
             .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signed_by.public_key()), critical=False)
             .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False))  # fmt: skip
    if not is_authority:
        built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return built.sign(signed_by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of a site with the authority above it, and its key."""
    folder = tmp_path_factory.mktemp("pems")
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(certificate("site", own, "authority", authority, is_authority=False)
                      + certificate("authority", authority, "authority", authority, is_authority=True))  # fmt: skip
    key.write_bytes(own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                      serialization.NoEncryption()))  # fmt: skip
    return chain, key


@pytest.fixture
def png() -> bytes:
    return mark(encode_png(np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)), "synthetic")


def test_credentials_say_what_made_the_image_and_come_off_again(png: bytes, pems: tuple[Path, Path]) -> None:
    signed = Signer(*pems).sign(png, "synthetic", name="synthetic-000001")
    told = json.loads(c2pa.Reader("image/png", io.BytesIO(signed)).json())
    active = told["manifests"][told["active_manifest"]]
    [action] = active["assertions"][0]["data"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", SYNTHETIC)
    assert active["title"] == "synthetic-000001" and active["claim_generator_info"][0]["name"] == "SAADi Studio"
    assert problem_with(signed) is None and without_credentials(signed) == png and len(signed) < len(png) + 5000
    assert problem_with(png) == "the image lacks its content credentials"
    place = signed.index(b"IDAT") + 40
    changed = signed[:place] + bytes([signed[place] ^ 1]) + signed[place + 1 :]
    assert problem_with(changed) == "the content credentials do not fit the image"


@pytest.mark.parametrize("format", ["folders", "nnunet"])
def test_an_export_with_credentials_is_verified(
    tmp_path: Path, store: Store, pems: tuple[Path, Path], format: str
) -> None:
    chain, key = pems
    project, out = full_project(store), tmp_path / "out"
    job = export(store, project, out, format=format, credentials=str(chain), credentials_key=str(key))
    assert job.state == "done", job.error
    assert verify_export(out, store=store) == []
    rows = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    signed = {row["kind"]: (out / row["image"]).read_bytes().count(b"caBX") for row in rows}
    assert signed == {"real": 0, "synthetic": 1}
    known = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert residues(out, known, with_credentials=True) == []
    assert {one.what for one in residues(out, known)} == {("caBX",)}
    # Taken off by somebody, with hashes put right: the manifest says that they belong there.
    row = next(row for row in rows if row["kind"] == "synthetic")
    plain = without_credentials((out / row["image"]).read_bytes())
    (out / row["image"]).write_bytes(plain)
    items = (out / "items.jsonl").read_text().replace(row["image_sha256"], sha256(plain))
    (out / "items.jsonl").write_text(items)
    manifest = json.loads((out / "manifest.json").read_text()) | {"items_sha256": sha256(items.encode())}
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert f"{row['name']}: the image lacks its content credentials" in verify_export(out)


def test_keys_that_do_not_fit_end_the_export_before_it_begins(tmp_path: Path, store: Store, pems: tuple[Path, Path]) -> None:
    chain, _ = pems
    other = tmp_path / "other.pem"
    other.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
    for wrong, words in (((chain, other), "do not sign together"), ((chain, tmp_path / "gone.pem"), "cannot be read"),
                         ((chain, Path(__file__)), "is no PEM file")):  # fmt: skip
        with pytest.raises(BadInputError, match=words):
            Signer(*wrong)
    project = full_project(store)
    job = export(store, project, tmp_path / "out", format="folders", credentials=str(chain), credentials_key=str(other))
    assert job.state == "failed" and "do not sign together" in (job.error or "") and not (tmp_path / "out").exists()
    with pytest.raises(BadInputError, match="name both files, or neither"):
        order_export(store, project, tmp_path / "out", format="folders", credentials=str(chain))


def test_without_the_library_they_are_refused_in_a_sentence(pems: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "c2pa", None)
    with pytest.raises(BadInputError, match="pip install c2pa-python"):
        Signer(*pems)
    assert credentials.problem_with(encode_png(np.zeros((16, 16), np.uint8))) == "the image lacks its content credentials"
