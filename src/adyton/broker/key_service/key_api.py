"""Keys under ``/api/v0/keys``: made, brought in, turned, used by their owner, and destroyed.

No value leaves here: what an owner may have back is the public half, a configuration value that is not secret, and what
the key's own settings let its owner do with it. Whatever changes or uses a key is one row of the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import msgspec

from adyton.broker.delivery import asked_version
from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.api_bodies import answer, page, read, stamp
from adyton.broker.door.asked import Asked
from adyton.broker.key_service import key_use
from adyton.broker.key_service.authority import Authority
from adyton.broker.key_service.key_engines import Devices
from adyton.broker.key_service.key_making import KeyMaking, Leftovers
from adyton.broker.key_service.key_use import KeyUse
from adyton.broker.policy.policies import PolicyBook
from adyton.crypto import key_kinds
from adyton.crypto.key_kinds import Kind
from adyton.crypto.profile import USUAL, Profile
from adyton.errors import Conflict, NotFound
from adyton.protocol import key_record, release
from adyton.protocol.key_record import KeyRecord, KeyVersion, State
from adyton.protocol.keys import ConfigurationView, KeyVersionView, KeyView, NewKey, RotateBody
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.keys import StoredKey
from adyton.stores.resources import ALL
from adyton.stores.sqlite import Store

THE_STORE = "the store"
"""Where bytes of a destroyed key may lie, beside back ends, whose names have no spaces."""


class KeyApi:
    """The room ``keys``."""

    def __init__(  # noqa: PLR0917 -- one part each
        self,
        store: Store,
        book: PolicyBook,
        use: KeyUse,
        devices: Devices,
        values: Leftovers,
        profile: Profile = USUAL,
        authority: Authority | None = None,
    ) -> None:
        self._store = store
        self._use = use
        self._making = KeyMaking(authority or Authority(store.authorities), devices, values, profile)
        self._keys = store.keys
        self._book = book

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """The answer to ``/api/v0/keys/…``."""
        match (asked.method, *parts):
            case ("GET", "keys"):
                return answer(self._listed(asked.tenant, *page(asked.query, ALL)))
            case (_, "keys", repository, kind, tag, *rest):
                return self._one(asked, ResourcePath(repository, kind, tag), tuple(rest))
        return refusals.NO_PATH

    def _one(self, asked: Asked, path: ResourcePath, rest: tuple[str, ...]) -> Answer:
        tenant, now = asked.tenant, asked.now
        match (asked.method, *rest):
            case ("GET",):
                return answer(self._view(tenant, self._found(tenant, path)))
            case ("PUT",):
                return self._create(asked, path, read(asked.body, NewKey))
            case ("DELETE",):
                found = self._keys.get(tenant, path)
                if found is None and str(path) not in self._store.erasures.paths(tenant):
                    raise _absent(path)
                if found is None:  # what lies there by now, if anything, is no key
                    self._store.erasures.finish()
                    return Answer(204, changes=(("key.delete", path.uri),))
                if found.record.backend:
                    self._destroyed(asked, path, None)
                self._store.resources.delete(tenant, path)
                return Answer(204, changes=(("key.delete", path.uri),))
            case ("GET", "public"):
                number = asked_version(dict(parse_qsl(asked.query)))
                return answer(self._use.public(tenant, path, self._found(tenant, path).record, number))
            case ("GET", "value"):
                return self._value(asked, path)
            case ("POST", "rotate"):
                return self._rotate(asked, path, read(asked.body or b"{}", RotateBody))
            case ("POST", "destroy"):
                return self._destroy(asked, path, None)
            case ("POST", "versions", text, "disable"):
                stored = self._keys.disable(tenant, path, _number(text), now)
                return answer(self._view(asked.tenant, stored), ("key.disable", f"{path.uri}?version={text}"))
            case ("POST", "versions", text, "enable"):
                stored = self._keys.enable(tenant, path, _number(text), now)
                return answer(self._view(asked.tenant, stored), ("key.enable", f"{path.uri}?version={text}"))
            case ("POST", "versions", text, "destroy"):
                return self._destroy(asked, path, _number(text))
            case ("POST", "use", name):
                return self._used(asked, path, name)
        return refusals.NO_METHOD

    def _create(self, asked: Asked, path: ResourcePath, body: NewKey) -> Answer:
        key_kinds.kind(body.kind)
        binding = self._checked(asked.tenant, body.binding)
        if self._store.resources.version(asked.tenant, path) is not None:  # before an RSA key is made for nothing
            raise Conflict(
                f"there is something at {path.uri} already", code="resource_exists", field="resource", got=path.uri
            )
        record = key_record.make(  # first, so that no device makes a key for what is refused
            body.kind,
            KeyVersion(1, State.ENABLED, int(asked.now.timestamp()), int(asked.now.timestamp())),
            never_export=body.never_export or bool(body.backend),  # what a device holds does not leave it
            operations=body.operations,
            owner_operations=body.owner_operations,
            size=body.size,
            secret=body.secret,
            certificate=body.certificate,
            backend=body.backend,
        )
        made = self._making.version(asked, path, record, 1, body.value, body.certificate)
        record = msgspec.structs.replace(record, versions=(made.version,))
        with self._making.kept_or_destroyed(path, made):
            stored = self._keys.create(
                asked.tenant, path, record, made.material, binding, asked.now, made.intent, made.issued
            )
        return answer(self._view(asked.tenant, stored), ("key.set", path.uri))

    def _rotate(self, asked: Asked, path: ResourcePath, body: RotateBody) -> Answer:
        found = self._found(asked.tenant, path)
        record = found.record
        certificate = body.certificate or record.certificate
        made = self._making.version(asked, path, record, record.newest.number + 1, body.value, certificate)
        with self._making.kept_or_destroyed(path, made):
            stored = self._keys.rotate(
                asked.tenant, path, made.material, made.version, record, asked.now, made.intent, made.issued
            )
        return answer(self._view(asked.tenant, stored), ("key.rotate", f"{path.uri}?version={made.version.number}"))

    def _destroy(self, asked: Asked, path: ResourcePath, number: int | None) -> Answer:
        return answer(self._view(asked.tenant, self._destroyed(asked, path, number)))

    def _destroyed(self, asked: Asked, path: ResourcePath, number: int | None) -> StoredKey:
        """In the record first, so that nobody uses it any more; then where it lies. Doing it again does what is left."""
        stored = self._keys.destroy(asked.tenant, path, number, asked.now)
        asked.deed.settle(("key.destroy", path.uri if number is None else f"{path.uri}?version={number}"))
        for version in stored.record.versions:
            if number in {None, version.number}:
                self._making.destroy(asked.tenant, path, stored.record, version)
        return stored

    def _used(self, asked: Asked, path: ResourcePath, name: str) -> Answer:
        operation, given = key_use.parse(name, asked.body)
        record = self._found(asked.tenant, path).record
        key_record.allowed(record, operation, owner=True)
        done = self._use.perform(asked.tenant, path, record, operation, given)
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

    def _listed(self, tenant: str, after: str, limit: int) -> list[KeyView]:
        found = self._keys.list(tenant, after=after, limit=limit)
        uses = self._keys.uses.of(tenant, found[0].info.path, found[-1].info.path) if found else {}
        left = self._left(tenant, found)
        return [view(stored, uses, left.get(str(stored.info.path), ())) for stored in found]

    def _view(self, tenant: str, stored: StoredKey) -> KeyView:
        left = self._left(tenant, [stored])
        return view(stored, self._keys.uses.of(tenant, stored.info.path), left.get(str(stored.info.path), ()))

    def _left(self, tenant: str, found: Iterable[StoredKey]) -> dict[str, list[str]]:
        """Where what was destroyed of these keys still lies, by path."""
        destroyed = [stored for stored in found if any(one.state is State.DESTROYED for one in stored.record.versions)]
        left: dict[str, list[str]] = {}
        if destroyed:
            for path in self._store.erasures.paths(tenant):
                left.setdefault(path, []).append(THE_STORE)
            for backend in sorted({stored.record.backend for stored in destroyed} - {""}):
                for path in {one.removal.path for one in self._store.removals.keys(tenant, backend)}:
                    left.setdefault(path, []).append(backend)
        return left

    def _found(self, tenant: str, path: ResourcePath) -> StoredKey:
        found = self._keys.get(tenant, path)
        if found is None:
            raise _absent(path, erasing=str(path) in self._store.erasures.paths(tenant))
        return found

    def _checked(self, tenant: str, binding: Binding) -> Binding:
        self._book.check_binding(tenant, release.check(binding))
        return binding


def _absent(path: ResourcePath, *, erasing: bool = False) -> NotFound:
    return NotFound(
        f"there is no key {path.uri}",
        code="key_absent",
        field="resource",
        got=path.uri,
        hint=f"it was deleted, and its bytes still lie in the store: adyton key delete {path.uri} goes on with that"
        if erasing
        else None,
    )


def view(stored: StoredKey, uses: Mapping[tuple[str, int], int], erasing: Iterable[str] = ()) -> KeyView:
    """What may be shown of a key. ``uses`` by path and serial; ``erasing``: where destroyed versions of it still lie."""
    path = str(stored.info.path)
    record: KeyRecord = stored.record
    return KeyView(
        uri=stored.info.path.uri,
        kind=record.kind,
        updated=stamp(stored.info.updated),
        never_export=record.never_export,
        operations=list(record.operations),
        owner_operations=list(record.owner_operations),
        binding=stored.info.binding,
        versions=[_shown(version, uses.get((path, version.serial))) for version in record.versions],
        size=record.size,
        secret=record.secret,
        backend=record.backend,
        erasing=list(erasing),
    )


def _shown(version: KeyVersion, uses: int | None) -> KeyVersionView:
    return KeyVersionView(
        number=version.number,
        state=version.state.value,
        created=_time(version.created),
        changed=_time(version.changed),
        imported=version.imported,
        fingerprint=version.fingerprint,
        expires=None if version.expires is None else _time(version.expires),
        uses=uses,
    )


def _time(seconds: int) -> str:
    return stamp(datetime.fromtimestamp(seconds, UTC))


def _number(text: str) -> int:
    number = asked_version({"version": text})
    if number is None:
        raise ValueError("a version was given")
    return number
