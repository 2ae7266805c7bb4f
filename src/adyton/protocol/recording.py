"""What is kept of decisions so that a policy can be tried on them, and the rules of keeping it.

A recording holds what a policy read and what came of it: of an attestation each piece of evidence as policies see it
(``protocol.annotated``), of a release the claims, the path and the query. Nothing secret: nonces, public keys, claims. As
a line of JSON it can leave the broker, and be tried on where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from adyton.errors import DocumentInvalid, PolicyInvalid
from adyton.protocol.audit_row import PolicyUsed
from adyton.rats.result import ELEMENTS
from adyton.wire import strict_json

FORM: Literal["adyton-recording/1"] = "adyton-recording/1"
MAX_RECORDING = 1024 * 1024
MAX_KEPT = 100_000
MAX_DAYS = 3650


@dataclass(frozen=True, slots=True)
class RecordRules:
    """How many recordings a tenant keeps, and for how many days; 0 keeps none."""

    keep: int = 0
    days: int = 30


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keep: int
    days: int = 30


OFF = RecordRules()
_RULES = msgspec.json.Decoder(_Document)


def parse(text: str) -> RecordRules:
    """The rules that a tenant's document (``{"keep": 1000, "days": 30}``) says; ``PolicyInvalid``."""
    try:
        document = _RULES.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise _unfit(str(error)[:120]) from error
    if not 0 <= document.keep <= MAX_KEPT or not 1 <= document.days <= MAX_DAYS:
        raise _unfit(f"keep {document.keep}, days {document.days}")
    return RecordRules(document.keep, document.days)


def written(rules: RecordRules) -> str:
    """The document that ``parse`` reads."""
    return msgspec.json.encode(_Document(rules.keep, rules.days)).decode()


class Appraised(msgspec.Struct, frozen=True, omit_defaults=True):
    """One piece of evidence and what came of it: ``vector`` are AR4SI's eight values, floor and requirements included.

    ``unmet``: codes of requirements that it does not satisfy, which condemn it under any policy.
    """

    name: str
    tee: str
    root: str
    input: dict[str, Any]
    vector: tuple[int, ...] = ()
    unmet: tuple[str, ...] = ()

    @property
    def tee_class(self) -> str:
        """Its class, which its name begins with."""
        return self.name.rstrip("0123456789")


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """A resource that was asked for: what a resource policy reads, and whether it was released."""

    path: tuple[str, str, str]
    claims: dict[str, Any]
    query: dict[str, str] = {}
    released: bool = False


class Recording(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One decision. ``sequence`` is its row in the audit log, 0 where it has none; ``time`` RFC 3339."""

    form: Literal["adyton-recording/1"] = FORM
    kind: Literal["attestation", "resource"]
    time: str = ""
    sequence: int = 0
    number: int = 0
    appraised: tuple[Appraised, ...] = ()
    asked: Asked | None = None
    policies: tuple[PolicyUsed, ...] = ()

    def __post_init__(self) -> None:
        if (self.kind == "resource") != (self.asked is not None):
            raise ValueError("a release has what was asked for, an attestation has evidence")
        if any(len(one.vector) not in {0, len(ELEMENTS)} for one in self.appraised):
            raise ValueError("a vector has eight values")


encode = msgspec.json.Encoder().encode
_DECODER = msgspec.json.Decoder(Recording)


def decode(line: bytes) -> Recording:
    """A recording's line; ``DocumentInvalid`` ``recording_malformed``."""
    try:
        if len(line) > MAX_RECORDING:
            raise ValueError("too long")
        return _DECODER.decode(line)
    except strict_json.UNREADABLE as error:
        raise DocumentInvalid(
            "this is no recording of a decision", code="recording_malformed", expected=FORM, got=str(error)[:120]
        ) from error


def of_evidence(name: str, evidence: Mapping[str, Any]) -> Appraised:
    """Annotated evidence alone, as a token carries it: what policies read, without what the broker added for itself."""
    said = evidence.get("adyton")
    own = dict(said) if isinstance(said, dict) else {}
    unmet = own.pop("unmet", ())
    for added in ("policy_digest", "policy_version", "reference_generation"):
        own.pop(added, None)
    tee = own.get("tee")
    if not isinstance(tee, str):  # another attestation service's
        tee = next((key for key, value in evidence.items() if isinstance(value, dict) and key not in _COMMON), "")
    return Appraised(
        name=name,
        tee=tee,
        root=str(own.get("root", "vendor")),
        input={**evidence, **({"adyton": own} if own else {})},
        unmet=tuple(map(str, unmet)),
    )


_COMMON = frozenset({"adyton", "init_data_claims", "runtime_data_claims"})


def _unfit(got: str) -> PolicyInvalid:
    return PolicyInvalid(
        "these rules of recording cannot be kept",
        code="record_rules_invalid",
        field="document",
        expected=f'{{"keep": 0 to {MAX_KEPT}, "days": 1 to {MAX_DAYS}}}',
        got=got,
        hint="adyton policy record --keep N --days N writes them",
    )
