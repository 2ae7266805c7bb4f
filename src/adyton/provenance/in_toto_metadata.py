"""in-toto's layouts and links, read and checked for form (in-toto specification 0.9 and 1.0, 4.3 and 4.4).

Both wrappings are read: ``{"signed", "signatures"}`` over canonical JSON, and DSSE. What is read is exactly what is
signed: members that are not known here are under the signature too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from adyton.provenance import dsse, keys, olpc, times
from adyton.provenance.in_toto_rules import Artifacts, Recorded, Rule
from adyton.provenance.in_toto_rules import parse as parse_rule
from adyton.provenance.keys import Key
from adyton.provenance.values import refused

SPEC = "in-toto 0.9, 4.3"
MAX_STEPS = 64
MAX_KEYS = 64
MAX_RULES = 500
MAX_ARTIFACTS = 20_000
_EXPIRES = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z\Z")
_STEP = re.compile(r"[^/\\\x00-\x1f]{1,128}\Z")


class Block(NamedTuple):
    """Signed metadata, unverified: what the signatures are over, and each with its key id.

    A signature is only looked at under the key that its id names, in both wrappings, as in-toto's own library does.
    """

    content: dict[str, Any]
    signed: bytes
    signatures: tuple[tuple[str, bytes], ...]

    def signers(self, candidates: Iterable[Key]) -> frozenset[str]:
        """The ids (of SPKI) of those candidates that signed."""
        found = set()
        for key in candidates:
            if any(key.verifies(one, self.signed) for name, one in self.signatures if name in key.names):
                found.add(key.id)
        return frozenset(found)


class Step(NamedTuple):
    """A step: who may do it, how many of them must have, and what may go in and come out."""

    name: str
    keys: tuple[Key, ...]
    threshold: int
    materials: tuple[Rule, ...]
    products: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The owner's word on how a thing is made. ``inspections`` are commands that a verifier would have to run."""

    steps: tuple[Step, ...]
    expires: datetime
    inspections: tuple[str, ...]


def block(value: object, field: str) -> Block:
    """Read either wrapping, or ``DocumentInvalid``."""
    if dsse.is_envelope(value):
        envelope = dsse.parse(value)
        if envelope.payload_type != "application/vnd.in-toto+json":
            raise _malformed(field, "payloadType application/vnd.in-toto+json", envelope.payload_type)
        return Block(_object(envelope.content(), field), envelope.signed, envelope.signatures)
    content = _object(_object(value, field).get("signed"), f"{field}.signed")
    signatures = _object(value, field).get("signatures")
    if not isinstance(signatures, list) or len(signatures) > dsse.MAX_SIGNATURES:
        raise _malformed(f"{field}.signatures", f"a list of at most {dsse.MAX_SIGNATURES}", signatures)
    found = []
    for one in signatures:
        name, text = (one.get("keyid"), one.get("sig")) if isinstance(one, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str) or "other_headers" in one:
            raise _malformed(f"{field}.signatures", "keyid and sig, no GPG", one)
        try:
            found.append((name, bytes.fromhex(text)))
        except ValueError as error:
            raise _malformed(f"{field}.signatures.sig", "hex", text) from error
    try:
        signed = olpc.canonical(content)
    except ValueError as error:
        raise _malformed(f"{field}.signed", "canonical JSON", str(error)) from error
    return Block(content, signed, tuple(found))


def layout(content: Mapping[str, Any]) -> Layout:
    """Read a layout's content, or ``DocumentInvalid``."""
    if content.get("_type") != "layout":
        raise _malformed("_type", "layout", content.get("_type"))
    expires = content.get("expires")
    if not isinstance(expires, str) or not _EXPIRES.match(expires):
        raise _malformed("expires", "YYYY-MM-DDThh:mm:ssZ", expires)
    members = _object(content.get("keys"), "keys")
    if len(members) > MAX_KEYS:
        raise _malformed("keys", f"at most {MAX_KEYS}", len(members))
    steps, inspections = content.get("steps"), content.get("inspect")
    if not isinstance(steps, list) or not 0 < len(steps) <= MAX_STEPS:
        raise _malformed("steps", f"1 to {MAX_STEPS} steps", steps)
    if not isinstance(inspections, list):
        raise _malformed("inspect", "a list", inspections)
    found = tuple(_step(one, members) for one in steps)
    if len({step.name for step in found}) != len(found):
        raise _malformed("steps", "each name once", [step.name for step in found])
    names = tuple(str(one.get("name", ""))[:80] if isinstance(one, dict) else "" for one in inspections)
    return Layout(found, times.read(expires, "expires", SPEC), names)


def _step(value: object, members: Mapping[str, Any]) -> Step:
    # Constraints on certificates let others than the named keys do a step. Left out: then only the named keys may.
    step = _object(value, "steps")
    name, allowed, threshold = step.get("name"), step.get("pubkeys"), step.get("threshold")
    if not isinstance(name, str) or not _STEP.match(name) or step.get("_type") != "step":
        raise _malformed("steps.name", "a name without slashes", name)
    if type(threshold) is not int or threshold < 1:
        raise _malformed(f"{name}.threshold", "1 or more", threshold)
    if (
        not isinstance(allowed, list)
        or not 0 < len(allowed) <= MAX_KEYS
        or not all(isinstance(one, str) for one in allowed)
    ):
        raise _malformed(f"{name}.pubkeys", f"1 to {MAX_KEYS} key ids", allowed)
    found = []
    for keyid in dict.fromkeys(allowed):
        if keyid not in members:
            raise _malformed(f"{name}.pubkeys", "ids of the layout's keys", keyid)
        found.append(keys.from_in_toto(members[keyid], keyid))
    return Step(name, tuple(found), threshold, _rules(step, name, "materials"), _rules(step, name, "products"))


def _rules(step: Mapping[str, Any], name: str, kind: str) -> tuple[Rule, ...]:
    field = f"{name}.expected_{kind}"
    rules = step.get(f"expected_{kind}")
    if not isinstance(rules, list) or len(rules) > MAX_RULES:
        raise _malformed(field, f"a list of at most {MAX_RULES} rules", rules)
    return tuple(parse_rule(rule, field) for rule in rules)


def link(content: Mapping[str, Any], step: str) -> Recorded:
    """Read a link's content as the link of ``step``, or ``DocumentInvalid``. A layout in its place is refused."""
    kind = content.get("_type")
    if kind != "link":
        hint = "delegation to a layout of a functionary's own is not followed" if kind == "layout" else None
        raise _malformed(f"{step}._type", "link", kind, hint)
    if content.get("name") != step:
        raise _malformed(f"{step}.name", step, content.get("name"))
    return Recorded(_artifacts(content, step, "materials"), _artifacts(content, step, "products"))


def _artifacts(content: Mapping[str, Any], step: str, kind: str) -> Artifacts:
    found = content.get(kind)
    if not isinstance(found, dict) or len(found) > MAX_ARTIFACTS:
        raise _malformed(f"{step}.{kind}", f"an object of at most {MAX_ARTIFACTS} artifacts", type(found).__name__)
    for name, digest in found.items():
        if not isinstance(digest, dict) or not digest or not all(isinstance(one, str) for one in digest.values()):
            raise _malformed(f"{step}.{kind}", "digests by algorithm", name)
    return found


def _object(value: object, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(field, "an object", type(value).__name__)
    return value


def _malformed(field: str, expected: object, got: object, hint: str | None = None) -> Exception:
    return refused(
        "not in-toto metadata that can be verified here",
        "in_toto_malformed",
        field=field,
        expected=expected,
        got=str(got)[:120],
        spec=SPEC,
        hint=hint,
    )
