"""IBM Secure Execution at the broker: a request goes out as the challenge's nonce, and its answer is the evidence.

There is no quote that anybody could check (evidence 12): firmware answers with an HMAC under a key that only the author of
the request knows. So the broker is that author: it makes a request for the machines whose host key documents it was given,
hands the secrets to the guest sealed under its own keys (``tee.se.challenge``), and opens them again with the evidence. It
keeps nothing in between; another worker or replica verifies as well.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from adyton import tee
from adyton.crypto.aead import KeyRing, random_bytes
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import AdytonError, ConfigError, EndorsementError, MalformedEvidence, UnsupportedEvidence
from adyton.rats.types import ReportData, Revocation, RootKind, TrustAnchors, VerifiedEvidence
from adyton.tee.se import challenge, header, request
from adyton.tee.se.header import SeHeader
from adyton.tee.se.host_key import HostKey, verify_host_key
from adyton.tee.se.verify import PendingRequest, read, verify_response

TEE = header.TEE
_CONTEXT = b"adyton se 1\0"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SecureExecution:
    """For which machines requests are made, and which image may answer.

    ``vendor_roots`` are SHA-256 of the SPKI of roots that the operator says are IBM's; ``custom_roots`` count as development
    roots do.
    """

    documents: tuple[Certificate, ...]
    image: SeHeader
    vendor_roots: frozenset[bytes]
    custom_roots: frozenset[bytes]
    remembered: tee.Remembered

    def challenge(self, ring: KeyRing, tenant: str, given: EndorsementSet, now: datetime) -> str:
        """A fresh request in JSON: the whole of it is the nonce (kbs-protocol 1.3)."""
        keys = self._host_keys(given, now)
        secrets = request.RequestSecrets(
            measurement_key=random_bytes(32) + random_bytes(32),
            nonce=random_bytes(request.NONCE_SIZE),
            protection_key=random_bytes(32),
            iv=random_bytes(12),
            ephemeral=ec.generate_private_key(ec.SECP521R1()),
        )
        encoded = request.build([key.public_key for key in keys], secrets)
        sealed = challenge.seal(secrets, ring, _CONTEXT + tenant.encode())
        return challenge.encode(encoded, self.image.tags, sealed).decode("ascii")

    def verify(  # noqa: PLR0917 -- what was answered, whose, when
        self,
        evidence: bytes,
        ring: KeyRing,
        tenant: str,
        given: EndorsementSet,
        now: datetime,
        report_data: ReportData | None,
    ) -> VerifiedEvidence:
        """Verify an answer to a request that this broker made for ``tenant``, by machines that are known now."""
        response = read(evidence)
        if response.sealed is None:
            raise UnsupportedEvidence(
                "an exchange file does not carry the challenge's secrets",
                code="measurement_key_missing",
                tee=TEE,
                spec=header.SPEC,
            )
        measurement_key, nonce = challenge.unseal(response, ring, _CONTEXT + tenant.encode())
        pending = PendingRequest(
            measurement_key=measurement_key, nonce=nonce, host_keys=self._host_keys(given, now), images=(self.image,)
        )
        verified = verify_response(evidence, pending, report_data=report_data)
        if bytes.fromhex(verified.root_fingerprint) in self.vendor_roots:
            verified = msgspec.structs.replace(verified, root=RootKind.VENDOR)
        return verified

    def _host_keys(self, given: EndorsementSet, now: datetime) -> tuple[HostKey, ...]:
        """Those of the documents that hold now; the first error if none does."""
        anchors = TrustAnchors(vendor=False, custom=self.vendor_roots | self.custom_roots)
        found: list[HostKey] = []
        failure: EndorsementError | None = None
        for document in self.documents:
            try:
                found.append(
                    verify_host_key(
                        document,
                        given,
                        now=now,
                        anchors=anchors,
                        revocation=Revocation.REQUIRED,
                        remembered=self.remembered,
                    )
                )
            except EndorsementError as error:
                failure = failure or error
                _LOG.info("a host key document is left out: %s [%s]", error.message, error.code)
        if not found:
            raise failure or UnsupportedEvidence("no host key document", code="tee_unsupported", tee=TEE)
        return tuple(found)


def load(
    documents: Iterable[str],
    image: str,
    vendor_roots: Iterable[str],
    custom_roots: frozenset[bytes],
    remembered: tee.Remembered,
) -> SecureExecution | None:
    """What the operator laid out, or ``None`` where nothing was; ``ConfigError`` for a file that is not that."""
    paths = tuple(documents)
    if not paths:
        return None
    found: list[Certificate] = []
    for path in paths:
        found += EndorsementSet.parse([_read(path)]).certificates
    try:
        raw = _read(image)
        tags = SeHeader.parse(raw) if raw.startswith(header.MAGIC) else header.find(raw)
    except MalformedEvidence as error:
        raise _unusable(image, error) from error
    if not found:
        raise ConfigError(
            "no host key document in these files", code="se_file_unusable", field="se-host-key-document", got=paths[0]
        )
    roots = frozenset(bytes.fromhex(root) for root in vendor_roots)
    return SecureExecution(tuple(found), tags, roots, custom_roots, remembered)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"a file for Secure Execution cannot be read: {error.strerror}", code="se_file_unreadable", field=path
        ) from error


def _unusable(path: str, error: AdytonError) -> ConfigError:
    return ConfigError(
        f"not a Secure Execution header or image: {error.message}", code="se_file_unusable", field=path, got=error.code
    )
