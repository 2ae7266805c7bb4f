"""The tenant's certification authority for its people: ``/api/v0/authority`` and ``authorities``."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.api_bodies import answer, read, stamp
from adyton.broker.door.asked import Asked
from adyton.broker.key_service.authority import Authority
from adyton.crypto import crl, issuing
from adyton.errors import MalformedRequest, NotFound
from adyton.protocol.authority import CertificateView, CrlView, RevokeCertificatesBody, RotateAuthorityBody
from adyton.protocol.resource import ResourcePath
from adyton.stores.authorities import Authorities, Issued

MAX_SERIALS = 1000
MAX_PAGE = 1000
_SERIAL = re.compile(r"[0-9a-f]{1,40}\Z")
_NUMBER = re.compile(r"[1-9][0-9]{0,3}\Z")


class AuthorityApi:
    """The rooms ``authority`` and ``authorities``."""

    def __init__(self, authority: Authority, authorities: Authorities) -> None:
        self._authority = authority
        self._kept = authorities

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer; errors of the tree leave as they are."""
        tenant = asked.tenant
        match (asked.method, *parts):
            case ("GET", "authority"):
                return answer(self._authority.show(tenant))
            case ("GET", "authorities"):
                return answer(self._authority.all(tenant))
            case ("GET", "authorities", number, "crl"):
                return answer(self._crl(asked, number))
            case ("GET", "authority", "certificates"):
                return answer(self._listed(tenant, dict(parse_qsl(asked.query))))
            case ("POST", "authority", "rotate"):
                return self._rotated(asked, read(asked.body or b"{}", RotateAuthorityBody))
            case ("POST", "authority", "revocations"):
                return self._revoked(asked, read(asked.body, RevokeCertificatesBody))
        return refusals.NO_PATH

    def _rotated(self, asked: Asked, body: RotateAuthorityBody) -> Answer:
        if not 1 <= body.days <= issuing.ROOT_DAYS:
            raise MalformedRequest(
                "a root is not valid for so long", code="authority_days", field="days",
                expected=f"1 to {issuing.ROOT_DAYS}", got=body.days,
            )  # fmt: skip
        view = self._authority.rotate(asked.tenant, body.days, asked.now, prepare=body.prepare)
        return answer(view, ("ca.rotate", f"authority {view.number}: {view.state}"))

    def _revoked(self, asked: Asked, body: RevokeCertificatesBody) -> Answer:
        if body.reason not in crl.REASONS:
            raise MalformedRequest(
                "not a reason", code="revocation_malformed", field="reason", expected=sorted(crl.REASONS),
                got=body.reason[:40],
            )  # fmt: skip
        serials = [text.lower().lstrip("0") or "0" for text in body.serials]
        if bool(serials) is bool(body.uri) or (body.version is not None and not body.uri):
            raise MalformedRequest("say which: serial numbers, or a key", code="revocation_malformed", field="serials")
        if len(serials) > MAX_SERIALS or not all(_SERIAL.match(text) for text in serials):
            raise MalformedRequest(
                "not serial numbers", code="revocation_malformed", field="serials",
                expected=f"at most {MAX_SERIALS}, in hex",
            )  # fmt: skip
        if body.uri:
            path = ResourcePath.parse(body.uri)
            found = self._kept.of_key(asked.tenant, str(path), body.version)
            if not found:
                raise NotFound("no certificate was issued for it", code="certificate_absent", field="uri", got=path.uri)
            return self._revoked_all(asked, [one.serial for one in found], body.reason)
        done = self._kept.revoke(asked.tenant, list(dict.fromkeys(serials)), body.reason, asked.now.timestamp())
        return answer([_view(one) for one in done], *_rows(done, asked))

    def _revoked_all(self, asked: Asked, serials: list[str], reason: str) -> Answer:
        """Of a key, however many: each part with its rows, so that others write in between. Asked again it goes on."""
        done: list[Issued] = []
        for first in range(0, len(serials), MAX_SERIALS):
            part = self._kept.revoke(asked.tenant, serials[first : first + MAX_SERIALS], reason, asked.now.timestamp())
            asked.deed.settle(*_rows(part, asked))
            done += part
        return answer([_view(one) for one in done])

    def _listed(self, tenant: str, query: dict[str, str]) -> list[CertificateView]:
        after, limit = query.get("after", ""), query.get("limit", str(MAX_PAGE))
        if (after and not _SERIAL.match(after)) or not _NUMBER.match(limit) or int(limit) > MAX_PAGE:
            raise MalformedRequest(
                "not such a page", code="page_malformed", field="after, limit", expected=f"limit 1 to {MAX_PAGE}"
            )
        return [_view(one) for one in self._kept.certificates(tenant, after, int(limit))]

    def _crl(self, asked: Asked, text: str) -> CrlView:
        if not _NUMBER.match(text):
            raise NotFound("there is no such authority", code="authority_absent", field="number", got=text[:40])
        der = self._authority.crl(asked.tenant, int(text), asked.now)
        number, made, until, count = crl.facts(der)
        return CrlView(int(text), number, stamp(made), stamp(until), count, crl.pem(der))


def _rows(done: list[Issued], asked: Asked) -> list[tuple[str, str]]:
    """Rows that say the reason; of one that was revoked before, that: its row is another one."""
    now, found = asked.now.timestamp(), []
    for one in done:
        told = one.reason if one.revoked == now else f"revoked already, {one.reason}"
        found.append(("ca.revoke", f"{_uri(one)}?version={one.version} serial {one.serial}: {told}"))
    return found


def _uri(one: Issued) -> str:
    return ResourcePath.parse(one.path).uri


def _view(one: Issued) -> CertificateView:
    revoked = stamp(datetime.fromtimestamp(one.revoked, UTC)) if one.revoked else ""
    expires = stamp(datetime.fromtimestamp(one.expires, UTC))
    return CertificateView(one.serial, one.authority, _uri(one), one.version, expires, revoked, one.reason)
