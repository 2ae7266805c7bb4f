"""A key used where it is: what an operation takes, which version serves it, and what it gives. Decides nothing.

Whoever calls has decided already that this party may do this operation (``key_record.allowed``, and for a workload the
release decision); here only the state of the version and the fitness of the input are looked at.
"""

from __future__ import annotations

from typing import cast

import msgspec

from adyton.broker.api_bodies import read
from adyton.crypto import key_kinds, transit
from adyton.crypto.key_kinds import Kind
from adyton.errors import MalformedRequest
from adyton.protocol import key_record
from adyton.protocol.key_record import KeyRecord, KeyVersion
from adyton.protocol.keys import TAKES, Operation, PublicView, TransitAnswer, TransitBody
from adyton.protocol.resource import ResourcePath
from adyton.stores.keys import Keys, Material


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
    if operation in {"sign", "verify"} and len(present & {"message", "digest"}) != 1 and given.digest is not None:
        raise _input("a message or its digest, not both", present)
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


def perform(  # noqa: PLR0917 -- one value each
    keys: Keys, tenant: str, path: ResourcePath, record: KeyRecord, operation: Operation, given: TransitBody
) -> TransitAnswer:
    """Do it with the version that serves it."""
    version = serving(record, operation, given)
    which = key_kinds.kind(record.kind)
    material = keys.material(tenant, path, version)
    secret, number = material.secret, version.number
    match operation:
        case "encrypt":
            text = transit.encrypt(which, secret, number, given.plaintext or b"", given.aad, given.algorithm)
            return TransitAnswer(number, ciphertext=text)
        case "decrypt":
            return TransitAnswer(number, plaintext=transit.decrypt(which, secret, given.ciphertext or "", given.aad))
        case "wrap":
            return TransitAnswer(
                number, ciphertext=transit.wrap(which, secret, number, given.plaintext or b"", given.aad)
            )
        case "unwrap":
            return TransitAnswer(number, plaintext=transit.unwrap(which, secret, given.ciphertext or "", given.aad))
        case "datakey":
            fresh = key_kinds.generate(Kind.AES_256)
            text = transit.wrap(which, secret, number, fresh, given.aad)
            return TransitAnswer(number, ciphertext=text, plaintext=None if given.bare else fresh)
        case "sign":
            name, signature = transit.sign(which, secret, given.message or b"", given.algorithm, given.digest)
            return TransitAnswer(number, signature=signature, algorithm=name)
        case "mac":
            name, code = transit.mac(which, secret, given.message or b"", given.algorithm)
            return TransitAnswer(number, signature=code, algorithm=name)
        case "verify":
            return _verified(which, material, number, given)
        case "rewrap":
            return _rewrapped(keys, tenant, path, record, material, given)


def _verified(which: Kind, material: Material, number: int, given: TransitBody) -> TransitAnswer:
    message, signature = given.message or b"", given.signature or b""
    if transit.is_mac(which):
        if given.digest is not None:
            raise _input("a message", {"digest"})
        name, valid = transit.verify_mac(which, material.secret, message, signature, given.algorithm)
    else:
        name, valid = transit.verify(which, material.public, message, signature, given.algorithm, given.digest)
    return TransitAnswer(number, valid=valid, algorithm=name)


def _rewrapped(  # noqa: PLR0917 -- one value each
    keys: Keys, tenant: str, path: ResourcePath, record: KeyRecord, old: Material, given: TransitBody
) -> TransitAnswer:
    """From the version that made it to the newest, without anybody seeing it in between."""
    which, text = key_kinds.kind(record.kind), given.ciphertext or ""
    wrapped = transit.purpose(text) == "wrap"
    newest = key_record.usable(record, "wrap" if wrapped else "encrypt")
    fresh = keys.material(tenant, path, newest).secret
    if wrapped:
        opened = transit.unwrap(which, old.secret, text, given.aad)
        return TransitAnswer(newest.number, ciphertext=transit.wrap(which, fresh, newest.number, opened, given.aad))
    opened = transit.decrypt(which, old.secret, text, given.aad)
    algorithm = "JWE" if transit.version(text) is None else ""
    return TransitAnswer(
        newest.number, ciphertext=transit.encrypt(which, fresh, newest.number, opened, given.aad, algorithm)
    )


def public(keys: Keys, tenant: str, path: ResourcePath, record: KeyRecord, number: int | None) -> PublicView:
    """The public half of a version (of the newest without ``number``); ``Conflict`` for a kind that has none.

    Of a disabled version too: what it signed can still be checked by whoever has decided to.
    """
    which = key_kinds.kind(record.kind)
    found = key_record.with_public(record, number)
    material = keys.material(tenant, path, found)
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
