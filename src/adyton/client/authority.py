"""The owner's side of the tenant's certification authority, through an administration client."""

from __future__ import annotations

from adyton.client.admin import Admin
from adyton.protocol.authority import (
    AuthorityView,
    CertificateView,
    CrlView,
    RevokeCertificatesBody,
    RotateAuthorityBody,
)

PAGE = 1000


class CertificationAuthority:
    """Of a broker's tenant. Every change is durable when its method returns."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def show(self) -> AuthorityView:
        """The root that issues; ``NotFound``."""
        return self._admin.ask("GET", "/authority", AuthorityView)

    def all(self) -> list[AuthorityView]:
        """All roots, the oldest first."""
        return self._admin.ask("GET", "/authorities", list[AuthorityView])

    def rotate(self, *, prepare: bool = False, days: int = 3650) -> AuthorityView:
        """The next root; unless ``prepare`` it issues from now on."""
        return self._admin.ask("POST", "/authority/rotate", AuthorityView, RotateAuthorityBody(prepare, days))

    def certificates(self) -> list[CertificateView]:
        """What was issued, by serial number."""
        found: list[CertificateView] = []
        while True:
            after = f"&after={found[-1].serial}" if found else ""
            page = self._admin.ask("GET", f"/authority/certificates?limit={PAGE}{after}", list[CertificateView])
            found += page
            if len(page) < PAGE:
                return found

    def revoke(
        self, reason: str, *, serials: list[str] | None = None, uri: str = "", version: int | None = None
    ) -> list[CertificateView]:
        """Revoke by serial numbers, or what was issued for a key."""
        body = RevokeCertificatesBody(reason, serials or [], uri, version)
        return self._admin.ask("POST", "/authority/revocations", list[CertificateView], body)

    def crl(self, number: int) -> CrlView:
        """A root's list of revoked certificates."""
        return self._admin.ask("GET", f"/authorities/{number}/crl", CrlView)
