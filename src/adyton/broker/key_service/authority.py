"""The certification authority that each tenant has: made with its first certificate, kept sealed, never released.

Its roots follow one another; what was issued can be revoked, and each root publishes its list of revoked for as long as it
is valid: ``/t/<tenant>/.well-known/ca/<number>.crl`` (DER), beside its certificate, ``<number>.crt`` (DER).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from adyton.broker.door.api_bodies import stamp
from adyton.crypto import crl, issuing, key_kinds
from adyton.crypto.key_kinds import Kind
from adyton.protocol.authority import AuthorityView
from adyton.protocol.key_record import CertificateRequest
from adyton.stores.authorities import Authorities, Issued, Root, StoredAuthority, absent

PLACE = (".well-known", "ca")
CRL, CERTIFICATE = b"application/pkix-crl", b"application/pkix-cert"


class Authority:
    """Issues certificates for the keys of each tenant, under that tenant's own root.

    ``public_url``: where whoever verifies them reaches the broker; empty: they do not say where the list is.
    """

    def __init__(self, authorities: Authorities, public_url: str = "") -> None:
        self._kept = authorities
        self._public_url = public_url.rstrip("/")

    def show(self, tenant: str) -> AuthorityView:
        """The root that issues; ``NotFound`` before the first certificate was issued."""
        found = self._kept.active(tenant)
        if found is None:
            raise absent()
        return self._view(tenant, found)

    def all(self, tenant: str) -> list[AuthorityView]:
        """All roots, the oldest first."""
        return [self._view(tenant, one) for one in self._kept.all(tenant)]

    def issue(  # noqa: PLR0917 -- one value each
        self, tenant: str, path: str, version: int, which: Kind, public: bytes, asked: CertificateRequest, now: datetime
    ) -> tuple[tuple[bytes, ...], Issued]:
        """The chain for a public key (DER), its certificate, then the root; and what is to be written down of it."""
        root = self._kept.active_or_made(tenant, lambda number: _make(tenant, number, issuing.ROOT_DAYS, now))
        where = self.place(tenant, root.number, "crl")
        given = (asked.subject, asked.names, asked.days, now)
        leaf = issuing.issue(root.key, root.certificate, which, public, *given, crl_url=where)
        serial, ends = issuing.serial(leaf), issuing.validity(leaf)[1].timestamp()
        return (leaf, root.certificate), Issued(serial, root.number, path, version, ends)

    def rotate(self, tenant: str, days: int, now: datetime, *, prepare: bool) -> AuthorityView:
        """The next root, prepared if that was not done; and unless ``prepare`` it issues from now on."""
        held = self._kept.all(tenant)
        last = held[-1] if held else None
        if prepare or last is None or last.state != "prepared":
            last = self._kept.prepare(tenant, lambda number: _make(tenant, number, days, now))
        if not prepare:
            self._kept.activate(tenant, last.number)
        return self.all(tenant)[last.number - 1]

    def crl(self, tenant: str, number: int, now: datetime) -> bytes:
        """A root's list (DER), signed anew if that is due; ``NotFound``."""

        def sign(root: StoredAuthority, serial: int, revoked: Sequence[Issued]) -> bytes:
            entries = [(one.serial, datetime.fromtimestamp(one.revoked, UTC), one.reason) for one in revoked]
            return crl.make(root.key, root.certificate, serial, entries, now)

        current = self._kept.current_list(tenant, number, now.timestamp())
        if current is None:
            raise absent()
        return current or self._kept.signed_list(tenant, number, now.timestamp(), sign)

    def place(self, tenant: str, number: int, form: str) -> str:
        """The URL of what a root publishes; empty if nobody said where the broker is reached."""
        return f"{self._public_url}/t/{tenant}/{'/'.join(PLACE)}/{number}.{form}" if self._public_url else ""

    def _view(self, tenant: str, one: Root) -> AuthorityView:
        begins, ends = issuing.validity(one.certificate)
        return AuthorityView(
            key_kinds.chain_pem((one.certificate,)).decode("ascii"),
            hashlib.sha256(one.certificate).hexdigest(),
            stamp(begins),
            stamp(ends),
            one.number,
            one.state,
            self.place(tenant, one.number, "crl"),
        )


def _make(tenant: str, number: int, days: int, now: datetime) -> tuple[bytes, bytes]:
    """Each root has a name of its own: lists are told apart by it."""
    ending = f" {number}" if number > 1 else ""
    return issuing.make_root(f"Adyton {tenant}"[: 64 - len(ending)] + ending, now, days)
