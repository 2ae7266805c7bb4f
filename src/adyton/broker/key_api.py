"""Keys under ``/api/v0/keys`` and ``/api/v0/authority``: made, brought in, turned, used by their owner, and destroyed.

No value leaves here: what an owner may have back is the public half, a configuration value that is not secret, and what
the key's own settings let its owner do with it. Whatever changes or uses a key is one row of the record.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import msgspec

from adyton.broker import configuration, key_use, refusals
from adyton.broker.answer import Answer
from adyton.broker.api_bodies import answer, read, stamp
from adyton.broker.asked import Asked
from adyton.broker.authority import Authority
from adyton.broker.delivery import asked_version
from adyton.broker.policies import PolicyBook
from adyton.crypto import issuing, key_import, key_kinds
from adyton.crypto.key_kinds import WRITTEN, Kind
from adyton.errors import Conflict, MalformedRequest, NotFound, TooLarge
from adyton.protocol import key_record, release
from adyton.protocol.key_record import CertificateRequest, KeyRecord, KeyVersion, State
from adyton.protocol.keys import ConfigurationView, KeyVersionView, KeyView, NewKey, RotateBody, ValueBody
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.keys import Material, StoredKey
from adyton.stores.resources import MAX_VALUE
from adyton.stores.sqlite import Store


class KeyApi:
    """The rooms ``keys`` and ``authority``."""

    def __init__(self, store: Store, book: PolicyBook) -> None:
        self._store = store
        self._keys = store.keys
        self._book = book
        self._authority = Authority(store.secrets)

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer to ``/api/v0/keys/…`` and ``/api/v0/authority``."""
        match (asked.method, *parts):
            case ("GET", "authority"):
                return answer(self._authority.show(asked.tenant, asked.now))
            case ("GET", "keys"):
                return answer([view(stored) for stored in self._keys.list(asked.tenant)])
            case (_, "keys", repository, kind, tag, *rest):
                return self._one(asked, ResourcePath(repository, kind, tag), tuple(rest))
        return refusals.NO_PATH

    def _one(self, asked: Asked, path: ResourcePath, rest: tuple[str, ...]) -> Answer:
        tenant, now = asked.tenant, asked.now
        match (asked.method, *rest):
            case ("GET",):
                return answer(view(self._found(tenant, path)))
            case ("PUT",):
                return self._create(asked, path, read(asked.body, NewKey))
            case ("DELETE",):
                self._found(tenant, path)
                self._store.resources.delete(tenant, path)
                return Answer(204, changes=(("key.delete", path.uri),))
            case ("GET", "public"):
                number = asked_version(dict(parse_qsl(asked.query)))
                return answer(key_use.public(self._keys, tenant, path, self._found(tenant, path).record, number))
            case ("GET", "value"):
                return self._value(asked, path)
            case ("POST", "rotate"):
                return self._rotate(asked, path, read(asked.body or b"{}", RotateBody))
            case ("POST", "destroy"):
                return answer(view(self._keys.destroy(tenant, path, None, now)), ("key.destroy", path.uri))
            case ("POST", "versions", text, "disable"):
                stored = self._keys.disable(tenant, path, _number(text), now)
                return answer(view(stored), ("key.disable", f"{path.uri}?version={text}"))
            case ("POST", "versions", text, "enable"):
                stored = self._keys.enable(tenant, path, _number(text), now)
                return answer(view(stored), ("key.enable", f"{path.uri}?version={text}"))
            case ("POST", "versions", text, "destroy"):
                stored = self._keys.destroy(tenant, path, _number(text), now)
                return answer(view(stored), ("key.destroy", f"{path.uri}?version={text}"))
            case ("POST", "use", name):
                return self._use(asked, path, name)
        return refusals.NO_METHOD

    def _create(self, asked: Asked, path: ResourcePath, body: NewKey) -> Answer:
        which = key_kinds.kind(body.kind)
        binding = self._checked(asked.tenant, body.binding)
        if self._store.resources.version(asked.tenant, path) is not None:  # before an RSA key is made for nothing
            raise Conflict(
                f"there is something at {path.uri} already", code="resource_exists", field="resource", got=path.uri
            )
        material = self._material(asked, which, body.size, body.value, body.certificate)
        record = key_record.make(
            body.kind,
            _version(1, material, asked.now, imported=body.value is not None),
            never_export=body.never_export,
            operations=body.operations,
            owner_operations=body.owner_operations,
            size=body.size,
            secret=body.secret,
            certificate=body.certificate,
        )
        stored = self._keys.create(asked.tenant, path, record, material, binding, asked.now)
        return answer(view(stored), ("key.set", path.uri))

    def _rotate(self, asked: Asked, path: ResourcePath, body: RotateBody) -> Answer:
        found = self._found(asked.tenant, path)
        record = found.record
        certificate = body.certificate or record.certificate
        material = self._material(asked, key_kinds.kind(record.kind), record.size, body.value, certificate)
        version = _version(record.newest.number + 1, material, asked.now, imported=body.value is not None)
        stored = self._keys.rotate(asked.tenant, path, material, version, record, asked.now)
        return answer(view(stored), ("key.rotate", f"{path.uri}?version={version.number}"))

    def _material(
        self, asked: Asked, which: Kind, size: int, value: ValueBody | None, certificate: CertificateRequest | None
    ) -> Material:
        """A new version's content: made inside, or what was brought in."""
        chain: tuple[bytes, ...] = ()
        if which in WRITTEN:
            if value is None:
                raise MalformedRequest("there is no value", code="key_value_missing", field="value")
            if certificate is not None:
                raise MalformedRequest("only a pair has a certificate", code="certificate_request", field="certificate")
            return Material(_written(which, value))
        if value is None:
            secret = key_kinds.generate(which, size)
        elif value.format == "json" or value.format == "toml":  # noqa: PLR1714 -- mypy narrows this, and no set
            raise MalformedRequest("not a key's format", code="key_malformed", field="format", got=value.format)
        else:
            secret, chain = key_import.read(which, value.format, value.data)
        public = key_kinds.public_der(which, secret)
        if certificate is not None and not chain:
            chain = self._authority.issue(asked.tenant, which, public, certificate, asked.now)
        return Material(secret, public, chain)

    def _use(self, asked: Asked, path: ResourcePath, name: str) -> Answer:
        operation, given = key_use.parse(name, asked.body)
        record = self._found(asked.tenant, path).record
        key_record.allowed(record, operation, owner=True)
        done = key_use.perform(self._keys, asked.tenant, path, record, operation, given)
        return answer(done, (f"key.{operation}", f"{path.uri}?version={done.version}"))

    def _value(self, asked: Asked, path: ResourcePath) -> Answer:
        record = self._found(asked.tenant, path).record
        if record.kind != Kind.CONFIGURATION.value or record.secret:
            raise Conflict(
                "this value is not shown to anybody", code="key_value_secret", field="resource", got=path.uri
            )
        number = asked_version(dict(parse_qsl(asked.query)))
        version = key_record.usable(record, key_record.RELEASE, number)
        value = msgspec.json.decode(self._keys.material(asked.tenant, path, version).secret)
        return answer(ConfigurationView(path.uri, version.number, value))

    def _found(self, tenant: str, path: ResourcePath) -> StoredKey:
        found = self._keys.get(tenant, path)
        if found is None:
            raise NotFound(f"there is no key {path.uri}", code="key_absent", field="resource", got=path.uri)
        return found

    def _checked(self, tenant: str, binding: Binding) -> Binding:
        self._book.check_binding(tenant, release.check(binding))
        return binding


def _written(which: Kind, value: ValueBody) -> bytes:
    if which is Kind.CONFIGURATION:
        return configuration.kept(value)
    if value.format != "raw":
        raise MalformedRequest("an opaque value is raw bytes", code="key_malformed", field="format", got=value.format)
    if len(value.data) > MAX_VALUE:
        raise TooLarge(f"a resource has at most {MAX_VALUE} bytes", code="resource_too_large", got=len(value.data))
    return value.data


def _version(number: int, material: Material, now: datetime, *, imported: bool) -> KeyVersion:
    seconds = int(now.timestamp())
    fingerprint = hashlib.sha256(material.public).hexdigest() if material.public else ""
    expires = int(issuing.validity(material.chain[0])[1].timestamp()) if material.chain else None
    return KeyVersion(number, State.ENABLED, seconds, seconds, 0, fingerprint, imported, expires)


def view(stored: StoredKey) -> KeyView:
    """What may be shown of a key."""
    record: KeyRecord = stored.record
    return KeyView(
        uri=stored.info.path.uri,
        kind=record.kind,
        updated=stamp(stored.info.updated),
        never_export=record.never_export,
        operations=list(record.operations),
        owner_operations=list(record.owner_operations),
        binding=stored.info.binding,
        versions=[_shown(version) for version in record.versions],
        size=record.size,
        secret=record.secret,
        backend=record.backend,
    )


def _shown(version: KeyVersion) -> KeyVersionView:
    return KeyVersionView(
        number=version.number,
        state=version.state.value,
        created=_time(version.created),
        changed=_time(version.changed),
        imported=version.imported,
        fingerprint=version.fingerprint,
        expires=None if version.expires is None else _time(version.expires),
    )


def _time(seconds: int) -> str:
    return stamp(datetime.fromtimestamp(seconds, UTC))


def _number(text: str) -> int:
    number = asked_version({"version": text})
    if number is None:
        raise ValueError("a version was given")
    return number
