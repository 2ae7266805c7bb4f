"""Cases of an ``evidence-vectors/1`` manifest: run one, and say in what it differs from what the manifest expects.

One function for each kind of case, by explicit table. A kind without one is not passed over: it is reported as differing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from adyton import tee
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import AdytonError, UnsupportedEvidence
from adyton.rats.types import JsonValue, Revocation, TrustAnchors

NOT_SUPPORTED = "not supported"
_UNCOMPARED = ("failure", "note")  # members of `expected` that say why, not what


@dataclass(frozen=True, slots=True)
class Case:
    """One case of the manifest with its files' contents by role."""

    entry: Mapping[str, Any]
    files: Mapping[str, bytes]

    @property
    def now(self) -> datetime:
        """The reference time."""
        return datetime.fromisoformat(self.entry["reference_time"])

    @property
    def claims(self) -> Mapping[str, Any]:
        """The case's claims; for measurements they are the inputs."""
        claims: Mapping[str, Any] = self.entry.get("claims") or {}
        return claims

    def endorsements(self, *roles: str) -> EndorsementSet:
        """The endorsements in these files."""
        return EndorsementSet.parse(self.files[role] for role in roles if role in self.files)


@dataclass(slots=True)
class Got:
    """What came out: the outcome and members of ``expected``, and the claims."""

    members: dict[str, JsonValue]
    claims: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case with what came out of it."""

    entry: Mapping[str, Any]
    got: dict[str, JsonValue]
    differs: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.differs

    @property
    def supported(self) -> bool:
        """Whether Adyton knows this kind of case."""
        return self.got["outcome"] != NOT_SUPPORTED

    def as_dict(self) -> dict[str, JsonValue]:
        """The line that ``--json`` prints."""
        return {
            "id": self.entry["id"],
            "tee": self.entry["tee"],
            "kind": self.entry["kind"],
            "ok": self.ok,
            "expected": self.entry["expected"],
            "got": self.got,
            "differs": [*self.differs],
        }


def run(manifest: Mapping[str, Any], folder: Path, entry: Mapping[str, Any]) -> Outcome:
    """Run one case. Whatever an unreadable or changed file is, it makes the case differ."""
    runner = _RUNNERS.get((entry["tee"], entry["kind"]))
    if runner is None:
        return Outcome(entry, {"outcome": NOT_SUPPORTED}, ["expected.outcome"])
    files: dict[str, bytes] = {}
    for role, name in entry["files"].items():
        try:
            files[role] = (folder / name).read_bytes()
        except (OSError, ValueError, TypeError) as error:  # no text, or a NUL byte in it
            reason = error.strerror if isinstance(error, OSError) else "not a file's name"
            return Outcome(entry, {"outcome": "unreadable", "file": name, "reason": reason}, [f"files.{role}"])
        entry_of_file = manifest.get("files", {}).get(name)
        listed = entry_of_file.get("sha256") if isinstance(entry_of_file, dict) else None
        if listed is not None and hashlib.sha256(files[role]).hexdigest() != listed:
            return Outcome(entry, {"outcome": "changed", "file": name}, [f"files.{role}"])
    case = Case(entry, files)
    got = Got({"outcome": "valid"}, {})
    try:
        runner(case, got)
    except AdytonError as error:
        got.members["outcome"] = "unsupported" if isinstance(error, UnsupportedEvidence) else "invalid"
        got.members["failure"] = error.code
        got.members["failure_detail"] = error.message
    except (LookupError, TypeError, ValueError) as error:  # the case lacks what its kind needs, or has it wrong
        return Outcome(entry, {"outcome": "malformed case", "reason": f"{type(error).__name__}: {error}"}, ["case"])
    return _compare(case, got)


def _compare(case: Case, got: Got) -> Outcome:
    expected = case.entry["expected"]
    differs = [
        f"expected.{name}"
        for name, value in expected.items()
        if not name.startswith(_UNCOMPARED) and got.members.get(name) != value
    ]
    differs += [f"claims.{name}" for name, value in case.claims.items() if got.claims.get(name) != value]
    claims = {name: got.claims.get(name) for name in case.claims}
    return Outcome(case.entry, {**got.members, **({"claims": claims} if claims else {})}, differs)


def _snp_report(case: Case, got: Got) -> None:
    from adyton.tee.snp.endorsements import read_leaf

    endorsements = case.endorsements("endorsement_key", "chain", "crl")
    report = case.files["report"]
    got.claims |= tee.show("snp", report)
    leaf = read_leaf(EndorsementSet.parse([case.files["endorsement_key"]]).certificates[0])
    got.claims["product"] = leaf.product_name
    got.claims["hwid_len"] = len(leaf.hardware_id) if leaf.hardware_id is not None else None
    revocation = _revocation(case, got)
    verified = tee.verify(
        "snp", report, endorsements=endorsements, now=case.now, anchors=TrustAnchors(), revocation=revocation
    )
    got.claims |= verified.claims


def _revocation(case: Case, got: Got) -> Revocation:
    """Without a CRL in the case, revocation is not checked, and the case says so."""
    if "crl" in case.files:
        return Revocation.REQUIRED
    got.members["unchecked"] = ["revocation"]
    return Revocation.UNCHECKED_AS_ASKED


def _snp_certificate(case: Case, got: Got) -> None:
    from adyton.tee.snp.endorsements import vendor_extensions
    from adyton.tee.snp.verify import verify_endorsement

    certificate: Certificate = case.endorsements("endorsement_key").certificates[0]
    got.claims |= {name: _extension(name, value) for name, value in vendor_extensions(certificate).items()}
    verify_endorsement(
        certificate,
        case.endorsements("endorsement_key", "chain", "crl"),
        now=case.now,
        anchors=TrustAnchors(),
        revocation=_revocation(case, got),
    )


def _extension(name: str, value: bytes) -> JsonValue:
    from adyton.wire import der

    if name == "4":  # the hardware id is bare bytes, not DER
        return value.hex()
    return der.read_ia5(value) if name in {"2", "5"} else der.read_integer(value)


def _snp_crl(case: Case, got: Got) -> None:
    from adyton.tee.snp.endorsements import check_crl

    (crl,) = case.endorsements("crl").crls
    got.claims["this_update"] = _rfc3339(crl.this_update)
    got.claims["next_update"] = _rfc3339(crl.next_update)
    got.claims["entries"] = len(crl)
    check_crl(crl, case.endorsements("chain"), anchors=TrustAnchors(), now=case.now)


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _sev_launch_digest(case: Case, got: Got) -> None:
    from adyton.tee.snp.measure import launch_digest, sev_launch_digest
    from adyton.tee.snp.vmsa import Vmm, vcpu_signature

    inputs = case.claims
    signed = inputs["vcpu_type"] is not None
    got.claims |= inputs
    got.claims["vcpu_signature"] = hex(vcpu_signature(inputs["vcpu_type"])) if signed else None
    boot: dict[str, Any] = {
        "firmware": case.files["ovmf"],
        "kernel": case.files.get("kernel"),
        "initrd": case.files.get("initrd"),
        "cmdline": inputs["cmdline"] or "",
        "vcpus": inputs["vcpus"],
        "vcpu_type": inputs["vcpu_type"],
    }
    if inputs["mode"] == "SEV_SNP":
        digest = launch_digest(**boot, guest_features=int(inputs["guest_features"], 16), vmm=Vmm(inputs["vmm"]))
    else:
        digest = sev_launch_digest(**boot, encrypted_state={"SEV": False, "SEV_ES": True}[inputs["mode"]])
    got.members["launch_digest"] = digest.hex()


def _snp_key_digest(case: Case, got: Got) -> None:
    from adyton.tee.snp.id_block import key_digest, key_structure, load_key

    got.members["key_digest"] = key_digest(key_structure(load_key(case.files["key"]))).hex()


def _snp_id_block(case: Case, got: Got) -> None:
    from adyton.errors import BindingMismatch
    from adyton.tee.snp.abi import GuestPolicy
    from adyton.tee.snp.id_block import AuthBlock, IdBlock, key_structure, load_key

    got.claims |= case.claims
    digest, policy = bytes.fromhex(case.claims["launch_digest"]), int(case.claims["policy"], 16)
    block = IdBlock(digest, policy=GuestPolicy(policy))
    got.members["id_block_base64"] = base64.b64encode(block.encode()).decode("ascii")
    auth = AuthBlock.parse(case.files["auth_block"])
    auth.verify(block)
    if (
        auth.id_key != key_structure(load_key(case.files["id_key"]))
        or auth.block_signature != case.files["id_signature"]
    ):
        raise BindingMismatch("the authentication block holds another key or signature", code="id_key_mismatch")


_RUNNERS: dict[tuple[str, str], Callable[[Case, Got], None]] = {
    ("snp", "report-with-vcek"): _snp_report,
    ("snp", "endorsement-certificate"): _snp_certificate,
    ("snp", "crl"): _snp_crl,
    ("measure", "sev-launch-digest"): _sev_launch_digest,
    ("measure", "snp-key-digest"): _snp_key_digest,
    ("measure", "snp-id-block"): _snp_id_block,
}
