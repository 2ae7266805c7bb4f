"""What a token says, as JSON values: under Adyton's names, in hex, and under those that CoCo's policies read, in base64."""

from __future__ import annotations

from adyton.rats.types import JsonValue
from adyton.tee.cca.abi import Token
from adyton.tee.cca.platform import PlatformClaims, SwComponent
from adyton.tee.cca.realm import RealmClaims
from adyton.wire.b64 import encode


def of_token(token: Token) -> dict[str, JsonValue]:
    """The claims of both halves. ``debug``: the platform is in another state than secured, in which it keeps no secret."""
    platform, realm = token.platform_claims, token.realm_claims
    challenge, personalisation = realm.challenge.hex(), realm.personalisation.hex()
    measurement, instance = realm.initial_measurement.hex(), platform.instance_id.hex()
    return {
        "platform_profile": platform.profile,
        "realm_profile": realm.profile,
        "implementation_id": platform.implementation_id.hex(),
        "instance_id": instance,
        "lifecycle": platform.lifecycle,
        "lifecycle_state": platform.state,
        "config": platform.config.hex(),
        "platform_challenge": platform.challenge.hex(),
        "platform_hash_alg": platform.hash_algorithm,
        "verification_service": platform.verification_service,
        "sw_components": [
            {
                "type": item.type,
                "measurement": item.measurement.hex(),
                "version": item.version,
                "signer": item.signer.hex(),
                "alg": item.algorithm,
            }
            for item in platform.sw_components
        ],
        "realm_challenge": challenge,
        "rim": measurement,
        "rem": [register.hex() for register in realm.extensible_measurements],
        "rpv": personalisation,
        "realm_hash_alg": realm.hash_algorithm,
        "rak": realm.public_key.hex(),
        "rak_hash_alg": realm.public_key_hash_algorithm,
        "rak_format": realm.key_format,
        "platform_sig_alg": token.platform.algorithm,
        "realm_sig_alg": token.realm.algorithm,
        "unknown_claims": [*platform.unknown, *realm.unknown],
        "measurement": measurement,
        "debug": not platform.is_secured,
        "tcb_status": None,
        "platform_id": instance,
        "report_data": challenge,
        "init_data": personalisation,
    }


def tcb(platform: PlatformClaims) -> dict[str, JsonValue]:
    """What the platform's trust rests on: its state, and each piece of firmware."""
    return {
        "lifecycle": platform.state,
        "firmware": [
            {"type": item.type, "version": item.version, "measurement": item.measurement.hex()}
            for item in platform.sw_components
        ],
    }


def coco(token: Token) -> dict[str, JsonValue]:
    """The claims that CoCo's verifier hands to a policy (``kbs-protocol`` 2.4, ``cca``); what is absent is left out."""
    platform, realm = token.platform_claims, token.realm_claims
    return {
        "realm": _coco_realm(realm),
        "platform": _coco_platform(platform),
        "report_data": realm.challenge.hex(),
        "init_data": realm.personalisation.hex(),
    }


def _coco_realm(realm: RealmClaims) -> dict[str, JsonValue]:
    return {
        "cca-realm-challenge": encode(realm.challenge),
        "cca-realm-personalization-value": encode(realm.personalisation),
        "cca-realm-initial-measurement": encode(realm.initial_measurement),
        "cca-realm-extensible-measurements": [encode(register) for register in realm.extensible_measurements],
        "cca-realm-hash-algo-id": realm.hash_algorithm,
        "cca-realm-public-key": encode(realm.public_key),
        "cca-realm-public-key-hash-algo-id": realm.public_key_hash_algorithm,
    }


def _coco_platform(platform: PlatformClaims) -> dict[str, JsonValue]:
    claims: dict[str, JsonValue] = {
        "cca-platform-profile": platform.profile,
        "cca-platform-challenge": encode(platform.challenge),
        "cca-platform-config": encode(platform.config),
        "cca-platform-lifecycle": platform.lifecycle,
        "cca-platform-implementation-id": encode(platform.implementation_id),
        "cca-platform-instance-id": encode(platform.instance_id),
        "cca-platform-hash-algo-id": platform.hash_algorithm,
        "cca-platform-sw-components": [_coco_component(item) for item in platform.sw_components],
    }
    if platform.verification_service is not None:
        claims["cca-platform-service-indicator"] = platform.verification_service
    return claims


def _coco_component(item: SwComponent) -> JsonValue:
    claims: dict[str, JsonValue] = {"measurement-value": encode(item.measurement), "signer-id": encode(item.signer)}
    if item.type is not None:
        claims["measurement-type"] = item.type
    if item.version is not None:
        claims["version"] = item.version
    return claims
