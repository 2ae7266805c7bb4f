"""The life of a key: which versions there are, in what state, and what each may still be used for. Pure.

::

    (none) -- make --> enabled <-- enable / disable --> disabled
                          |                                |
                          +----------- destroy ------------+--> destroyed, for ever

Laws, whatever the order of calls: a destroyed version never has another state again and its number is never given
twice; ``never_export``, kind and back end never change; what ``never_export`` holds is never ``releasable``.
The newest version is the one with the highest number, whatever its state: a disabled newest version is not replaced by
an older one behind anybody's back, it refuses.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from adyton.crypto.key_kinds import OPERATIONS, kind
from adyton.errors import Conflict, MalformedRequest, NotFound

MAX_VERSIONS = 256
RELEASE = "release"
NEWEST_ONLY = frozenset({"encrypt", "sign", "mac", "wrap", "datakey"})
"""What makes something new: by the newest version only. The others use whichever version it was made with."""
ANY_OPERATION = OPERATIONS | {RELEASE}


class State(StrEnum):
    """Of one version."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DESTROYED = "destroyed"


class KeyVersion(msgspec.Struct, frozen=True):
    """One version. Times in whole Unix seconds. ``fingerprint``: SHA-256 of the public half, hex; empty without one.

    ``serial`` is a number that its tenant never had before: it names the row of the material. ``handle`` is what the back
    end calls it; empty for the embedded store.
    """

    number: int
    state: State
    created: int
    changed: int
    serial: int = 0
    fingerprint: str = ""
    imported: bool = False
    expires: int | None = None
    handle: str = ""


class CertificateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate from the tenant's authority for a pair: ``names`` are DNS names, IP addresses and URIs."""

    subject: str
    names: list[str]
    days: int = 365


class KeyRecord(msgspec.Struct, frozen=True):
    """A key without its material. ``operations`` are allowed to whom a binding names; ``owner_operations`` to its owner."""

    kind: str
    never_export: bool
    operations: tuple[str, ...]
    owner_operations: tuple[str, ...]
    versions: tuple[KeyVersion, ...]
    size: int = 0
    secret: bool = True
    backend: str = ""
    certificate: CertificateRequest | None = None

    @property
    def newest(self) -> KeyVersion:
        """The version with the highest number."""
        return self.versions[-1]


def make(
    which: str,
    first: KeyVersion,
    *,
    never_export: bool = False,
    operations: Iterable[str] | None = None,
    owner_operations: Iterable[str] = (),
    size: int = 0,
    secret: bool = True,
    backend: str = "",
    certificate: CertificateRequest | None = None,
) -> KeyRecord:
    """A new key with its first version. ``operations`` ``None``: all that its kind knows, and release unless it never leaves.

    ``MalformedRequest`` for an operation that the kind does not know, or a release of what never leaves.
    """
    known = kind(which).operations
    allowed = known | (frozenset() if never_export else {RELEASE})
    given = tuple(sorted(allowed)) if operations is None else _checked(operations, allowed, "operations")
    owners = _checked(owner_operations, known, "owner_operations")
    if first.number != 1 or first.state is not State.ENABLED:
        raise ValueError("the first version is number 1, enabled")
    if never_export and not known - {"public"}:
        raise MalformedRequest(
            "what can neither leave nor be used is of no use", code="key_useless", field="never_export", got=which
        )
    return KeyRecord(which, never_export, given, owners, (first,), size, secret, backend, certificate)


def rotate(record: KeyRecord, version: KeyVersion) -> KeyRecord:
    """With one more version, which is the newest from then on. ``Conflict`` if there are too many."""
    if len(record.versions) >= MAX_VERSIONS:
        raise Conflict(f"a key has at most {MAX_VERSIONS} versions", code="key_versions_full", got=len(record.versions))
    if version.number != record.newest.number + 1 or version.state is not State.ENABLED:
        raise ValueError("a new version has the next number, enabled")
    return msgspec.structs.replace(record, versions=(*record.versions, version))


def disable(record: KeyRecord, number: int, now: int) -> KeyRecord:
    """Nobody can use or get this version until it is enabled again."""
    return _turn(record, number, State.DISABLED, now)


def enable(record: KeyRecord, number: int, now: int) -> KeyRecord:
    """It can be used again. ``Conflict`` if it is destroyed: that is for ever."""
    return _turn(record, number, State.ENABLED, now)


def destroy(record: KeyRecord, number: int, now: int) -> KeyRecord:
    """Its material is about to be erased: whoever stores this record erases it in the same transaction."""
    return _turn(record, number, State.DESTROYED, now)


def _turn(record: KeyRecord, number: int, state: State, now: int) -> KeyRecord:
    found = version(record, number)
    if found.state is State.DESTROYED:
        raise _destroyed(number)
    turned = msgspec.structs.replace(found, state=state, changed=now, expires=found.expires)
    versions = tuple([turned if one.number == number else one for one in record.versions])
    return msgspec.structs.replace(record, versions=versions)


def version(record: KeyRecord, number: int | None) -> KeyVersion:
    """The version of this number, or the newest; ``NotFound``."""
    if number is None:
        return record.newest
    for one in record.versions:
        if one.number == number:
            return one
    raise NotFound("the key has no such version", code="key_version_absent", field="version", got=number)


def usable(record: KeyRecord, operation: str, number: int | None = None) -> KeyVersion:
    """The version that serves ``operation``; ``Conflict`` says why none does.

    ``number``: the version that was asked for, or that the text to be opened was made with.
    """
    if operation != RELEASE and operation not in kind(record.kind).operations:
        raise Conflict(
            f"a key of kind {record.kind} cannot {operation}",
            code="key_operation_unknown",
            field="operation",
            expected=sorted(kind(record.kind).operations),
            got=operation[:40],
        )
    if operation == RELEASE and record.never_export:
        raise Conflict("this key never leaves", code="key_never_export", field="operation", got=operation)
    found = version(record, number)
    if found.state is State.DESTROYED:
        raise _destroyed(found.number)
    if found.state is State.DISABLED:
        raise Conflict(
            f"version {found.number} of the key is disabled",
            code="key_version_disabled",
            field="version",
            got=found.number,
        )
    if operation in NEWEST_ONLY and found is not record.newest:
        raise Conflict(
            f"nothing new is made with an older version of a key: {operation} takes the newest",
            code="key_version_old",
            field="version",
            expected=record.newest.number,
            got=found.number,
        )
    return found


def with_public(record: KeyRecord, number: int | None = None) -> KeyVersion:
    """The version whose public half is asked for, disabled or not; ``Conflict`` if the kind has none or it is destroyed."""
    if not kind(record.kind).has_public:
        raise Conflict(
            f"a key of kind {record.kind} has no public half", code="key_public_absent", field="kind", got=record.kind
        )
    found = version(record, number)
    if found.state is State.DESTROYED:
        raise _destroyed(found.number)
    return found


def allowed(record: KeyRecord, operation: str, *, owner: bool = False) -> None:
    """``Conflict`` ``key_operation_refused`` unless the key's settings allow the operation to this party."""
    if operation == "public":  # no secret is touched; a binding, or the owner's right to the tenant, decides
        return
    if operation not in (record.owner_operations if owner else record.operations):
        raise Conflict(
            f"the key's settings do not let {'its owner' if owner else 'a workload'} {operation}",
            code="key_operation_refused",
            field="operation",
            expected=list(record.owner_operations if owner else record.operations),
            got=operation[:40],
        )


def _checked(given: Iterable[str], known: frozenset[str], field: str) -> tuple[str, ...]:
    named = tuple(sorted(set(given)))
    if unknown := sorted(set(named) - known):
        raise MalformedRequest(
            "this key cannot be used so",
            code="key_operations_invalid",
            field=field,
            expected=sorted(known),
            got=[name[:40] for name in unknown[:8]],
        )
    return named


def _destroyed(number: int) -> Conflict:
    return Conflict(
        f"version {number} of the key is destroyed", code="key_version_destroyed", field="version", got=number
    )
