"""A key used where it is: what an operation takes, which version serves it, and what it gives. Decides nothing.

Whoever calls has decided already that this party may do this operation (``key_record.allowed``, and for a workload the
release decision); here only the state of the version and the fitness of the input are looked at.
"""

from __future__ import annotations

from typing import cast

import msgspec

from adyton.broker.door.api_bodies import read
from adyton.broker.key_service.key_engines import Devices, Embedded, Engine, Held
from adyton.crypto import key_kinds, transit
from adyton.crypto.key_kinds import Kind
from adyton.errors import MalformedRequest
from adyton.protocol import key_record
from adyton.protocol.key_record import KeyRecord, KeyVersion
from adyton.protocol.keys import TAKES, Operation, PublicView, TransitAnswer, TransitBody
from adyton.protocol.resource import ResourcePath
from adyton.stores.key_uses import COUNTED, MAKES
from adyton.stores.keys import Keys


def parse(operation: str, body: bytes) -> tuple[Operation, TransitBody]:
    """The operation and its input; ``MalformedRequest`` for a name, member or lack that it does not know."""
    if operation not in TAKES:
        raise MalformedRequest(
            "there is no such operation",
            code="transit_operation_unknown",
            field="operation",
            expected=sorted(TAKES),
            got=operation[:40],
        )
    given = read(body or b"{}", TransitBody)
    needed, more = TAKES[operation]
    present = {
        field.name for field in msgspec.structs.fields(TransitBody) if getattr(given, field.name) != field.default
    }
    if operation in {"sign", "verify"} and len(present & {"message", "digest"}) != 1:
        raise _input("a message, or its digest", present)
    if needed - present or present - needed - more:
        raise _input({"needed": sorted(needed), "besides": sorted(more)}, present)
    return cast("Operation", operation), given


def serving(record: KeyRecord, operation: Operation, given: TransitBody) -> KeyVersion:
    """The version that does it; ``Conflict`` if its state does not let it, ``MalformedRequest`` for an unknown text."""
    number = given.version
    if given.ciphertext is not None and (said := transit.version(given.ciphertext)) is not None:
        if number not in {None, said}:
            raise _input(f"version {said}, which made the ciphertext, or none", {"version"})
        number = said
    return key_record.usable(record, operation, number)


class KeyUse:
    """Keys used where they are: by this broker, or by the back end that holds them."""

    def __init__(self, keys: Keys, devices: Devices) -> None:
        self._keys = keys
        self._devices = devices

    def perform(
        self, tenant: str, path: ResourcePath, record: KeyRecord, operation: Operation, given: TransitBody
    ) -> TransitAnswer:
        """Do it with the version that serves it. Blocks: a device answers within its deadline, or ``Unavailable``."""
        version = serving(record, operation, given)
        engine, number = self._engine(tenant, path, record, version), version.number
        if operation in MAKES and operation != "rewrap":
            self._count(tenant, path, record, version)
        plaintext, text, message = given.plaintext or b"", given.ciphertext or "", given.message or b""
        match operation:
            case "encrypt":
                return TransitAnswer(number, ciphertext=engine.encrypt(plaintext, given.aad, given.algorithm))
            case "decrypt":
                return TransitAnswer(number, plaintext=engine.decrypt(text, given.aad))
            case "wrap":
                return TransitAnswer(number, ciphertext=engine.wrap(plaintext, given.aad))
            case "unwrap":
                return TransitAnswer(number, plaintext=engine.unwrap(text, given.aad))
            case "datakey":
                fresh = key_kinds.generate(Kind.AES_256)
                wrapped = engine.wrap(fresh, given.aad)
                return TransitAnswer(number, ciphertext=wrapped, plaintext=None if given.bare else fresh)
            case "sign":
                name, signature = engine.sign(message, given.algorithm, given.digest)
                return TransitAnswer(number, signature=signature, algorithm=name)
            case "mac":
                name, code = engine.mac(message, given.algorithm)
                return TransitAnswer(number, signature=code, algorithm=name)
            case "verify":
                name, valid = engine.verify(message, given.signature or b"", given.algorithm, given.digest)
                return TransitAnswer(number, valid=valid, algorithm=name)
            case "rewrap":
                return self._rewrapped(tenant, path, record, engine, given)

    def _rewrapped(
        self, tenant: str, path: ResourcePath, record: KeyRecord, old: Engine, given: TransitBody
    ) -> TransitAnswer:
        """From the version that made it to the newest, without anybody seeing it in between."""
        text = given.ciphertext or ""
        wrapped = transit.purpose(text) == "wrap"
        newest = key_record.usable(record, "wrap" if wrapped else "encrypt")
        fresh = self._engine(tenant, path, record, newest)
        self._count(tenant, path, record, newest)
        if wrapped:
            return TransitAnswer(newest.number, ciphertext=fresh.wrap(old.unwrap(text, given.aad), given.aad))
        algorithm = "JWE" if transit.version(text) is None else ""
        opened = old.decrypt(text, given.aad)
        return TransitAnswer(newest.number, ciphertext=fresh.encrypt(opened, given.aad, algorithm))

    def _count(self, tenant: str, path: ResourcePath, record: KeyRecord, version: KeyVersion) -> None:
        """One more ciphertext of an AES key, whoever holds it; ``Conflict`` if it has made as many as it may."""
        if record.kind in COUNTED:
            self._keys.uses.spend(tenant, path, version)

    def _engine(self, tenant: str, path: ResourcePath, record: KeyRecord, version: KeyVersion) -> Engine:
        which, material = key_kinds.kind(record.kind), self._keys.material(tenant, path, version)
        if record.backend:
            device = self._devices.configured_for(tenant, record.backend)
            return Held(which, version.number, device, version.handle, material.public)
        return Embedded(which, version.number, material)

    def public(self, tenant: str, path: ResourcePath, record: KeyRecord, number: int | None) -> PublicView:
        """The public half of a version (of the newest without ``number``); ``Conflict`` for a kind that has none.

        Of a disabled version too: what it signed can still be checked by whoever has decided to.
        """
        which = key_kinds.kind(record.kind)
        found = key_record.with_public(record, number)
        material = self._keys.material(tenant, path, found)
        return PublicView(
            uri=path.uri,
            kind=record.kind,
            version=found.number,
            pem=key_kinds.public_pem(material.public),
            jwk=key_kinds.public_jwk(which, material.public),
            fingerprint=found.fingerprint,
            chain=key_kinds.chain_pem(material.chain).decode("ascii"),
        )


def _input(expected: object, present: set[str]) -> MalformedRequest:
    return MalformedRequest(
        "the operation takes other members",
        code="transit_input",
        field="body",
        expected=expected if isinstance(expected, str) else str(expected),
        got=sorted(present),
    )
