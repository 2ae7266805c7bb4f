"""From what a policy's rules gave to a trustworthiness vector, and the floor under it that no policy can lift.

What a policy gives is believed only if it is exactly what AR4SI allows (kbs-protocol 2.6, with upstream's panics and
narrowing to 8 bits replaced by refusals):

==============================  ==========================================================================
no rule ``trust_claims``        all elements 0: status *none*, which releases nothing
an object, not empty            its elements; those it leaves out are 0
empty object, other type        ``PolicyInvalid``
unknown element                 ``PolicyInvalid``
value not an integer 0 to 127   ``PolicyInvalid``
==============================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Iterable

from adyton.errors import PolicyInvalid
from adyton.rats.result import DEVELOPMENT_HARDWARE, ELEMENTS, Mismatch, TrustVector
from adyton.rats.types import JsonValue, RootKind

CONTRAINDICATED = 97
MAX_EXTENSIONS = 32

_EARS_OWN = frozenset(
    {"ear.status", "ear.trustworthiness-vector", "ear.appraisal-policy-id", "ear.veraison.annotated-evidence"}
)

Extension = tuple[str, int, JsonValue]
_NOTHING = TrustVector.of({})


def from_rules(trust_claims: JsonValue, *, present: bool) -> TrustVector:
    """The vector that a policy's ``trust_claims`` says; ``present`` is false where the policy has no such rule."""
    if not present:
        return _NOTHING
    if not isinstance(trust_claims, dict) or not trust_claims:
        raise _invalid("trust_claims must be an object with at least one element", trust_claims)
    values: dict[str, int] = {}
    for name, value in trust_claims.items():
        if name not in ELEMENTS:
            raise _invalid("trust_claims has an element that AR4SI does not know", name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 127:
            raise _invalid(f"trust_claims.{name} must be an integer from 0 to 127", value)
        values[name] = value
    return TrustVector.of(values)


def extensions(value: JsonValue, *, present: bool) -> tuple[Extension, ...]:
    """The additions to the appraisal: a list of ``{name, key, value}``. No name may stand for what EAR says itself."""
    if not present:
        return ()
    if not isinstance(value, list) or len(value) > MAX_EXTENSIONS:
        raise _invalid(f"extensions must be a list of at most {MAX_EXTENSIONS}", None)
    found: list[Extension] = []
    for item in value:
        name = item.get("name") if isinstance(item, dict) else None
        key = item.get("key") if isinstance(item, dict) else None
        if not isinstance(item, dict) or set(item) != {"name", "key", "value"} or not isinstance(name, str):
            raise _invalid("an extension is an object of name, key and value", None)
        if isinstance(key, bool) or not isinstance(key, int):
            raise _invalid("an extension's key is an integer", None)
        if not name or name in _EARS_OWN or any(name == known for known, _, _ in found):
            raise _invalid("an extension has a name of its own, not one of EAR's", name)
        found.append((name, key, item["value"]))
    return tuple(found)


def with_floor(vector: TrustVector, root: RootKind, failed: Iterable[Mismatch]) -> TrustVector:
    """What no policy can lift: a root without hardware warns at least, and a failed requirement condemns."""
    hardware = max(vector["hardware"], DEVELOPMENT_HARDWARE) if root is not RootKind.VENDOR else vector["hardware"]
    if any(True for _ in failed):
        hardware = max(hardware, CONTRAINDICATED)
    return vector if hardware == vector["hardware"] else vector.with_hardware(hardware)


def _invalid(why: str, got: object) -> PolicyInvalid:
    return PolicyInvalid(
        f"the policy's result cannot be used: {why}",
        code="policy_result_invalid",
        got=str(got)[:80] if got is not None else None,
        spec="kbs-protocol 2.6",
        hint="nothing is released on such a result",
    )
