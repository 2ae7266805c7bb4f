"""Which tenant, and what of it, a request target names. Nothing is decoded or normalised; what is odd is refused.

``/kbs/v0/…`` is tenant ``default``, or the tenant of a configured host name; ``/t/<tenant>/kbs/v0/…`` any other. CoCo's
client takes any base URL. Exactly one empty part, directly after a plug-in's name, is tolerated, because one of CoCo's
tools sends it (coco-guest 1.8); every other empty part, ``.`` and ``..`` are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from adyton.errors import MalformedRequest

MAX_TARGET = 4096
_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_KBS = ("kbs", "v0")
_API = ("api", "v0")


@dataclass(frozen=True, slots=True)
class Route:
    """``area`` is ``kbs``, ``api`` or ``top``; ``parts`` what follows it, none of them empty; ``query`` as sent."""

    tenant: str
    area: str
    parts: tuple[str, ...]
    query: str


def route(target: bytes, host: bytes, tenant_hosts: Mapping[str, str]) -> Route:
    """Where ``target`` leads; ``MalformedRequest`` (``path_invalid``) for a path that names nothing."""
    if not tenant_hosts:
        return _route(target, "default")
    name = host.decode("latin-1").rsplit(":", 1)[0].lower()
    return _route(target, tenant_hosts.get(name, "default"))


@lru_cache(maxsize=1024)
def _route(target: bytes, tenant: str) -> Route:
    if len(target) > MAX_TARGET or not target.startswith(b"/"):
        raise _invalid("the request target cannot be read")
    try:
        path, _, query = target.decode("ascii").partition("?")
    except UnicodeDecodeError as error:
        raise _invalid("a path is ASCII") from error
    parts = path[1:].split("/")
    if parts[0] == "t" and len(parts) > 2:
        tenant = parts[1]
        if not _TENANT.match(tenant):
            raise _invalid("a tenant's name has lower-case letters, digits and inner hyphens")
        del parts[:2]
    area = "kbs" if tuple(parts[:2]) == _KBS else "api" if tuple(parts[:2]) == _API else "top"
    if area != "top":
        del parts[:2]
    if area == "kbs" and len(parts) > 2 and not parts[1]:
        del parts[1]
    if any(part in {"", ".", ".."} for part in parts):
        raise _invalid("a path has no empty part, '.' or '..'")
    return Route(tenant, area, tuple(parts), query)


def _invalid(why: str) -> MalformedRequest:
    return MalformedRequest(why, code="path_invalid", field="path", spec="contracts 4")
