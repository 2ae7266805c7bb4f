"""Release rules: a list, of which any one must match, and of that one every member that is given (AECS; inclavare 6.3).

A rule is compared with what the evidence of the TEE itself (the primary one) says, under the same names for every TEE:

===============  =====================================================================================================
``tees``         wire names: ``snp``, ``sgx`` …
``measurements`` lower-case hex of what was started: launch digest, MRENCLAVE, MRTD
``signers``      lower-case hex: MRSIGNER (SGX, HyperEnclave)
``products``     the enclave author's product id (SGX, HyperEnclave)
``min_svn``      the enclave author's security version, at least this
``debug``        whether somebody outside may read or change it
``init_data``    lower-case hex of what it was started with (HOST_DATA and its like)
``claims``       any other claim: path in the annotated evidence (parts joined by ``/``) to the values that are accepted
===============  =====================================================================================================

A member that the evidence does not have matches nothing; a rule without members matches nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from adyton.errors import MalformedRequest
from adyton.protocol.ear import Submodule
from adyton.rats.types import JsonValue

MAX_RULES = 100
MAX_VALUES = 200
_HEX = re.compile(r"(?:[0-9a-f]{2}){1,64}\Z")
_TEE = re.compile(r"[a-z0-9-]{1,32}\Z")
_PATH = re.compile(r"[!-~]{1,200}\Z")
_ENCLAVES = {
    "sgx": ("body/mr_signer", "body/isv_prod_id", "body/isv_svn"),
    "hyperenclave": ("mrsigner", "isvprodid", "isvsvn"),
}


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule. A list accepts any of its values; an empty list, and ``None``, is a member that is not given."""

    tees: list[str] = []
    measurements: list[str] = []
    signers: list[str] = []
    products: list[int] = []
    min_svn: int | None = None
    debug: bool | None = None
    init_data: list[str] = []
    claims: dict[str, list[str | int | bool]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no member is given at all."""
        return self == _EMPTY

    @property
    def believes_what_runs(self) -> bool:
        """Whether it takes the guest's word on what it was started with, without saying by measurement which guest."""
        said = self.init_data or any(path.startswith("init_data") for path in self.claims)
        return bool(said) and not self.measurements


_EMPTY = Rule()


def check(rules: list[Rule]) -> None:
    """``MalformedRequest`` names the first entry that could never match, or that would match anybody."""
    if len(rules) > MAX_RULES:
        raise _malformed("rules", f"at most {MAX_RULES}", len(rules))
    for rule in rules:
        if rule.is_empty:
            raise _malformed("rules", "a member in each rule", "none")
        lists: list[tuple[str, list[str], re.Pattern[str]]] = [
            ("tees", rule.tees, _TEE),
            ("measurements", rule.measurements, _HEX),
            ("signers", rule.signers, _HEX),
            ("init_data", rule.init_data, _HEX),
            ("claims", list(rule.claims), _PATH),
        ]
        for field, values, form in lists:
            if len(values) > MAX_VALUES:
                raise _malformed(field, f"at most {MAX_VALUES}", len(values))
            for value in values:
                if not form.match(value):
                    raise _malformed(field, "lower-case hex" if form is _HEX else "a name", value)
        for path, accepted in rule.claims.items():
            if not accepted or len(accepted) > MAX_VALUES:
                raise _malformed(path, f"1 to {MAX_VALUES} values", len(accepted))
        numbers = [*rule.products, *([] if rule.min_svn is None else [rule.min_svn])]
        if len(numbers) > MAX_VALUES or any(not 0 <= number < 65536 for number in numbers):
            raise _malformed("products", "numbers from 0 to 65535", "others")


def matches(rule: Rule, primary: Submodule) -> bool:
    """Whether every member that ``rule`` gives is as the evidence says."""
    if rule.is_empty:
        return False
    evidence = primary.evidence
    debug = _debug(primary)
    signer, product, svn = _enclave(primary)
    return (
        (not rule.tees or primary.tee in rule.tees)
        and (not rule.measurements or primary.measurement in rule.measurements)
        and (not rule.signers or signer in rule.signers)
        and (not rule.products or product in rule.products)
        and (rule.min_svn is None or (svn is not None and svn >= rule.min_svn))
        and (rule.debug is None or debug is rule.debug)
        and (not rule.init_data or primary.host_data.hex() in rule.init_data)
        and all(_accepts(accepted, _at(evidence, path)) for path, accepted in rule.claims.items())
    )


def _debug(primary: Submodule) -> bool | None:
    path = "snp/policy_debug_allowed" if primary.tee == "snp" else "adyton/debug"
    said = _at(primary.evidence, path)
    return said if isinstance(said, bool) else None


def _enclave(primary: Submodule) -> tuple[str | None, int | None, int | None]:
    """Signer, product and security version; ``None`` each where the evidence has none."""
    names = _ENCLAVES.get(primary.tee)
    if names is None:
        return None, None, None
    signer, product, svn = (_at(primary.evidence, f"{primary.tee}/{name}") for name in names)
    return signer if isinstance(signer, str) else None, _number(product), _number(svn)


def _number(value: JsonValue) -> int | None:
    """A 16-bit number; CoCo's claims write it in hex of its little-endian bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or len(value) != 4 or not _HEX.match(value):
        return None
    return int.from_bytes(bytes.fromhex(value), "little")


def _at(evidence: Mapping[str, JsonValue], path: str) -> JsonValue:
    value: JsonValue = dict(evidence)
    for part in path.split("/"):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def _accepts(accepted: list[str | int | bool], got: JsonValue) -> bool:
    return any(type(item) is type(got) and item == got for item in accepted)  # true is not 1


def _malformed(field: str, expected: str, got: object) -> MalformedRequest:
    return MalformedRequest(
        "a release rule could never match, or would match anybody",
        code="rule_malformed",
        field=field,
        expected=expected,
        got=got if isinstance(got, int) else str(got)[:80],
        spec="inclavare-kubetee 6.3",
    )
