"""What the platform's half says: which silicon, in which state, with which firmware (evidence 9).

The same claims come as CBOR in a token, under numbers, and as JSON from endorsers and their tests, under names. The JSON
form is strict: no member twice, none that is unknown, bytes in standard base64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from adyton.errors import MalformedEvidence
from adyton.tee.cca import shape
from adyton.tee.cca.shape import SPEC, TEE, Wrong
from adyton.wire import b64, strict_json

LEGACY_PROFILE = "http://arm.com/CCA-SSD/1.0.0"
PROFILE = "tag:arm.com,2023:cca_platform#1.0.0"
PROFILE_2 = "tag:arm.com,2024:cca_platform#2.0.0"
PROFILES = (LEGACY_PROFILE, PROFILE, PROFILE_2)

MAX_COMPONENTS = 64
MAX_JSON_SIZE = 64 * 1024
_CLIENT_ID = 2394
# Claims of the second version that are kept signed and unread: manufacturing configuration, extension devices, root keys
# of the trusted board boot, peer signers.
_UNREAD = frozenset({2403, 2404, 2405, 2406})
_READ = frozenset({265, 10, 2396, 256, 2401, 2395, 2399, 2400, 2402, _CLIENT_ID})

# Security lifecycle: the high byte is the state, the low one is the maker's (DEN0096; draft-ffm-rats-cca-token 4.3.5)
LIFECYCLES = {
    0x00: "unknown",
    0x10: "assembly_and_test",
    0x20: "rot_provisioning",
    0x30: "secured",
    0x40: "non_cca_platform_debug",
    0x50: "recoverable_cca_platform_debug",
    0x60: "decommissioned",
}
SECURED = 0x30

_JSON_NAMES = {
    "cca-platform-profile": 265,
    "cca-platform-challenge": 10,
    "cca-platform-implementation-id": 2396,
    "cca-platform-instance-id": 256,
    "cca-platform-config": 2401,
    "cca-platform-lifecycle": 2395,
    "cca-platform-sw-components": 2399,
    "cca-platform-service-indicator": 2400,
    "cca-platform-hash-algo-id": 2402,
}
_JSON_BYTES = frozenset({10, 2396, 256, 2401})
_JSON_COMPONENT = {
    "measurement-type": 1,
    "measurement-value": 2,
    "version": 4,
    "signer-id": 5,
    "measurement-description": 6,
}
_JSON_COMPONENT_BYTES = frozenset({2, 5})
_COMPONENT = frozenset(_JSON_COMPONENT.values())


class SwComponent(msgspec.Struct, frozen=True, gc=False):
    """One measured piece of firmware; ``signer`` is the digest of the key that signed it."""

    type: str | None
    measurement: bytes
    version: str | None
    signer: bytes
    algorithm: str | None


class PlatformClaims(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All mandatory claims, and the optional verification service. ``unknown``: numbers of claims that were not read."""

    profile: str
    challenge: bytes
    implementation_id: bytes
    instance_id: bytes
    config: bytes
    lifecycle: int
    sw_components: tuple[SwComponent, ...]
    verification_service: str | None
    hash_algorithm: str
    unknown: tuple[int, ...]

    @property
    def state(self) -> str:
        """The security lifecycle in words."""
        return LIFECYCLES[self.lifecycle >> 8]

    @property
    def is_secured(self) -> bool:
        """Whether the platform is in the one state in which it keeps its word."""
        return self.lifecycle >> 8 == SECURED


def platform_claims(claims: Mapping[Any, Any]) -> PlatformClaims:
    """From a decoded map, or ``Wrong``."""
    need = shape.need
    profile = need(claims, 265, "platform_profile")
    if profile not in PROFILES:
        raise Wrong("platform_profile", "not a known profile", expected=[*PROFILES], got=str(profile)[:80])
    if profile == PROFILE_2 and (need(claims, _CLIENT_ID, "client_id"), type(claims[_CLIENT_ID])) != (1, int):
        raise Wrong("client_id", "not the realm management monitor's", expected=1)
    lifecycle = need(claims, 2395, "lifecycle")
    if type(lifecycle) is not int or lifecycle >> 8 not in LIFECYCLES:
        raise Wrong(
            "lifecycle", "no known state", expected=[hex(state << 8) for state in LIFECYCLES], got=str(lifecycle)[:20]
        )
    service = claims.get(2400)
    return PlatformClaims(
        profile=profile,
        challenge=shape.digest(need(claims, 10, "platform_challenge"), "platform_challenge"),
        implementation_id=shape.sized(need(claims, 2396, "implementation_id"), "implementation_id", 32),
        instance_id=shape.instance_id(need(claims, 256, "instance_id"), "instance_id"),
        config=shape.some_bytes(need(claims, 2401, "config"), "config"),
        lifecycle=lifecycle,
        sw_components=_components(need(claims, 2399, "sw_components")),
        verification_service=shape.text(service, "verification_service") if 2400 in claims else None,
        hash_algorithm=shape.hash_name(need(claims, 2402, "platform_hash_alg"), "platform_hash_alg"),
        unknown=_unknown(claims),
    )


def parse_json(data: bytes) -> PlatformClaims:
    """The claims alone in their JSON form, or ``MalformedEvidence``; of the profiles of the first version."""
    try:
        document = strict_json.parse(data, max_size=MAX_JSON_SIZE, max_depth=4)
        return platform_claims(_from_json(document))
    except Wrong as error:
        raise _malformed(error.field, error.message, error.expected, error.got) from error
    except ValueError as error:
        raise _malformed("json", str(error)) from error


def _components(value: Any) -> tuple[SwComponent, ...]:
    if type(value) is not list or not 1 <= len(value) <= MAX_COMPONENTS:
        raise Wrong("sw_components", f"an array of 1 to {MAX_COMPONENTS} is due")
    return tuple([_component(item) for item in value])


def _component(item: Any) -> SwComponent:
    field = "sw_components"
    if type(item) is not dict or not item.keys() <= _COMPONENT:
        raise Wrong(field, "a component is no map of the known members", expected=sorted(_COMPONENT))
    return SwComponent(
        shape.text(item[1], field) if 1 in item else None,
        shape.digest(item.get(2), field),
        shape.text(item[4], field) if 4 in item else None,
        shape.digest(item.get(5), field),
        shape.text(item[6], field) if 6 in item else None,
    )


def _unknown(claims: Mapping[Any, Any]) -> tuple[int, ...]:
    """What this version of the format does not have is let pass, since it is signed, and is told."""
    rest = claims.keys() - _READ - _UNREAD
    if not rest:
        return ()
    if any(type(label) is not int for label in rest):
        raise Wrong("platform", "a claim's label is no number")
    return tuple(sorted(rest))


def _from_json(document: object) -> dict[int, Any]:
    if type(document) is not dict:
        raise Wrong("json", "no object")
    claims = _members(document, _JSON_NAMES, _JSON_BYTES)
    components = claims.get(2399)
    if type(components) is list:
        claims[2399] = [
            _members(item, _JSON_COMPONENT, _JSON_COMPONENT_BYTES) if type(item) is dict else item
            for item in components
        ]
    return claims


def _members(document: dict[Any, Any], names: Mapping[str, int], in_base64: frozenset[int]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for name, value in document.items():
        label = names.get(name)
        if label is None:
            raise Wrong("json", "a member that the format does not have", got=str(name)[:40])
        if label in in_base64:
            if type(value) is not str:
                raise Wrong("json", "bytes are written as text in base64", got=name)
            value = b64.decode(value)  # noqa: PLW2901 -- the same value, decoded
        found[label] = value
    return found


def _malformed(field: str, message: str, expected: object = None, got: object = None) -> MalformedEvidence:
    return MalformedEvidence(
        f"{field}: {message}",
        code=f"malformed_{field}",
        tee=TEE,
        field=field,
        expected=expected,
        got=got,
        spec=SPEC,
    )
