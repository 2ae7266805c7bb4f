"""Whose documents a service takes: the providers of reference values that its operator names in a file.

The file is a document as ``adyton apply`` takes it at a broker, of which only the tenant's providers may be there. What the
store has is made equal to it when the service starts and on SIGHUP; values that a provider could not have published so are
revoked with that, as at a broker.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import msgspec

from adyton import provenance
from adyton.broker.admin import Admin
from adyton.broker.door.asked import Asked
from adyton.broker.people.people import Principal, Role
from adyton.broker.record.recorded import Recorded
from adyton.errors import ConfigError, DocumentInvalid
from adyton.protocol import declared
from adyton.protocol.providers import ProviderSettings

OPERATOR = Principal("file of providers", Role.OWNER, by="file of providers")
MAX_SIZE = 1024 * 1024


def read(path: Path, tenant: str) -> dict[str, ProviderSettings]:
    """The entries by name, checked; ``ConfigError`` names what cannot be taken."""
    try:
        content = path.read_bytes()
        if len(content) > MAX_SIZE:
            raise ValueError("too large")
        document = declared.read(tomllib.loads(content.decode("utf-8")))
        only = declared.Declared({tenant: declared.DeclaredTenant(providers=_of(document, tenant))})
        if document != only:
            raise _invalid(path, "something that is not the tenant's providers", f"[tenants.{tenant}.providers.NAME]")
        found = only.tenants[tenant].providers
        for name, settings in found.items():
            provenance.provider(name, settings)
    except (OSError, ValueError, RecursionError) as error:
        raise _invalid(path, f"cannot be read: {error}", "TOML") from error
    except DocumentInvalid as error:
        raise _invalid(path, f"{error.message} ({error.field or ''})", error.expected) from error
    return found


def follow(admin: Admin, tenant: str, wanted: dict[str, ProviderSettings], now: datetime) -> None:
    """Make the store's providers equal to ``wanted``, each change with its rows."""
    stored = {one.name: one.body for one in admin.store.providers.list(tenant)}
    for name in sorted(stored.keys() - wanted.keys()):
        _ask(admin, Asked("DELETE", tenant, b"", now, "", OPERATOR), name)
    for name, settings in wanted.items():
        body = msgspec.json.encode(settings)
        if stored.get(name) != body:
            _ask(admin, Asked("PUT", tenant, body, now, "", OPERATOR), name)


def _ask(admin: Admin, asked: Asked, name: str) -> None:
    with Recorded(admin.store, asked.tenant, asked.now, actor=asked.who, peer=asked.peer) as deed:
        answer = admin.handle(replace(asked, deed=deed), ("providers", quote(name, safe="")))
        deed.settle(*answer.changes)


def _of(document: declared.Declared, tenant: str) -> dict[str, ProviderSettings]:
    found = document.tenants.get(tenant)
    return found.providers if found is not None else {}


def _invalid(path: Path, why: str, expected: object) -> ConfigError:
    return ConfigError(
        f"the file of providers: {why}", code="providers_invalid", field=str(path), expected=expected
    )  # fmt: skip
