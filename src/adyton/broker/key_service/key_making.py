"""What a new version of a key consists of: made here, brought in, or made by the back end that will hold it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from adyton.broker.door.asked import Asked
from adyton.broker.key_service import configuration
from adyton.broker.key_service.authority import Authority
from adyton.broker.key_service.key_engines import Devices
from adyton.crypto import issuing, key_import, key_kinds
from adyton.crypto.aead import random_bytes
from adyton.crypto.key_kinds import WRITTEN, Kind
from adyton.crypto.profile import USUAL, Profile
from adyton.errors import AdytonError, MalformedRequest, TooLarge, Unavailable
from adyton.protocol.key_record import CertificateRequest, KeyRecord, KeyVersion, State
from adyton.protocol.keys import ValueBody
from adyton.protocol.resource import ResourcePath
from adyton.stores.authorities import Issued
from adyton.stores.backends.port import KeyHolder, KeyKind
from adyton.stores.backends.signatures import kind_of
from adyton.stores.intents import Intent
from adyton.stores.keys import Material
from adyton.stores.removals import Removal
from adyton.stores.resources import MAX_VALUE


@dataclass(frozen=True, slots=True)
class Made:
    """A version and what the store keeps of it: of a key in a device, the public half alone, and the intent to make it.

    ``issued``: its certificate, to be written down with it.
    """

    version: KeyVersion
    material: Material = field(repr=False)
    intent: Intent | None = None
    issued: Issued | None = None


class Leftovers(Protocol):
    """Who writes down what is about to be made in a back end, and sees to it that nothing is left there."""

    def begin(self, tenant: str, backend: str, removal: Removal, /) -> Intent:
        """Durable on return."""
        ...

    def kept(self, intent: Intent, known: Removal, /) -> None:
        """It has its row, in a transaction that is not over: should that come to nothing, ``known`` removes it."""
        ...

    def unused(self, intent: Intent, known: Removal | None, error: AdytonError, /) -> None:
        """It gets no row, because of ``error``; ``known``: how to remove it, if it is known that it was made."""
        ...

    def removed(self, tenant: str, backend: str, known: Removal, /) -> None:
        """It was queued to be removed, and is gone there now."""
        ...


class KeyMaking:
    """Makes versions for one worker."""

    def __init__(self, authority: Authority, devices: Devices, values: Leftovers, profile: Profile = USUAL) -> None:
        self._profile = profile
        self._left = values
        self.authority = authority
        self._devices = devices

    def version(  # noqa: PLR0917 -- one value each
        self,
        asked: Asked,
        path: ResourcePath,
        record: KeyRecord,
        number: int,
        value: ValueBody | None,
        certificate: CertificateRequest | None,
    ) -> Made:
        """One more version of ``record``. ``MalformedRequest`` for a value that is not of its kind."""
        which = key_kinds.kind(record.kind)
        self._profile.check_kind(which)
        if which in WRITTEN:
            if value is None:
                raise MalformedRequest("there is no value", code="key_value_missing", field="value")
            if certificate is not None:
                raise MalformedRequest("only a pair has a certificate", code="certificate_request", field="certificate")
            if record.backend:
                raise _kind_of_device(which)
            return _made(number, Material(_written(which, value)), asked, imported=True)
        secret, chain = _brought(which, value)
        handle, intent = "", None
        if record.backend:
            handle, public, intent = self._in_device(asked, path, record.backend, which, secret)
            secret = b""
        else:
            secret = secret or key_kinds.generate(which, record.size)
            public = key_kinds.public_der(which, secret)
        issued = None
        try:
            if certificate is not None and not chain:
                chain, issued = self.authority.issue(
                    asked.tenant, str(path), number, which, public, certificate, asked.now
                )
        except AdytonError as error:
            self._forget(intent, handle, path, error)
            raise
        material = Material(secret, public, chain)
        return _made(number, material, asked, imported=value is not None, handle=handle, intent=intent, issued=issued)

    def _in_device(
        self, asked: Asked, path: ResourcePath, backend: str, which: Kind, secret: bytes
    ) -> tuple[str, bytes, Intent]:
        """A key in a back end: its handle, its public half, and what was written down before it was made."""
        tenant = asked.tenant
        try:
            kind = KeyKind(which.value)
        except ValueError as error:
            raise _kind_of_device(which) from error
        # No two versions ever share a label, whatever was made or lost before.
        named = hashlib.sha256(f"{tenant}/{path}".encode()).hexdigest()[:16]
        label = f"adyton-{named}-{random_bytes(8).hex()}"

        def make(held: KeyHolder) -> tuple[str, bytes]:
            if kind not in held.kinds:
                raise _kind_of_device(which, sorted(one.value for one in held.kinds))
            handle = held.import_key(kind, label, secret) if secret else held.generate(kind, label)
            if kind.symmetric:
                return handle, b""
            public = held.public(handle)
            if not _shows(public, kind):  # certificates would be made for it, and signatures checked with it
                held.destroy(handle)
                raise Unavailable("the device made another kind of key", code="public_key_foreign", field=backend)
            return handle, public

        device = self._devices.of(tenant, backend)
        intent = self._left.begin(tenant, backend, Removal("made", str(path), label))
        try:
            return *device.with_keys(make), intent
        except AdytonError as error:
            self._forget(intent, "", path, error)
            raise

    @contextmanager
    def kept_or_destroyed(self, path: ResourcePath, made: Made) -> Iterator[None]:
        """While the store writes the version down: if it does not, the device forgets the key that nobody knows of."""
        try:
            yield
        except AdytonError as error:
            self._forget(made.intent, made.version.handle, path, error)
            raise
        if made.intent is not None:
            self._left.kept(made.intent, Removal("key", str(path), made.version.handle))

    def destroy(self, tenant: str, path: ResourcePath, record: KeyRecord, version: KeyVersion) -> None:
        """Have the back end destroy a version that the record says is destroyed; ``Unavailable``: it waits to be tried again."""
        if record.backend and version.handle and version.state is State.DESTROYED:
            device = self._devices.configured_for(tenant, record.backend)
            device.with_keys(lambda held: held.destroy(version.handle))
            self._left.removed(tenant, record.backend, Removal("key", str(path), version.handle))

    def _forget(self, intent: Intent | None, handle: str, path: ResourcePath, error: AdytonError) -> None:
        if intent is not None:
            self._left.unused(intent, Removal("key", str(path), handle) if handle else None, error)


def _brought(which: Kind, value: ValueBody | None) -> tuple[bytes, tuple[bytes, ...]]:
    """What somebody brought in; nothing, where it is to be made."""
    if value is None:
        return b"", ()
    if value.format == "json" or value.format == "toml":  # noqa: PLR1714 -- mypy narrows this, and no set
        raise MalformedRequest("not a key's format", code="key_malformed", field="format", got=value.format)
    return key_import.read(which, value.format, value.data)


def _written(which: Kind, value: ValueBody) -> bytes:
    if which is Kind.CONFIGURATION:
        return configuration.kept(value)
    if value.format != "raw":
        raise MalformedRequest("an opaque value is raw bytes", code="key_malformed", field="format", got=value.format)
    if len(value.data) > MAX_VALUE:
        raise TooLarge(f"a resource has at most {MAX_VALUE} bytes", code="resource_too_large", got=len(value.data))
    return value.data


def _made(
    number: int,
    material: Material,
    asked: Asked,
    *,
    imported: bool,
    handle: str = "",
    intent: Intent | None = None,
    issued: Issued | None = None,
) -> Made:
    seconds = int(asked.now.timestamp())
    fingerprint = hashlib.sha256(material.public).hexdigest() if material.public else ""
    expires = int(issuing.validity(material.chain[0])[1].timestamp()) if material.chain else None
    version = KeyVersion(number, State.ENABLED, seconds, seconds, 0, fingerprint, imported, expires, handle)
    return Made(version, material, intent, issued)


def _shows(public: bytes, kind: KeyKind) -> bool:
    try:
        return kind_of(public) is kind
    except AdytonError:
        return False


def _kind_of_device(which: Kind, known: object = None) -> MalformedRequest:
    return MalformedRequest(
        "this kind of key cannot be held by that back end",
        code="key_kind_not_by_backend",
        field="kind",
        expected=known or [kind.value for kind in KeyKind],
        got=which.value,
    )
