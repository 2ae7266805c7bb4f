"""EAT attestation results (EAR) as CoCo's attestation service writes them: results to claims, and claims back.

Claims only: signing and verifying the JWT around them is ``crypto/jwt.py``'s business. Layout: kbs-protocol 2.5. Beyond
it, ``annotated-evidence`` has a member ``adyton`` that says which root the evidence led to, which measurement and
HOST_DATA it carries, and what was not checked (policies read that as ``input.adyton``), and by which policy and
generation of reference values it was appraised.

Reading is for tokens of our own making (a session's, or a passport's after its signature was verified); what does not
fit is ``SessionInvalid``, never a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from adyton import __version__
from adyton.errors import SessionInvalid
from adyton.rats.result import ELEMENTS, Appraisal, AttestationResult, Tier, TrustVector
from adyton.rats.types import JsonValue, RootKind
from adyton.wire import strict_json

PROFILE = "tag:github.com,2024:confidential-containers/Trustee"
EVIDENCE = "ear.veraison.annotated-evidence"
_KEPT_SHORT = "additional-evidence"
_PRIMARY = "cpu0"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who says so. ``build`` names the program and its version."""

    name: str = "Adyton"
    developer: str = "Adyton"
    build: str = f"adyton {__version__}"


_ISSUER = Issuer()
_ELEMENTS = frozenset(ELEMENTS)


def claims(
    result: AttestationResult, *, issued: datetime, expires: datetime, issuer: Issuer = _ISSUER, verbose: bool = True
) -> dict[str, JsonValue]:
    """The token's payload. Not ``verbose``: without the additional evidence, which can be large."""
    return {
        "eat_profile": PROFILE,
        "iat": int(issued.timestamp()),
        "exp": int(expires.timestamp()),
        "iss": issuer.name,
        "ear.verifier-id": {"developer": issuer.developer, "build": issuer.build},
        "submods": {
            appraisal.name: _submodule(appraisal, result.reference_generation, verbose=verbose)
            for appraisal in result.appraisals
        },
    }


def _submodule(appraisal: Appraisal, reference_generation: int, *, verbose: bool) -> dict[str, JsonValue]:
    evidence: dict[str, JsonValue] = dict(appraisal.annotated)
    said = evidence.get("adyton")
    evidence["adyton"] = {
        **(said if isinstance(said, dict) else {}),
        "policy_digest": appraisal.policy_digest,
        "policy_version": appraisal.policy_version,
        "reference_generation": reference_generation,
        **({"unmet": list(appraisal.unmet)} if appraisal.unmet else {}),
    }
    runtime = evidence.get("runtime_data_claims")
    if not verbose and isinstance(runtime, dict) and _KEPT_SHORT in runtime:
        evidence["runtime_data_claims"] = {name: value for name, value in runtime.items() if name != _KEPT_SHORT}
    written: dict[str, JsonValue] = {
        "ear.status": appraisal.status.text,
        "ear.trustworthiness-vector": dict(appraisal.vector.items()),
        "ear.appraisal-policy-id": appraisal.policy_id,
        EVIDENCE: evidence,
    }
    written.update((name, value) for name, _, value in appraisal.extensions)
    return written


class Submodule(msgspec.Struct, frozen=True):
    """One submodule of a token as a relying party needs it. ``measurement`` is hex, ``host_data`` bytes.

    ``root``, ``reference_generation`` and ``policy_version`` are ``None`` in tokens that do not say them. ``image`` is the manifest digest of the attested workload document.
    """

    name: str
    status: Tier
    vector: TrustVector
    tee: str
    measurement: str
    host_data: bytes
    root: RootKind | None
    root_fingerprint: str
    image: str | None
    policy_digest: str
    reference_generation: int | None
    evidence: Mapping[str, JsonValue]
    policy_id: str = ""
    policy_version: int | None = None

    @property
    def signers(self) -> list[str]:
        """``sha256:<hex>`` of the SPKI of each key that signed the attested workload document."""
        said = self.evidence.get("init_data_claims")
        found = said.get("workload_signers") if isinstance(said, dict) else None
        return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []

    @property
    def tee_class(self) -> str:
        """Its class, which its name begins with."""
        return self.name.rstrip("0123456789")


class TokenClaims(msgspec.Struct, frozen=True):
    """A token's payload, read. ``raw`` is the whole of it, as resource policies read it. Times are Unix seconds."""

    issued: int
    expires: int
    submodules: tuple[Submodule, ...]
    raw: Mapping[str, JsonValue]

    @property
    def primary(self) -> Submodule:
        """The TEE itself, ``cpu0``."""
        return self.submodules[0]

    @property
    def tee_public_key(self) -> dict[str, JsonValue]:
        """The TEE's key as JWK; ``SessionInvalid`` if the token has none."""
        runtime = self.primary.evidence.get("runtime_data_claims")
        key = runtime.get("tee-pubkey") if isinstance(runtime, dict) else None
        if not isinstance(key, dict):
            raise _invalid("runtime_data_claims.tee-pubkey")
        return key


_DECODE = msgspec.json.Decoder().decode


def parse(body: bytes) -> TokenClaims:
    """Read a payload whose origin has been checked; ``SessionInvalid`` if it is not an EAR with a ``cpu0``."""
    try:
        raw: Any = _DECODE(body)
    except strict_json.UNREADABLE as error:
        raise _invalid("payload") from error
    return read(raw)


def read(raw: Any) -> TokenClaims:
    """As ``parse``, from the payload's JSON value."""
    try:
        if raw["eat_profile"] != PROFILE:
            raise _invalid("eat_profile")
        submodules = raw["submods"]
        # The primary evidence binds all others, so it must be there and is looked at first.
        names = [_PRIMARY, *sorted(submodules.keys() - {_PRIMARY})]
        return TokenClaims(
            issued=_integer(raw["iat"]),
            expires=_integer(raw["exp"]),
            submodules=tuple(_read_submodule(name, submodules[name]) for name in names),
            raw=raw,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _invalid("submods") from error


def told(result: AttestationResult, payload: Mapping[str, JsonValue]) -> TokenClaims:
    """What ``read`` gives for ``payload``, the ``claims`` of ``result``, without reading it."""
    first, *others = result.appraisals
    if first.name != _PRIMARY:
        raise _invalid("submods")
    others.sort(key=lambda appraisal: appraisal.name)
    generation = result.reference_generation
    return TokenClaims(
        issued=_integer(payload["iat"]),
        expires=_integer(payload["exp"]),
        submodules=tuple([_told_submodule(appraisal, generation, payload) for appraisal in (first, *others)]),
        raw=payload,
    )


def _told_submodule(appraisal: Appraisal, reference_generation: int, payload: Any) -> Submodule:
    evidence = payload["submods"][appraisal.name][EVIDENCE]
    workload = evidence["init_data_claims"].get("workload") if "init_data_claims" in evidence else None
    vector = appraisal.vector
    return Submodule(
        name=appraisal.name,
        status=vector.status,
        vector=vector if vector.stated == _ELEMENTS else TrustVector(vector.values, _ELEMENTS),
        tee=appraisal.tee,
        measurement=appraisal.measurement,
        host_data=bytes.fromhex(appraisal.host_data),
        root=appraisal.root,
        root_fingerprint=appraisal.root_fingerprint,
        image=workload["image"] if workload is not None else None,
        policy_digest=appraisal.policy_digest,
        reference_generation=reference_generation,
        evidence=evidence,
        policy_id=appraisal.policy_id,
        policy_version=appraisal.policy_version,
    )


def _read_submodule(name: str, raw: Any) -> Submodule:
    stated = raw["ear.trustworthiness-vector"]
    values = tuple([stated.get(element, 0) for element in ELEMENTS])
    vector = TrustVector(values, frozenset(stated))
    if not set(map(type, values)) <= {int} or stated.keys() - _ELEMENTS or vector.status.text != raw["ear.status"]:
        raise _invalid(f"submods.{name}.ear.status")
    evidence = raw[EVIDENCE]
    said = evidence.get("adyton", {})
    init_data_claims = evidence.get("init_data_claims", {})
    workload = init_data_claims.get("workload", {})
    if not isinstance(workload, dict):
        raise TypeError("workload")
    return Submodule(
        name=name,
        status=vector.status,
        vector=vector,
        tee=str(said.get("tee", "")),
        measurement=str(said.get("measurement", "")),
        host_data=bytes.fromhex(said.get("host_data", "")),
        root=RootKind(said["root"]) if "root" in said else None,
        root_fingerprint=str(said.get("root_fingerprint", "")),
        image=str(workload["image"]) if "image" in workload else None,
        policy_digest=str(said.get("policy_digest", "")),
        reference_generation=_integer(said["reference_generation"]) if "reference_generation" in said else None,
        evidence=evidence,
        policy_id=str(raw.get("ear.appraisal-policy-id", "")),
        policy_version=_integer(said["policy_version"]) if "policy_version" in said else None,
    )


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("not an integer")
    return value


def _invalid(field: str) -> SessionInvalid:
    return SessionInvalid(
        "the token's payload is not an attestation result of this broker",
        code="token_malformed",
        field=field,
        spec="kbs-protocol 2.5",
        hint="attest again",
    )
