"""Intel's collateral in the forms in which people keep it, read from ``EndorsementSet.documents`` (evidence 3.2).

* What the certification service serves: ``{"tcbInfo": {...}, "signature": hex}``, ``{"enclaveIdentity": {...}, ...}``.
* Bundles: one object of texts, with signed documents, their signatures, PEM chains, and CRLs (DER in hex, or PEM).

Certificates and CRLs of bundles join those of the set; nothing is believed for where it stood, so a chain that a bundle
calls ``tcb_info_issuer_chain`` is just certificates. Documents of other kinds are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from adyton.crypto.x509 import Certificate, Crl, EndorsementSet
from adyton.errors import EndorsementError, EndorsementMalformed
from adyton.tee.dcap import signed_json
from adyton.tee.dcap.signed_json import Signed
from adyton.wire import b64, strict_json

MAX_CERTIFICATES = 32  # of one text

_SERVED = {"tcbInfo", "enclaveIdentity"}
_BUNDLED = {
    "tcb_info": ("tcbInfo", "tcb_info_signature"),
    "qe_identity": ("enclaveIdentity", "qe_identity_signature"),
}
_CHAINS = ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_certificate_chain")
_CRLS = ("root_ca_crl", "pck_crl")
_MARKS = (b'"tcbInfo"', b'"enclaveIdentity"', b'"tcb_info"', b'"qe_identity"', b'"pck_crl"', b'"root_ca_crl"')
_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----[ \t]*\r?\n([A-Za-z0-9+/=\r\n]+)-----END \1-----[ \t\r\n]*")
_TEXT: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)


class Collateral(NamedTuple):
    """All that a set has for DCAP: its certificates and CRLs with those of its bundles, and what is signed in it."""

    pool: EndorsementSet
    signed: tuple[Signed, ...]


class Reader:
    """Reads texts of certificates, each certificate once: chains repeat their issuers over and over."""

    def __init__(self, known: Iterable[Certificate] = ()) -> None:
        self._known = {certificate.der: certificate for certificate in known}
        self._texts: dict[bytes, Certificate] = {}

    def certificates(self, text: bytes) -> list[Certificate]:
        """The certificates of a PEM text and nothing else, in their order; ``EndorsementMalformed``."""
        found = []
        for kind, body in blocks(text):
            if kind != b"CERTIFICATE":
                raise _malformed("something else than a certificate in a chain")
            certificate = self._texts.get(body)
            if certificate is None:
                encoded = decoded(body)
                certificate = self._known.get(encoded) or Certificate(encoded)
                self._known[encoded] = self._texts[body] = certificate
            found.append(certificate)
        return found


def blocks(text: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and base64 of each PEM block; ``EndorsementMalformed`` if there is anything beside them, or nothing."""
    found: list[tuple[bytes, bytes]] = []
    offset = len(text) - len(text.lstrip())
    end = len(text.rstrip(b"\0"))
    while offset < end:
        match = _PEM.match(text, offset, end)
        if match is None or len(found) == MAX_CERTIFICATES:
            raise _malformed("not a PEM text of certificates or CRLs")
        found.append((match[1], match[2]))
        offset = match.end()
    if not found:
        raise _malformed("an empty PEM text")
    return found


def decoded(body: bytes) -> bytes:
    """The DER in a PEM block's base64."""
    try:
        return b64.decode(body.translate(None, b"\r\n").decode("ascii"))
    except ValueError as error:
        raise _malformed("PEM with broken base64") from error


def collect(endorsements: EndorsementSet, reader: Reader, more: Iterable[Certificate] = ()) -> Collateral:
    """All that ``endorsements`` has, and ``more`` certificates. ``EndorsementMalformed`` if collateral cannot be read."""
    signed: list[Signed] = []
    certificates = list(more)
    crls: list[Crl] = []
    for document in endorsements.documents:
        if not any(mark in document for mark in _MARKS):
            continue
        try:
            found = signed_json.members(document)
            if served := _SERVED & found.keys():
                signed += [_signed(name, found[name], found["signature"]) for name in served]
            else:
                _bundle(found, signed, certificates, crls, reader)
        except EndorsementError:
            raise
        except KeyError as error:
            raise _malformed(f"collateral without its {error.args[0]}") from error
        except strict_json.UNREADABLE as error:
            raise _malformed(f"collateral that cannot be read: {error}") from error
    pool = endorsements.plus(certificates, crls) if certificates or crls else endorsements
    return Collateral(pool, tuple(signed))


def _signed(name: str, content: bytes, signature: bytes) -> Signed:
    return Signed(name, content, signed_json.hexadecimal(_TEXT.decode(signature), 64, name))


def _bundle(
    found: dict[str, bytes], signed: list[Signed], certificates: list[Certificate], crls: list[Crl], reader: Reader
) -> None:
    for member, (name, signature) in _BUNDLED.items():
        if member in found:
            text = _TEXT.decode(found[member]).encode()
            inner = signed_json.members(text)
            if name in inner:  # as served, whole
                signed.append(_signed(name, inner[name], inner["signature"]))
            else:
                signed.append(_signed(name, text.strip(), found[signature]))
    for member in _CHAINS:
        if member in found and (chain := _optional(found[member])):
            certificates += reader.certificates(chain.encode())
    for member in _CRLS:
        if member in found and (crl := _optional(found[member])):
            crls += _crls(crl)


def _optional(raw: bytes) -> str:
    return "" if raw == b"null" else _TEXT.decode(raw)


def _crls(text: str) -> list[Crl]:
    if text.startswith("-----BEGIN"):
        return [Crl(decoded(body)) for kind, body in blocks(text.encode()) if kind == b"X509 CRL"]
    try:
        return [Crl(bytes.fromhex(text))]
    except ValueError as error:
        raise _malformed("a CRL that is neither DER in hex nor PEM") from error


def _malformed(reason: str) -> EndorsementMalformed:
    return EndorsementMalformed(reason, code="collateral_malformed", field="collateral", spec="evidence 3.2")
