"""The certification authority that each tenant has: made with its first certificate, kept sealed, never released."""

from __future__ import annotations

import hashlib
from datetime import datetime

import msgspec

from adyton.broker.door.api_bodies import stamp
from adyton.crypto import issuing, key_kinds
from adyton.crypto.key_kinds import Kind
from adyton.errors import NotFound, Unavailable
from adyton.protocol.key_record import CertificateRequest
from adyton.protocol.keys import AuthorityView
from adyton.stores.keepsakes import Secrets

NAME = "certification authority"


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    key: bytes
    certificate: bytes


_DECODER = msgspec.msgpack.Decoder(_Kept)


class Authority:
    """Issues certificates for the keys of each tenant, under that tenant's own root."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def show(self, tenant: str) -> AuthorityView:
        """The root certificate; ``NotFound`` before the first certificate was issued."""
        kept = self._secrets.get(NAME, tenant)
        if kept is None:
            raise NotFound(
                "this tenant has no certification authority yet",
                code="authority_absent",
                hint="it is made with the first certificate: adyton key generate URI --kind p-256 --name NAME",
            )
        der = _read(kept).certificate
        begins, ends = issuing.validity(der)
        pem = key_kinds.chain_pem((der,)).decode("ascii")
        return AuthorityView(pem, hashlib.sha256(der).hexdigest(), stamp(begins), stamp(ends))

    def issue(
        self, tenant: str, which: Kind, public: bytes, asked: CertificateRequest, now: datetime
    ) -> tuple[bytes, ...]:
        """The chain for a public key (DER): its certificate, then the root. ``MalformedRequest``."""
        kept = self._kept(tenant, now)
        leaf = issuing.issue(kept.key, kept.certificate, which, public, asked.subject, asked.names, asked.days, now)
        return leaf, kept.certificate

    def _kept(self, tenant: str, now: datetime) -> _Kept:
        def make() -> bytes:
            return msgspec.msgpack.encode(_Kept(*issuing.make_root(f"Adyton {tenant}"[:64], now)))

        return _read(self._secrets.get_or_create(NAME, make, tenant))


def _read(kept: bytes) -> _Kept:
    try:
        return _DECODER.decode(kept)
    except msgspec.DecodeError as error:
        raise Unavailable("the tenant's authority cannot be read", code="authority_unreadable") from error
