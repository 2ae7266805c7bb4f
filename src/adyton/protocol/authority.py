"""What is said about a tenant's certification authority over the wire, under ``/api/v0/authority`` and ``authorities``."""

from __future__ import annotations

import msgspec


class AuthorityView(msgspec.Struct, frozen=True):
    """One root: PEM, SHA-256 of the certificate in hex, its validity, and where its list of revoked is.

    ``state``: ``prepared``, ``active`` or ``retired``. ``crl`` is empty if the broker does not know where it is reached.
    """

    certificate: str
    fingerprint: str
    not_before: str
    not_after: str
    number: int = 1
    state: str = "active"
    crl: str = ""


class RotateAuthorityBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The next root, valid for ``days``. ``prepare``: it does not issue yet, so that it can be trusted first."""

    prepare: bool = False
    days: int = 3650


class CertificateView(msgspec.Struct, frozen=True):
    """A certificate that was issued. ``serial`` in hex, times RFC 3339; ``revoked`` is empty of one that is not."""

    serial: str
    authority: int
    uri: str
    version: int
    expires: str
    revoked: str = ""
    reason: str = ""


class RevokeCertificatesBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which: by ``serials``, or those of a key (``uri``), of all its versions or of one. ``reason`` is one of RFC 5280's."""

    reason: str
    serials: list[str] = []
    uri: str = ""
    version: int | None = None


class CrlView(msgspec.Struct, frozen=True):
    """A root's list of revoked certificates: PEM, its number, when it was made, when the next is due, how many are on it."""

    authority: int
    number: int
    made: str
    next_update: str
    revoked: int
    pem: str
