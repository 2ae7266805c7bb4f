"""Roots that bear Intel's key and are not Intel's certificates, byte for byte: nothing they say counts."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adyton import tee
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.devtee.dcap import DcapForge, sgx_body, td_body
from adyton.errors import AdytonError
from adyton.rats.types import Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.dcap import roots
from adyton.tee.dcap.quote import Quote

pytestmark = pytest.mark.vectors
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CASE = "sgx-v3-00606a-icelake-automata-2025-08-15-ev17"
(INTEL,) = [root for root in roots.BY_DER.values() if root.not_after.year == 2049]


def pem(encoded: bytes) -> bytes:
    text = base64.encodebytes(encoded).replace(b"\n", b"")
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"-----BEGIN CERTIFICATE-----\n" + b"\n".join(lines) + b"\n-----END CERTIFICATE-----"


def changed(old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert INTEL.der.count(old) == 1
    return INTEL.der.replace(old, new)


# Each would let something more pass than Intel's does, if anybody believed it.
WIDER = {
    "an end that never comes": changed(b"491231235959Z", b"491231235958Z"),
    "an earlier begin": changed(b"180521104510Z", b"080521104510Z"),
    "authorities without number below it": changed(
        bytes.fromhex("30060101ff020101"), bytes.fromhex("30060101ff020107")
    ),
    "another place for its CRL": changed(b"https://certificates", b"https://certificatez"),
    "keys for everything": changed(bytes.fromhex("03020106"), bytes.fromhex("030201fe")),
    "another signature": INTEL.der[:-1] + bytes((INTEL.der[-1] ^ 1,)),
}


class Given:
    """A real quote and its collateral, in both of which the root can be exchanged."""

    def __init__(self, manifest: dict[str, Any], vectors: Path) -> None:
        case = next(case for case in manifest["cases"] if case["id"] == CASE)
        self.quote = (vectors / case["files"]["quote"]).read_bytes()
        self.collateral = (vectors / case["files"]["collateral"]).read_bytes()
        self.now = datetime.fromisoformat(case["reference_time"])
        assert Quote.parse(self.quote).certification_data.count(pem(INTEL.der)) == 1

    def with_root(self, root: bytes) -> tuple[bytes, bytes]:
        quote = Quote.parse(self.quote)
        chain = quote.certification_data.replace(pem(INTEL.der), pem(root))
        texts = {
            name: value.replace(pem(INTEL.der).decode(), pem(root).decode()) if isinstance(value, str) else value
            for name, value in json.loads(self.collateral).items()
        }
        return type(quote)(**{**_fields(quote), "certification_data": chain}).encode(), json.dumps(texts).encode()

    def verify(self, quote: bytes, *endorsements: bytes, **options: Any) -> VerifiedEvidence:
        given: dict[str, Any] = {"now": self.now, "anchors": TrustAnchors()}
        return tee.verify("sgx", quote, endorsements=EndorsementSet.parse(endorsements), **(given | options))


def _fields(quote: Quote) -> dict[str, Any]:
    return {name: getattr(quote, name) for name in quote.__struct_fields__}


@pytest.fixture(scope="module")
def given(manifest: dict[str, Any], vectors: Path) -> Given:
    return Given(manifest, vectors)


@pytest.mark.parametrize("what", WIDER)
@pytest.mark.parametrize("revocation", Revocation)
def test_in_intel_s_place_it_is_refused(given: Given, what: str, revocation: Revocation) -> None:
    quote, collateral = given.with_root(WIDER[what])
    if what != "another signature":
        assert Certificate(WIDER[what]).spki_fingerprint == roots.KEY
    own = TrustAnchors(vendor=False, custom=frozenset({roots.KEY}))
    for anchors in (TrustAnchors(), own):
        with pytest.raises(AdytonError) as caught:
            given.verify(quote, collateral, anchors=anchors, revocation=revocation)
        assert caught.value.code in {"root_sig", "root_profile"}


@pytest.mark.parametrize("what", WIDER)
def test_beside_intel_s_it_changes_nothing(given: Given, what: str) -> None:
    first = given.verify(given.quote, given.collateral)
    other, collateral = given.with_root(WIDER[what])
    for quote, blobs in (
        (given.quote, (given.collateral, pem(WIDER[what]))),
        (given.quote, (pem(WIDER[what]), given.collateral)),
        (other, (given.collateral,)),
        (given.quote, (collateral,)),
    ):
        again = given.verify(quote, *blobs)
        assert again == first
        assert dict(again.claims) == dict(first.claims)
        assert dict(again.coco_claims) == dict(first.coco_claims)
        assert (again.expires, again.expires_first) == (first.expires, first.expires_first)


def test_the_same_certificate_in_other_clothes_is_the_same(given: Given) -> None:
    """DER, other lines, another issue of the same key: recognised by content, or read and checked like any other."""
    first = given.verify(given.quote, given.collateral)
    text = binascii.b2a_base64(INTEL.der, newline=False)
    one_line = b"-----BEGIN CERTIFICATE-----\n" + text + b"\n-----END CERTIFICATE-----\n"
    for blob in (INTEL.der, one_line, pem(INTEL.der).replace(b"\n", b"\r\n")):
        assert given.verify(given.quote, given.collateral, blob) == first


@pytest.mark.parametrize("name", ["sgx", "tdx"])
def test_no_signature_is_verified_twice(
    monkeypatch: pytest.MonkeyPatch, vectors: Path, manifest: Any, name: str
) -> None:
    """Nine of a real quote and its collateral; ten under a root that is nobody's, whose own signature is the tenth."""
    from adyton.crypto import algorithms, ecdsa

    verified: list[tuple[bytes, bytes]] = []
    really = ecdsa.is_signed_p256

    def counted(key: Any, signature: bytes, data: bytes) -> bool:
        verified.append((signature, data))
        return really(key, signature, data)

    for module in (algorithms, ecdsa):
        monkeypatch.setattr(module, "is_signed_p256", counted)
    case = next(case for case in manifest["cases"] if case["tee"] == name and case["kind"] == "quote-with-collateral")
    options: dict[str, Any] = {"now": datetime.fromisoformat(case["reference_time"]), "anchors": TrustAnchors()}
    collateral = EndorsementSet.parse([(vectors / case["files"]["collateral"]).read_bytes()])
    tee.verify(name, (vectors / case["files"]["quote"]).read_bytes(), endorsements=collateral, **options)
    assert len(verified) == len(set(verified)) == 9
    verified.clear()
    forge = DcapForge.new(NOW)
    quote = forge.quote(sgx_body() if name == "sgx" else td_body()).encode()
    own = TrustAnchors(vendor=False, custom=frozenset({forge.fingerprint}))
    tee.verify(name, quote, endorsements=EndorsementSet.parse(forge.collateral(name).blobs()), now=NOW, anchors=own)
    assert len(verified) == len(set(verified)) == 10
