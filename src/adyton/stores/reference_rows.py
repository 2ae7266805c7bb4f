"""One stored reference value: what is known of it, and the sealed form that decides.

Everything that a decision rests on (value, validity, state, provider, proof) is sealed together; the columns beside it
are for people and queries, and say nothing that is believed. ``form`` 1 is what version 2 of the schema and older held:
the expiry in eight bytes, then the value; what was set then was set by hand and is stable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec

from adyton.errors import DocumentInvalid, TooLarge
from adyton.rats.types import JsonValue
from adyton.stores.seal import Sealer
from adyton.stores.sql import Transaction

MAX_VALUE = 256 * 1024
MAX_NAME = 256
COLUMNS = "name, candidate, version, updated, form, sealed"
STABLE, DEPRECATED, CANDIDATE, REVOKED = "stable", "deprecated", "candidate", "revoked"
_COUNTS = frozenset({STABLE, DEPRECATED})
_KINDS = {1: "reference", 2: "reference 2"}
_FORM = 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StoredReference:
    """One reference value. It counts from ``not_before`` until before ``expires`` (``None``: without bound), if its state does.

    ``provider`` is empty for what the owner set by hand; then there is no ``kind``, ``proof`` (32 bytes), ``signers``
    (ids of keys), ``series``, ``issue`` or ``issued`` either. ``reason`` is why it was revoked.
    """

    name: str
    value: JsonValue
    version: int
    updated: datetime
    expires: datetime | None
    not_before: datetime | None = None
    state: str = STABLE
    provider: str = ""
    kind: str = ""
    proof: bytes = b""
    signers: tuple[str, ...] = ()
    series: str = ""
    issue: int = 0
    issued: datetime | None = None
    reason: str = ""

    def counts(self, now: datetime) -> bool:
        """Whether evidence may match it at ``now``."""
        return (
            self.state in _COUNTS
            and (self.not_before is None or self.not_before <= now)
            and (self.expires is None or now < self.expires)
        )

    @property
    def candidate(self) -> bool:
        """Whether it stands beside the value in force, waiting."""
        return self.state == CANDIDATE

    def revoked(self, reason: str) -> StoredReference:
        """The same, revoked."""
        return replace(self, state=REVOKED, reason=reason)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A tenant's reference values that count at one moment (``rats.ports.ReferenceValues``).

    ``expires_next`` is when the first of them ends or another begins: from then on the snapshot must be taken anew.
    ``deprecated`` are the names of those that count, though their provider or the owner wants them gone.
    """

    generation: int
    values: Mapping[str, JsonValue]
    expires_next: datetime | None
    deprecated: frozenset[str] = frozenset()

    @classmethod
    def of(cls, generation: int, stored: Iterable[StoredReference], now: datetime) -> Snapshot:
        """What of ``stored`` counts at ``now``."""
        values: dict[str, JsonValue] = {}
        deprecated, turns = [], []
        for one in stored:
            if one.counts(now):
                values[one.name] = one.value
                turns.append(one.expires)
                if one.state == DEPRECATED:
                    deprecated.append(one.name)
            elif one.not_before is not None and now < one.not_before and one.counts(one.not_before):
                turns.append(one.not_before)
        ends = min((turn for turn in turns if turn is not None), default=None)
        return cls(generation, values, ends, frozenset(deprecated))

    def get(self, name: str) -> JsonValue:
        """The value, or ``None`` when there is none that counts."""
        return self.values.get(name)

    def names(self) -> Iterable[str]:
        """The names that have a value that counts."""
        return self.values.keys()


class _Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sealed. Times in microseconds since 1970, ``proof`` in hex."""

    value: Any
    expires: int | None = None
    not_before: int | None = None
    state: str = STABLE
    provider: str = ""
    kind: str = ""
    proof: str = ""
    signers: tuple[str, ...] = ()
    series: str = ""
    issue: int = 0
    issued: int | None = None
    reason: str = ""


_DECODE = msgspec.json.Decoder(_Body).decode


def check(name: str, value: JsonValue) -> None:
    """``DocumentInvalid`` or ``TooLarge`` for a name or a value that cannot be stored."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise DocumentInvalid(
            f"a reference value's name has 1 to {MAX_NAME} printable characters",
            code="reference_name_invalid",
            field="name",
            got=name[:80],
        )
    if value is None:
        raise DocumentInvalid(
            "a reference value may not be null", code="reference_null", field=name, hint="delete it instead"
        )
    if len(msgspec.json.encode(value)) > MAX_VALUE:
        raise TooLarge(f"a reference value has at most {MAX_VALUE} bytes", code="reference_too_large", got=name[:80])


def write(transaction: Transaction, sealer: Sealer, tenant: str, one: StoredReference, *, slot: int) -> None:
    """Insert or replace; ``slot`` 0 is in force, 1 the candidate beside it."""
    body = msgspec.json.encode(
        _Body(
            value=one.value,
            expires=_micros(one.expires),
            not_before=_micros(one.not_before),
            state=one.state,
            provider=one.provider,
            kind=one.kind,
            proof=one.proof.hex(),
            signers=one.signers,
            series=one.series,
            issue=one.issue,
            issued=_micros(one.issued),
            reason=one.reason,
        )
    )
    sealed = sealer.seal_for(transaction, body, tenant, _KINDS[_FORM], f"{slot} {one.name}", one.version)
    transaction.execute(
        'INSERT INTO "references" VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (tenant, name, candidate) DO UPDATE SET'
        " version=excluded.version, updated=excluded.updated, not_before=excluded.not_before,"
        " expires=excluded.expires, state=excluded.state, provider=excluded.provider, proof=excluded.proof,"
        " form=excluded.form, sealed=excluded.sealed",
        (
            tenant,
            one.name,
            slot,
            one.version,
            one.updated.timestamp(),
            one.not_before.timestamp() if one.not_before else None,
            one.expires.timestamp() if one.expires else None,
            one.state,
            one.provider,
            one.proof,
            _FORM,
            sealed,
        ),
    )


def read(sealer: Sealer, tenant: str, row: tuple[Any, ...]) -> StoredReference:
    """One row of ``COLUMNS``; ``Unavailable`` if it does not open as what it says it is."""
    name, slot, version, updated, form, sealed = row
    changed = datetime.fromtimestamp(updated, UTC)
    if form == 1:
        opened = sealer.open(sealed, tenant, _KINDS[1], name, version)
        micros = int.from_bytes(opened[:8], "big")
        value = cast("JsonValue", msgspec.json.decode(opened[8:]))
        return StoredReference(name, value, version, changed, _time(micros or None))
    body = _DECODE(sealer.open(sealed, tenant, _KINDS[_FORM], f"{slot} {name}", version))
    return StoredReference(
        name=name,
        value=body.value,
        version=version,
        updated=changed,
        expires=_time(body.expires),
        not_before=_time(body.not_before),
        state=body.state,
        provider=body.provider,
        kind=body.kind,
        proof=bytes.fromhex(body.proof),
        signers=body.signers,
        series=body.series,
        issue=body.issue,
        issued=_time(body.issued),
        reason=body.reason,
    )


def _micros(time: datetime | None) -> int | None:
    return None if time is None else (time - _EPOCH) // timedelta(microseconds=1)


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)
