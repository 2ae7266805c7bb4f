"""How registries are reached: plain data, so that who only passes it on need not load what speaks to registries."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """``auth_json``: the text of an ``auth.json``; the rest as ``registry_http.TransportOptions``."""

    auth_json: str = field(default="", repr=False)
    plain_http: frozenset[str] = frozenset()
    ca_pem: str = ""
    unverified_tls: frozenset[str] = frozenset()
