"""Intel's collateral in the forms in which people keep it, read from ``EndorsementSet.documents`` (evidence 3.2).

* What the certification service serves: ``{"tcbInfo": {...}, "signature": hex}``, ``{"enclaveIdentity": {...}, ...}``.
* Bundles: one object of texts, with signed documents, their signatures, PEM chains, and CRLs (DER in hex, or PEM).

Certificates and CRLs of bundles join those of the set; nothing is believed for where it stood, so a chain that a bundle
calls ``tcb_info_issuer_chain`` is just certificates. Documents of other kinds are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from adyton.crypto.x509 import Certificate, Crl, EndorsementSet
from adyton.errors import EndorsementError, EndorsementMalformed
from adyton.tee.dcap import roots, signed_json
from adyton.tee.dcap.signed_json import Signed
from adyton.wire import b64, strict_json

MAX_CERTIFICATES = 32  # of one text

_SERVED = {"tcbInfo", "enclaveIdentity"}
_BUNDLED = (
    ("tcb_info", "tcbInfo", "tcb_info_signature"),
    ("qe_identity", "enclaveIdentity", "qe_identity_signature"),
)
_CHAINS = ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_certificate_chain")
_CRLS = ("root_ca_crl", "pck_crl")
_MARKS = (b'"root_ca_crl"', b'"pck_crl"', b'"tcbInfo"', b'"enclaveIdentity"', b'"tcb_info"', b'"qe_identity"')
_BEGIN = b"-----BEGIN CERTIFICATE-----\n"
_END = b"-----END CERTIFICATE-----"
_SPACE = frozenset(b" \t\r\n")
_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----[ \t]*\r?\n([A-Za-z0-9+/=\r\n]+)-----END \1-----[ \t\r\n]*")
_TEXT: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)


class Collateral(NamedTuple):
    """All that a set has for DCAP: its certificates and CRLs with those of its bundles, and what is signed in it.

    ``by_der``: the certificates by their encoding; ``chains``: those of a whole text.
    """

    pool: EndorsementSet
    signed: tuple[Signed, ...]
    by_der: Mapping[bytes, Certificate]
    chains: Mapping[bytes, list[Certificate]]

    def plus(self, more: Iterable[Certificate]) -> Collateral:
        """With those of ``more`` that are not there yet."""
        new = [certificate for certificate in more if certificate.der not in self.by_der]
        if not new:
            return self
        return self._replace(pool=EndorsementSet((*new, *self.pool.certificates), self.pool.crls))


class Reader:
    """Reads texts of certificates, each certificate once: chains repeat their issuers over and over."""

    def __init__(
        self, known: Mapping[bytes, Certificate] | None = None, chains: Mapping[bytes, list[Certificate]] | None = None
    ) -> None:
        self._known = known or {}
        self._texts: dict[bytes, Certificate] = {}
        self.chains = dict(chains or {})

    def certificates(self, text: bytes) -> list[Certificate]:
        """The certificates of a PEM text and nothing else, in their order; ``EndorsementMalformed``."""
        name = text.rstrip(b"\0").strip()
        found = self.chains.get(name)
        if found is None:
            found = self.chains[name] = self._read(text)
        return found

    def _read(self, text: bytes) -> list[Certificate]:
        found = []
        for kind, body in blocks(text):
            if kind != b"CERTIFICATE":
                raise _malformed("something else than a certificate in a chain")
            certificate = self._texts.get(body) or roots.BY_TEXT.get(body)
            if certificate is None:
                encoded = decoded(body)
                certificate = self._known.get(encoded) or roots.BY_DER.get(encoded) or Certificate(encoded)
                self._texts[body] = certificate
            found.append(certificate)
        return found


def blocks(text: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and base64 of each PEM block; ``EndorsementMalformed`` if there is anything beside them, or nothing."""
    found: list[tuple[bytes, bytes]] = []
    offset = len(text) - len(text.lstrip())
    end = len(text.rstrip(b"\0"))
    while offset < end:
        begin = offset + len(_BEGIN)
        last = text.find(_END, begin, end) if text.startswith(_BEGIN, offset) else -1
        if last > begin:  # as nearly always; what is no base64 in it shows when it is decoded
            found.append((b"CERTIFICATE", text[begin:last]))
            offset = last + len(_END)
            while offset < end and text[offset] in _SPACE:
                offset += 1
        else:
            match = _PEM.match(text, offset, end)
            if match is None:
                raise _malformed("not a PEM text of certificates or CRLs")
            found.append((match[1], match[2]))
            offset = match.end()
        if len(found) > MAX_CERTIFICATES:
            raise _malformed("more certificates or CRLs in a text than can be")
    if not found:
        raise _malformed("an empty PEM text")
    return found


def decoded(body: bytes) -> bytes:
    """The DER in a PEM block's base64."""
    try:
        text = body.translate(None, b"\r\n") if b"\r" in body else body.replace(b"\n", b"")
        return b64.decode_loosely(text)  # what counts is the DER
    except ValueError as error:
        raise _malformed("PEM with broken base64") from error


def read(endorsements: EndorsementSet) -> Collateral:
    """All that ``endorsements`` has, read once; ``EndorsementMalformed`` if collateral in it cannot be read."""
    readings = endorsements.readings  # as its certificates keep what was read of them; nothing is verified here
    found: Collateral | None = readings.get("dcap")
    if found is None:
        found = readings["dcap"] = _read(endorsements)
    return found


def _read(endorsements: EndorsementSet) -> Collateral:
    by_der = {certificate.der: certificate for certificate in endorsements.certificates}
    reader = Reader(by_der)
    signed: list[Signed] = []
    certificates: list[Certificate] = []
    crls: list[Crl] = []
    for document in endorsements.documents:
        if not any(mark in document for mark in _MARKS):
            continue
        try:
            found = signed_json.members(document)
            if served := _SERVED & found.keys():
                signed += [_signed(name, found[name], found["signature"]) for name in sorted(served)]
            else:
                _bundle(found, signed, certificates, crls, reader)
        except EndorsementError:
            raise
        except KeyError as error:
            raise _malformed(f"collateral without its {error.args[0]}") from error
        except strict_json.UNREADABLE as error:
            raise _malformed(f"collateral that cannot be read: {error}") from error
    by_der |= {certificate.der: certificate for certificate in certificates}
    pool = EndorsementSet(by_der.values(), (*endorsements.crls, *crls))
    return Collateral(pool, tuple(signed), by_der, reader.chains)


def _signed(name: str, content: bytes, signature: bytes) -> Signed:
    return Signed.of(name, content, signed_json.hexadecimal(_TEXT.decode(signature), 64, name))


def _bundle(
    found: dict[str, bytes], signed: list[Signed], certificates: list[Certificate], crls: list[Crl], reader: Reader
) -> None:
    for member, name, signature in _BUNDLED:
        if member in found:
            text = _TEXT.decode(found[member]).encode()
            if b'"signature"' in text:  # as served, whole
                inner = signed_json.members(text)
                signed.append(_signed(name, inner[name], inner["signature"]))
            else:
                signed.append(_signed(name, text.strip(), found[signature]))
    seen: list[bytes] = []  # two documents of one signer have the same
    for member in _CHAINS:
        chain = found.get(member)
        if chain is not None and chain not in seen and (text := _optional(chain)):
            seen.append(chain)
            certificates += reader.certificates(text)
    for member in _CRLS:
        crl = found.get(member)
        if crl is not None and (text := _optional(crl)):
            crls += _crls(text)


def _optional(raw: bytes) -> bytes:
    return b"" if raw == b"null" else _TEXT.decode(raw).encode()


def _crls(text: bytes) -> list[Crl]:
    if text.startswith(b"-----BEGIN"):
        return [Crl(decoded(body)) for kind, body in blocks(text) if kind == b"X509 CRL"]
    try:
        return [Crl(bytes.fromhex(text.decode()))]
    except ValueError as error:
        raise _malformed("a CRL that is neither DER in hex nor PEM") from error


def _malformed(reason: str) -> EndorsementMalformed:
    return EndorsementMalformed(reason, code="collateral_malformed", field="collateral", spec="evidence 3.2")
