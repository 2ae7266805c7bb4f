"""The object that policies read as ``input`` and that tokens carry as annotated evidence (kbs-protocol 2.5, 1.10).

Nothing is verified here: whoever calls has verified the evidence, and that init data and runtime data are what it binds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

import msgspec

from adyton.errors import DocumentInvalid
from adyton.protocol import workload, workload_signers
from adyton.protocol.initdata import InitData
from adyton.rats.types import JsonValue, VerifiedEvidence
from adyton.wire import toml

_TOML = ("cdh.toml", "aa.toml")
_EVENTS = "uefi_event_logs"
_AGENT_POLICY = "policy.rego"
_AGENT_POLICY_DATA = "policy_data := "


def evidence(
    verified: VerifiedEvidence,
    runtime_data: Mapping[str, JsonValue],
    init_data_claims: Mapping[str, JsonValue] | None,
    host_data: bytes,
) -> dict[str, JsonValue]:
    """Annotated evidence of one verified piece. The member named after the TEE holds its claims under CoCo's names.

    ``host_data``: the digest of the document that the TEE was started for, empty where it does not say.
    """
    coco = dict(verified.coco_claims)
    claims = verified.claims
    measurement = claims.get("measurement")
    own: dict[str, JsonValue] = {
        "tee": verified.tee,
        "root": verified.root.value,
        "root_fingerprint": verified.root_fingerprint,
        "measurement": measurement if isinstance(measurement, str) else "",
        "host_data": host_data.hex(),
        "unchecked": list(verified.unchecked),
    }
    if verified.tee != "snp":  # whose claims under CoCo's names say all of it
        own["debug"] = claims.get("debug")
        own["tcb_status"] = claims.get("tcb_status")
        own["tcb"] = dict(verified.tcb)
    if _EVENTS in coco:
        own["boot"] = _boot(coco[_EVENTS])
    annotated: dict[str, JsonValue] = {
        "report_data": verified.report_data.value.hex(),
        "runtime_data_claims": dict(runtime_data),
        verified.tee: coco,
        "adyton": own,
    }
    if verified.init_data:
        annotated["init_data"] = verified.init_data.hex()
    if init_data_claims is not None:
        annotated["init_data_claims"] = dict(init_data_claims)
    return annotated


def _boot(events: JsonValue) -> dict[str, JsonValue]:
    """The digests of kernel and command line as a TD's firmware measured them, for a policy to look up by a short path.

    As CoCo's policy finds them (kbs-protocol 2.6): by type and label of the event. Labels are nobody's signed word, the
    digests are: a policy that lists the registers as well knows what they are.
    """
    kernel: list[JsonValue] = []
    parameters: list[JsonValue] = []
    for event in events if isinstance(events, list) else ():
        if not isinstance(event, dict):
            continue
        details, digests, kind = event.get("details"), event.get("digests"), event.get("type_name")
        if not isinstance(details, dict) or not isinstance(digests, list):
            continue
        found = [item.get("digest") for item in digests if isinstance(item, dict)]
        paths = details.get("device_paths")
        if kind == "EV_EFI_BOOT_SERVICES_APPLICATION" and isinstance(paths, list) and "File(kernel)" in paths:
            kernel += found
        elif kind == "EV_EVENT_TAG" and details.get("string") == "LOADED_IMAGE::LoadOptions":
            parameters += found
    return {"kernel": kernel, "parameters": parameters}


def init_data_claims(init_data: InitData) -> dict[str, JsonValue]:
    """Claims made from init data: its entries, with documents inside it as structured data.

    ``workload.toml`` becomes ``workload``, every member there, defaults included; ``cdh.toml`` and ``aa.toml`` become
    JSON; ``workload.jws`` becomes ``workload_signers``, those whose signatures verify; ``policy.rego`` becomes ``agent_policy_claims`` if it ends in such data, as CoCo's verifier has it, and goes.
    ``DocumentInvalid`` if one of them cannot be read: then nothing may be decided by the rest.
    """
    claims: dict[str, JsonValue] = {}
    for name, text in init_data.data.items():
        if name == workload.KEY:
            parsed = workload.parse_table(text)
            claims["workload"] = {
                field: msgspec.to_builtins(getattr(parsed, field)) for field in parsed.__struct_fields__
            }
        elif name in _TOML:
            claims[name] = _toml(name, text)
        elif name == _AGENT_POLICY:
            if (data := _agent_policy_data(text)) is not None:
                claims["agent_policy_claims"] = data
        elif name == workload_signers.KEY:
            claims[workload_signers.CLAIM] = list(workload_signers.signers(init_data.algorithm, init_data.data))
        elif name in {
            "workload",
            workload_signers.CLAIM,
            "agent_policy_claims",
        }:  # a text must not pass for what was parsed and checked
            raise DocumentInvalid(f"init data may not have an entry {name!r}", code="init_data_malformed", field=name)
        else:
            claims[name] = text
    return claims


def _toml(name: str, text: str) -> JsonValue:
    try:
        return _json(toml.parse(text))
    except (RecursionError, ValueError) as error:
        raise DocumentInvalid(f"{name} in the init data is not TOML", code="init_data_malformed", field=name) from error


def _json(value: Any) -> JsonValue:
    if isinstance(value, dict):
        return {name: _json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a number")
    result: JsonValue = value
    return result


def _agent_policy_data(text: str) -> JsonValue:
    _, found, rest = text.partition(_AGENT_POLICY_DATA + "{")
    if not found:
        return None
    try:
        value: JsonValue = json.loads("{" + rest)
        if "\\u" in rest:  # half of a surrogate pair is no text, and no encoder after this one takes it
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except (ValueError, RecursionError):
        return None
