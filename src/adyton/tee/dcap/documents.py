"""Intel's collateral in the forms in which people keep it, read from ``EndorsementSet.documents`` (evidence 3.2).

* What the certification service serves: ``{"tcbInfo": {...}, "signature": hex}``, ``{"enclaveIdentity": {...}, ...}``.
* Bundles: one object of texts, with signed documents, their signatures, PEM chains, and CRLs (DER in hex, or PEM).

Certificates and CRLs of bundles join those of the set; nothing is believed for where it stood, so a chain that a bundle
calls ``tcb_info_issuer_chain`` is just certificates. Documents of other kinds are passed over.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from adyton.crypto.x509 import Certificate, Crl, EndorsementSet
from adyton.errors import EndorsementError, EndorsementMalformed
from adyton.tee.dcap import signed_json
from adyton.tee.dcap.signed_json import Signed
from adyton.wire import strict_json

MAX_CERTIFICATES = 32  # of one text

_SERVED = {"tcbInfo", "enclaveIdentity"}
_MARKS = (b'"root_ca_crl"', b'"pck_crl"', b'"tcbInfo"', b'"enclaveIdentity"', b'"tcb_info"', b'"qe_identity"')
_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----[ \t]*\r?\n([A-Za-z0-9+/=\r\n]+)-----END \1-----[ \t\r\n]*")
_TEXT: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)
_Text = str | None | UnsetType


class _Bundle(msgspec.Struct):
    """The members that are read. Texts, or ``null``."""

    pck_crl_issuer_chain: _Text = UNSET
    root_ca_crl: _Text = UNSET
    pck_crl: _Text = UNSET
    tcb_info_issuer_chain: _Text = UNSET
    tcb_info: _Text = UNSET
    tcb_info_signature: _Text = UNSET
    qe_identity_issuer_chain: _Text = UNSET
    qe_identity: _Text = UNSET
    qe_identity_signature: _Text = UNSET
    pck_certificate_chain: _Text = UNSET


_NAMES = _Bundle.__struct_fields__
_OPTIONAL: msgspec.json.Decoder[str | None] = msgspec.json.Decoder(str | None)
_BUNDLE: msgspec.json.Decoder[_Bundle] = msgspec.json.Decoder(_Bundle)


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
            certificate = self._texts.get(body)
            if certificate is None:
                encoded = decoded(body)
                certificate = self._known.get(encoded) or Certificate(encoded)
                self._texts[body] = certificate
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
        return binascii.a2b_base64(body.translate(None, b"\r\n"), strict_mode=True)  # what counts is the DER
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
            bundle = _plain_bundle(document)
            if bundle is None:
                found = signed_json.members(document)
                if served := _SERVED & found.keys():
                    signed += [_signed(name, found[name], _TEXT.decode(found["signature"])) for name in sorted(served)]
                    continue
                bundle = _Bundle(**{name: _OPTIONAL.decode(found[name]) for name in _NAMES if name in found})
            signed += _signed_in(bundle)
            certificates += [item for chain in _chains_in(bundle) for item in reader.certificates(chain.encode())]
            crls += [crl for text in (bundle.root_ca_crl, bundle.pck_crl) if text for crl in _crls(text)]
        except EndorsementError:
            raise
        except KeyError as error:
            raise _malformed(f"collateral without its {error.args[0]}") from error
        except strict_json.UNREADABLE as error:
            raise _malformed(f"collateral that cannot be read: {error}") from error
    by_der |= {certificate.der: certificate for certificate in certificates}
    pool = EndorsementSet(by_der.values(), (*endorsements.crls, *crls))
    return Collateral(pool, tuple(signed), by_der, reader.chains)


def _signed(name: str, content: bytes, signature: str) -> Signed:
    return Signed.of(name, content, signed_json.hexadecimal(signature, 64, name))


def _plain_bundle(document: bytes) -> _Bundle | None:
    """A bundle that has known members alone, each once; ``None`` if that cannot be said so simply. ``ValueError``.

    Quotation marks tell: every further member would bring two at least, since a name is a string. Without escapes by number
    there is one way only to write such a mark in a string, and one to write a name that is known here.
    """
    if len(document) > signed_json.MAX_SIZE:
        raise ValueError(f"larger than {signed_json.MAX_SIZE} bytes")
    try:
        bundle = _BUNDLE.decode(document)
    except msgspec.ValidationError:
        return None
    marks = 0
    for value in msgspec.structs.astuple(bundle):
        if isinstance(value, str):
            marks += 4 + value.count('"')
        elif value is None:
            marks += 2
    return bundle if document.count(b'"') == marks and b"\\u" not in document else None


def _signed_in(bundle: _Bundle) -> Iterator[Signed]:
    for name, text, signature, member in (
        ("tcbInfo", bundle.tcb_info, bundle.tcb_info_signature, "tcb_info_signature"),
        ("enclaveIdentity", bundle.qe_identity, bundle.qe_identity_signature, "qe_identity_signature"),
    ):
        if text is UNSET:
            continue
        if text is None:
            raise ValueError(f"{name} is no text")
        content = text.encode()
        if b'"signature"' in content:  # as served, whole
            inner = signed_json.members(content)
            yield _signed(name, inner[name], _TEXT.decode(inner["signature"]))
        elif signature is UNSET:
            raise KeyError(member)
        elif signature is None:
            raise ValueError(f"{member} is no text")
        else:
            yield _signed(name, content.strip(), signature)


def _chains_in(bundle: _Bundle) -> Iterator[str]:
    for chain in (
        bundle.pck_crl_issuer_chain,
        bundle.tcb_info_issuer_chain,
        bundle.qe_identity_issuer_chain,
        bundle.pck_certificate_chain,
    ):
        if chain:
            yield chain


def _crls(text: str) -> list[Crl]:
    if text.startswith("-----BEGIN"):
        return [Crl(decoded(body)) for kind, body in blocks(text.encode()) if kind == b"X509 CRL"]
    try:
        return [Crl(bytes.fromhex(text))]
    except ValueError as error:
        raise _malformed("a CRL that is neither DER in hex nor PEM") from error


def _malformed(reason: str) -> EndorsementMalformed:
    return EndorsementMalformed(reason, code="collateral_malformed", field="collateral", spec="evidence 3.2")
