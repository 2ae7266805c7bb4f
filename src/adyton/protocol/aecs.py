"""Release policies that were written for AECS or Verdictd, as rules of ours (inclavare-kubetee 4.5, 6.3, 6.6).

Three forms are read: AECS's ``{"enclaveMatchAnyRules": [{mrenclave, mrsigner, prodID, minIsvSvn, debug_disabled …}]}``
(also inside ``policy`` of a secret's spec), unified attestation's ``{"main_attributes": [{str_ta_measurement …}]}``, and
Verdictd's reference data ``{"mrEnclave": [], "mrSigner": [], "productId": 0, "svn": 0}``.

Any rule is enough; in a rule every member that is not empty counts, and an unknown one that is not empty is refused:
leaving it out would let in more than its owner meant. A document without one usable rule is refused for the same
reason, although AECS keeps such a secret inside and Verdictd lets everybody in.
"""

from __future__ import annotations

from typing import Any, cast

from adyton.errors import DocumentInvalid
from adyton.protocol import rules
from adyton.protocol.rules import Rule
from adyton.wire import strict_json

MAX_DOCUMENT = 256 * 1024
_TEES = {
    "SGX_EPID": "sgx",
    "SGX_DCAP": "sgx",
    "SGX1": "sgx",
    "SGX2": "sgx",
    "HyperEnclave": "hyperenclave",
    "HygonCsv": "csv",
}
_VERDICTD = frozenset({"mrEnclave", "mrSigner", "productId", "svn"})


def read(document: bytes) -> list[Rule]:
    """The rules in ``document``; ``DocumentInvalid`` ``release_rules_malformed``."""
    try:
        value = strict_json.parse(document, max_size=MAX_DOCUMENT)
    except strict_json.UNREADABLE as error:
        raise _refused("JSON", str(error)[:80]) from error
    return convert(value)


def convert(value: object) -> list[Rule]:
    """As ``read``, from a decoded JSON value. Verdictd takes a product id at least that high; here it must be the same."""
    found = _found(value)
    kept = [rule for rule in found if not rule.is_empty]
    if not kept:
        raise _refused("at least one rule with a member", "none", "enclaveMatchAnyRules")
    try:
        rules.check(kept)
    except Exception as error:
        raise _refused(
            "values that evidence can have", getattr(error, "got", None), getattr(error, "field", None)
        ) from error
    return kept


def _found(value: object) -> list[Rule]:
    if not isinstance(value, dict):
        raise _refused("an object", type(value).__name__)
    members = cast("dict[str, Any]", value)
    for outer in ("spec", "policy"):
        if outer in members and isinstance(members[outer], dict):
            return _found(members[outer])
    if "enclaveMatchAnyRules" in members:
        return [_aecs(entry) for entry in _objects(members["enclaveMatchAnyRules"], "enclaveMatchAnyRules")]
    if "main_attributes" in members:
        if members.get("nested_policies"):
            raise _refused("no nested policies", "some", "nested_policies")
        return [_unified(entry) for entry in _objects(members["main_attributes"], "main_attributes")]
    if members and members.keys() <= _VERDICTD:
        return [_verdictd(members)]
    raise _refused("enclaveMatchAnyRules, main_attributes or Verdictd's reference data", sorted(members)[:8])


def _aecs(entry: dict[str, Any]) -> Rule:
    return _rule(
        entry,
        {
            "mrenclave": "measurements",
            "mrsigner": "signers",
            "prodID": "products",
            "prodId": "products",
            "minIsvSvn": "min_svn",
            "debug_disabled": "debug",
            "debugDisabled": "debug",
        },
    )


def _unified(entry: dict[str, Any]) -> Rule:
    return _rule(
        entry,
        {
            "str_tee_platform": "tees",
            "hex_ta_measurement": "measurements",
            "str_ta_measurement": "measurements",
            "hex_signer": "signers",
            "str_signer": "signers",
            "hex_prod_id": "products",
            "str_prod_id": "products",
            "str_min_isvsvn": "min_svn",
            "bool_debug_disabled": "debug",
        },
    )


def _verdictd(members: dict[str, Any]) -> Rule:
    return Rule(
        measurements=[_hex(one, "mrEnclave") for one in _strings(members.get("mrEnclave", []), "mrEnclave")],
        signers=[_hex(one, "mrSigner") for one in _strings(members.get("mrSigner", []), "mrSigner")],
        claims={},
        products=[number] if (number := _integer(members.get("productId", 0), "productId")) else [],
        min_svn=_integer(members.get("svn", 0), "svn") or None,
    )


def _rule(entry: dict[str, Any], names: dict[str, str]) -> Rule:
    given: dict[str, Any] = {}
    for name, value in entry.items():
        if value is None or value in ("", []):
            continue
        if name not in names:
            raise _refused("a member that evidence here can be compared with", name[:40], "rule")
        member = names[name]
        if member in given:
            raise _refused("each member once", name[:40], "rule")
        if member == "debug":
            if _true(value, name):
                given["debug"] = False
        elif member == "min_svn":
            given["min_svn"] = _integer(value, name)
        elif member == "products":
            given["products"] = [_integer(value, name)]
        elif member == "tees":
            if not isinstance(value, str) or value not in _TEES:
                raise _refused(sorted(_TEES), str(value)[:40], name)
            given["tees"] = [_TEES[value]]
        else:
            given[member] = [_hex(value, name)]
    return Rule(**given)


def _objects(value: object, field: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise _refused("a list of objects", type(value).__name__, field)
    return value


def _strings(value: object, field: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise _refused("a list of strings", type(value).__name__, field)
    return value


def _hex(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise _refused("hex", type(value).__name__, field)
    return value.lower()


def _integer(value: object, field: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _refused("a number", str(value)[:40], field)


def _true(value: object, field: str) -> bool:
    for said, meant in ((("true", "True", "1", True), True), (("false", "False", "0", False), False)):
        if any(type(value) is type(one) and value == one for one in said):
            return meant
    raise _refused("true or false", str(value)[:40], field)


def _refused(expected: object, got: object, field: str | None = None) -> DocumentInvalid:
    return DocumentInvalid(
        "the release policy cannot be turned into rules",
        code="release_rules_malformed",
        field=field,
        expected=expected,
        got=got,
        spec="inclavare-kubetee 6.3",
    )
