"""Adyton's own form: JSON that says its values, their issue and their validity, in a DSSE envelope.

::

    {"id": "guest-images", "issue": 7, "issued": "2026-06-01T00:00:00Z",
     "not_before": "2026-06-01T00:00:00Z", "not_after": "2026-12-01T00:00:00Z",
     "values": {"snp_launch_measurement": ["<hex>"]}, "state": "stable"}

``id``, ``issue`` and ``values`` are needed. Without the envelope it is unsigned, and refused unless the provider's entry
accepts such documents in so many words.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from adyton.provenance import dsse, olpc, times
from adyton.provenance.provider import UNSIGNED, Provider
from adyton.provenance.values import State, Stated, Statement, refused

KIND = "json"
MEDIA_TYPE = "application/vnd.adyton.reference-values+json"
SPEC = "reference values in JSON"
_MEMBERS = frozenset({"id", "issue", "issued", "not_before", "not_after", "values", "state"})
_MAX_ISSUE = 2**53 - 1


class Plain:
    """Reads the form above, enveloped or bare."""

    kind = KIND

    def recognises(self, parsed: object, document: bytes) -> bool:
        """An envelope of the media type, or an object with ``values`` and ``issue``."""
        if dsse.is_envelope(parsed):
            return isinstance(parsed, dict) and parsed["payloadType"] == MEDIA_TYPE
        return isinstance(parsed, dict) and "values" in parsed and "issue" in parsed

    def extract(self, parsed: Any, document: bytes, provider: Provider, now: datetime) -> Statement:
        """Verify, then read."""
        if dsse.is_envelope(parsed):
            envelope = dsse.parse(parsed)
            signers = dsse.verify(envelope, provider.keys, provider.threshold)
            return _read(envelope.content(), hashlib.sha256(envelope.signed).digest(), signers)
        if UNSIGNED not in provider.accept:
            raise unsigned("a DSSE envelope")
        return _read(parsed, hashlib.sha256(_canonical(parsed)).digest(), frozenset())


def unsigned(expected: str) -> Exception:
    """The refusal of a document without any signature."""
    return refused(
        "the document is not signed",
        "provenance_unsigned",
        field="signatures",
        expected=expected,
        got="none",
        hint=f"sign it, or give its provider the word {UNSIGNED}: then whoever can hand it over decides what is trusted",
    )


def _canonical(value: object) -> bytes:
    try:
        return olpc.canonical(_without_floats(value))
    except ValueError as error:
        raise _malformed("values", "JSON", str(error)) from error


def _without_floats(value: object) -> object:
    if isinstance(value, float):
        return ["float", repr(value)]
    if isinstance(value, list):
        return ["list", *(_without_floats(item) for item in value)]
    if isinstance(value, dict):
        return {name: _without_floats(item) for name, item in value.items()}
    return value


def _read(read: Any, proof: bytes, signers: frozenset[str]) -> Statement:
    if not isinstance(read, dict) or not _MEMBERS.issuperset(read):
        raise _malformed("document", sorted(_MEMBERS), sorted(read) if isinstance(read, dict) else type(read).__name__)
    name, issue, values, state = read.get("id"), read.get("issue"), read.get("values"), read.get("state", "stable")
    if not isinstance(name, str) or not 0 < len(name) <= 256:
        raise _malformed("id", "1 to 256 characters", name)
    if type(issue) is not int or not 0 <= issue <= _MAX_ISSUE:
        raise _malformed("issue", "a whole number that grows", issue)
    if not isinstance(values, dict) or not values:
        raise _malformed("values", "an object that is not empty", values)
    if state not in {"stable", "candidate", "deprecated"}:
        raise _malformed("state", "stable, candidate or deprecated", state)
    return Statement(
        kind=KIND,
        values={one: Stated(value, f"json:{name}", issue) for one, value in values.items()},
        proof=proof,
        signers=signers,
        issued=times.optional(read.get("issued"), "issued", SPEC),
        not_before=times.optional(read.get("not_before"), "not_before", SPEC),
        not_after=times.optional(read.get("not_after"), "not_after", SPEC),
        state=State(state),
    )


def _malformed(field: str, expected: object, got: object) -> Exception:
    return refused(
        "not a document of reference values",
        "document_malformed",
        field=field,
        expected=expected,
        got=str(got)[:120],
        spec=SPEC,
    )
