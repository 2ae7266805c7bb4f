"""A quote under a key: signature, then the PCRs that it signs, and only those (evidence 6).

Whether the key is a TPM's is another question, which whoever calls this has answered: by a certificate, a pin, or a
hardware report that names the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hmac import compare_digest
from typing import NamedTuple, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from adyton.errors import EvidenceError, SignatureInvalid, UnsupportedEvidence
from adyton.tee.eventlog.banks import SHA1, SHA256, SHA384, SHA512, Bank
from adyton.tee.tpm.abi import ECDSA, RSAPSS, RSASSA, SPEC, Attest, Signature

Key: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
Pcrs: TypeAlias = Mapping[Bank, Mapping[int, bytes]]
"""Values of PCRs by bank and number."""

RSA_SIZES = (2048, 3072, 4096)
_HASHES: dict[int, hashes.HashAlgorithm] = {
    SHA1.identifier: hashes.SHA1(),  # noqa: S303 -- only behind ``unsafe_sha1_signature``
    SHA256.identifier: hashes.SHA256(),
    SHA384.identifier: hashes.SHA384(),
    SHA512.identifier: hashes.SHA512(),
}
_CURVES = {"secp256r1": 32, "secp384r1": 48, "secp521r1": 66}
_PKCS1 = padding.PKCS1v15()
_NO_VALUES: Mapping[int, bytes] = {}


class Quote(NamedTuple):
    """A quote whose signature verified. ``hash``: the signature's, which makes the PCR digest too."""

    attest: Attest
    scheme: int
    hash: Bank


def verify_quote(
    message: bytes, signature: bytes, key: Key, *, tee: str = "tpm", unsafe_sha1_signature: bool = False
) -> Quote:
    """Verify TPMS_ATTEST under TPMT_SIGNATURE; magic and type are looked at before anything else.

    ``MalformedEvidence`` if either cannot be read; ``UnsupportedEvidence`` for a scheme, hash or key that is not
    allowed (SHA-1 among them, unless it is asked for by its name); ``SignatureInvalid`` ``quote_sig``.
    """
    attest = Attest.parse(message)
    parsed = Signature.parse(signature)
    check_signature(parsed, message, key, tee=tee, unsafe_sha1_signature=unsafe_sha1_signature)
    return Quote(attest, parsed.scheme, parsed.bank)


def check_signature(
    signature: Signature, message: bytes, key: Key, *, tee: str = "tpm", unsafe_sha1_signature: bool = False
) -> None:
    """The signature over ``message`` alone; errors as ``verify_quote``."""
    scheme, bank, values = signature
    algorithm = _HASHES.get(bank.identifier)
    if algorithm is None or (bank is SHA1 and not unsafe_sha1_signature):
        raise _unsupported(tee, "signature_hash", "signed with a hash that is not allowed", bank.name)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            if scheme == RSASSA:
                scheme_of: padding.AsymmetricPadding = _PKCS1
            elif scheme == RSAPSS:
                scheme_of = _pss(bank)
            else:
                raise _unsupported(tee, "signature_scheme", "an ECDSA signature where the key is RSA", hex(scheme))
            if key.key_size not in RSA_SIZES:
                raise _unsupported(tee, "ak_key", "an RSA key of a size that is not allowed", key.key_size)
            key.verify(values[0], message, scheme_of, algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            if scheme != ECDSA:
                raise _unsupported(tee, "signature_scheme", "an RSA signature where the key is ECC", hex(scheme))
            size = _CURVES.get(key.curve.name)
            if size is None:
                raise _unsupported(tee, "ak_key", "a curve that is not allowed", key.curve.name)
            if len(values[0]) > size or len(values[1]) > size:
                raise InvalidSignature
            r, s = (int.from_bytes(value, "big") for value in values)
            key.verify(encode_dss_signature(r, s), message, _ecdsa(bank))
        else:
            raise _unsupported(tee, "ak_key", "a key that is neither RSA nor ECC", type(key).__name__)
    except (InvalidSignature, ValueError):
        raise SignatureInvalid(
            "the quote's signature does not verify under the attestation key",
            code="quote_sig",
            tee=tee,
            field="signature",
            spec=SPEC,
            hint="the quote was changed, or another key made it",
        ) from None
    except UnsupportedAlgorithm:
        raise _unsupported(tee, "signature_hash", "signed with a hash that is not available here", bank.name) from None


def quoted_pcrs(
    quote: Quote, values: Pcrs, *, wanted: Mapping[Bank, frozenset[int]] | None = None, tee: str = "tpm"
) -> dict[Bank, dict[int, bytes]]:
    """The PCRs that the quote signs, out of ``values``; what it does not select is left out (GHSA-99cg-575x-774p).

    ``wanted``: the banks that the selection must have, exactly, and the PCRs that each must have at least. Raises
    ``EvidenceError``: ``pcr_selection`` (not what is wanted, empty, or a bank twice), ``pcr_missing`` (a selected PCR
    without a value), ``pcr_size`` or ``pcr_digest``.
    """
    selections = quote.attest.selections
    found: dict[Bank, dict[int, bytes]] = {}
    parts: list[bytes] = []
    for bank, _, pcrs in selections:
        given = values.get(bank, _NO_VALUES)
        if bank in found or not pcrs:
            raise _error(tee, "pcr_selection", "an empty selection, or one bank twice", got=bank.name)
        try:
            chosen = dict(zip(pcrs, map(given.__getitem__, pcrs), strict=True))
        except KeyError:
            missing = [number for number in pcrs if number not in given]
            raise _error(
                tee, "pcr_missing", f"no value of a PCR that the quote selects in {bank.name}", got=missing
            ) from None
        size = bank.size
        sizes = set(map(len, chosen.values()))
        if sizes != {size}:
            got = min(sizes - {size})
            raise _error(tee, "pcr_size", "a PCR's value of another length", expected=size, got=got)
        found[bank] = chosen
        parts += chosen.values()
    if not found:
        raise _error(tee, "pcr_selection", "a quote over no PCR at all", got=0)
    if wanted is not None:
        _check_selection(found, wanted, tee)
    digest = quote.hash.new(b"".join(parts)).digest()
    if not compare_digest(digest, quote.attest.pcr_digest):
        raise _error(
            tee,
            "pcr_digest",
            "the PCR values are not those that the quote signs",
            expected=quote.attest.pcr_digest,
            got=digest,
            hint="the values were changed, or are of another time or bank",
        )
    return found


def _check_selection(
    found: Mapping[Bank, Mapping[int, bytes]], wanted: Mapping[Bank, frozenset[int]], tee: str
) -> None:
    names = sorted(bank.name for bank in wanted)
    if found.keys() != wanted.keys():
        raise _error(tee, "pcr_selection", "another bank", expected=names, got=sorted(bank.name for bank in found))
    for bank, pcrs in wanted.items():
        missing = pcrs - found[bank].keys()
        if missing:
            raise _error(
                tee, "pcr_selection", "PCRs that must be quoted are not", expected=sorted(pcrs), got=sorted(found[bank])
            )


@lru_cache(maxsize=8)
def _pss(bank: Bank) -> padding.PSS:
    """TPMs make the salt as long as the hash, or as long as fits (part 1, B.7): both are taken."""
    algorithm = _HASHES[bank.identifier]
    return padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)


@lru_cache(maxsize=8)
def _ecdsa(bank: Bank) -> ec.ECDSA:
    return ec.ECDSA(_HASHES[bank.identifier])


def _error(
    tee: str, code: str, message: str, *, expected: object = None, got: object = None, hint: str | None = None
) -> EvidenceError:
    return EvidenceError(
        f"PCRs: {message}", code=code, tee=tee, field="pcrs", expected=expected, got=got, spec=SPEC, hint=hint
    )


def _unsupported(tee: str, code: str, message: str, got: object) -> UnsupportedEvidence:
    return UnsupportedEvidence(f"the quote is {message}", code=code, tee=tee, field="signature", got=got, spec=SPEC)
