"""Quotes and collateral that are wrong in exactly one place, and what must be said about each.

Everything is issued under a development root, so whatever is refused here is refused for that one thing: the same
evidence without it is accepted. Stricter asking never accepts more.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.dcap import MODULE, DcapForge, resign, sgx_body, td_body
from adyton.devtee.dcap_certificates import (
    CA_NAMES,
    Holder,
    Platform,
    make_pck,
    make_pck_ca,
    make_root,
    make_tcb_signing,
    new_key,
)
from adyton.devtee.dcap_collateral import (
    TDX_COMPONENTS,
    Collateral,
    Level,
    ModuleLevel,
    Signed,
    broken_signatures,
    mirrored,
)
from adyton.errors import AdytonError
from adyton.rats.types import ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.dcap.bodies import SgxBody
from adyton.tee.dcap.quote import Quote

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TEES = ("sgx", "tdx")
LONG_AGO = NOW - timedelta(days=40 * 365)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a verifier is given."""

    tee: str
    quote: Quote
    collateral: Collateral
    root: bytes
    extra: tuple[bytes, ...] = ()

    @property
    def blobs(self) -> list[bytes]:
        return [*self.collateral.blobs(), *self.extra]

    def endorsements(self) -> EndorsementSet:
        return EndorsementSet.parse(self.blobs)

    def shuffled(self, order: random.Random) -> EndorsementSet:
        return EndorsementSet.parse(order.sample(self.blobs, len(self.blobs)))

    def bundled(self) -> EndorsementSet:
        return EndorsementSet.parse([json.dumps(self.collateral.bundle()).encode()])

    def verify(self, endorsements: EndorsementSet | None = None, **options: Any) -> VerifiedEvidence:
        anchors = TrustAnchors(vendor=True, custom=frozenset({self.root}))
        chosen: dict[str, Any] = {
            "now": NOW,
            "anchors": anchors,
            "endorsements": endorsements or self.endorsements(),
        } | options
        return tee.verify(self.tee, self.quote.encode(), **chosen)


def attempt(forge: DcapForge, name: str, /, **changes: Any) -> Attempt:
    """The evidence that is right; ``changes`` are ``quote`` (options), ``body`` (fields) and ``collateral`` (options)."""
    fields = {"report_data": b"\x11" * 64, **changes.get("body", {})}
    body = sgx_body(**fields) if name == "sgx" else td_body(**fields)
    quote = forge.quote(body, **changes.get("quote", {}))
    return Attempt(name, quote, forge.collateral(name, **changes.get("collateral", {})), forge.fingerprint)


def parts(forge: DcapForge, name: str, /, **changes: Any) -> Attempt:
    """The evidence that is right, with parts of its collateral replaced."""
    right = attempt(forge, name)
    return replace(right, collateral=replace(right.collateral, **changes))


def other_tee(name: str) -> str:
    return "tdx" if name == "sgx" else "sgx"


def document(forge: DcapForge, name: str, which: str, change: Callable[[Signed], Signed]) -> Attempt:
    """A signed document changed after the fact."""
    return parts(forge, name, **{which: change(getattr(attempt(forge, name).collateral, which))})


def spoiled(signed: Signed) -> Signed:
    return signed._replace(signature=signed.signature[:-1] + bytes((signed.signature[-1] ^ 1,)))


def resigned(forge: DcapForge, name: str, /, **fields: Any) -> Attempt:
    """A field of the quote changed after the fact, the quote signed again where that is allowed."""
    right = attempt(forge, name)
    return replace(right, quote=msgspec.structs.replace(right.quote, **fields))


def under_other_root(forge: DcapForge, name: str) -> Attempt:
    return replace(attempt(DcapForge.new(NOW), name), root=forge.fingerprint)


def with_leaf(forge: DcapForge, name: str, platform: Platform | None = None, /, **leaf: Any) -> Attempt:
    return attempt(forge.with_platform(platform or forge.platform, **leaf), name)


def with_ca(forge: DcapForge, name: str, /, **ca: Any) -> Attempt:
    return attempt(with_authority(forge, make_pck_ca(forge.root, ca.pop("now", NOW), **ca)), name)


def with_authority(forge: DcapForge, ca: Holder) -> DcapForge:
    return replace(forge, pck_ca=ca, pck=make_pck(ca, forge.platform, NOW))


def with_signer(forge: DcapForge, name: str, /, **signer: Any) -> Attempt:
    made = make_tcb_signing(signer.pop("root", forge.root), signer.pop("now", NOW), **signer)
    return attempt(forge, name, collateral={"info_signer": made, "identity_signer": made})


def with_identity_signer(forge: DcapForge, name: str, /, **signer: Any) -> Attempt:
    made = make_tcb_signing(forge.root, signer.pop("now", NOW), **signer)
    return attempt(forge, name, collateral={"identity_signer": made})


Defect = tuple[Callable[[DcapForge, str], Attempt], str]
STRANGER = make_root(NOW)

# What is wrong -> evidence in which only that is wrong, and the code of the error. Section numbers: evidence 3.3.
DEFECTS: dict[str, Defect] = {
    "1 vendor": (lambda f, n: attempt(f, n, quote={"header": {"qe_vendor_id": bytes(16)}}), "qe_vendor_id"),
    "2 root of another key, same name": (under_other_root, "root_untrusted"),
    "2 leaf expired": (lambda f, n: with_leaf(f, n, now=LONG_AGO), "pck_validity"),
    "2 leaf not valid yet": (lambda f, n: with_leaf(f, n, now=NOW + DAY), "pck_validity"),
    "2 leaf with another name": (lambda f, n: with_leaf(f, n, name="Intel SGX PCK Platform CA"), "pck_name"),
    "2 leaf without the extension": (lambda f, n: with_leaf(f, n, extension=b""), "pck_extension"),
    "2 leaf with half an extension": (
        lambda f, n: with_leaf(f, n, extension=f.platform.extension()[:-4]),
        "pck_extension",
    ),
    "2 leaf signed by another key": (
        lambda f, n: attempt(replace(f, pck=make_pck(replace(f.pck_ca, key=new_key()), f.platform, NOW)), n),
        "pck_sig",
    ),
    "2 CA expired": (lambda f, n: with_ca(f, n, now=LONG_AGO), "pck_ca_validity"),
    "2 CA with another name": (lambda f, n: with_ca(f, n, name="Intel SGX PCK Other CA"), "pck_ca_name"),
    "2 CA signed by another key": (
        lambda f, n: attempt(
            with_authority(f, make_pck_ca(replace(f.root, key=new_key()), NOW)),
            n,
        ),
        "pck_ca_sig",
    ),
    "3 no PCK CRL": (lambda f, n: parts(f, n, pck_crl=None), "revocation_unknown"),
    "3 no root CRL": (lambda f, n: parts(f, n, root_crl=None), "revocation_unknown"),
    "3 PCK CRL signed by another CA": (
        lambda f, n: parts(f, n, pck_crl=f.crl(f.pck_ca, key=make_pck_ca(f.root, NOW).key)),
        "crl_sig",
    ),
    "3 PCK CRL of another CA": (
        lambda f, n: parts(f, n, pck_crl=f.crl(make_pck_ca(f.root, NOW, kind="processor"))),
        "revocation_unknown",
    ),
    "3 root CRL signed by another root": (
        lambda f, n: parts(f, n, root_crl=f.crl(f.root, key=STRANGER.key)),
        "crl_sig",
    ),
    "3 PCK CRL expired": (lambda f, n: parts(f, n, pck_crl=f.crl(f.pck_ca, now=NOW - 60 * DAY)), "crl_validity"),
    "3 PCK CRL not begun": (lambda f, n: parts(f, n, pck_crl=f.crl(f.pck_ca, now=NOW + DAY)), "crl_validity"),
    "3 root CRL expired": (lambda f, n: parts(f, n, root_crl=f.crl(f.root, now=NOW - 60 * DAY)), "crl_validity"),
    "3 leaf revoked": (
        lambda f, n: parts(f, n, pck_crl=f.crl(f.pck_ca, revoked=[f.pck.certificate])),
        "pck_revoked",
    ),
    "3 leaf revoked on an old list": (
        lambda f, n: replace(attempt(f, n), extra=(f.crl(f.pck_ca, now=NOW - 60 * DAY, revoked=[f.pck.certificate]),)),
        "pck_revoked",
    ),
    "3 CA revoked": (
        lambda f, n: parts(f, n, root_crl=f.crl(f.root, revoked=[f.pck_ca.certificate])),
        "pck_ca_revoked",
    ),
    "4 no TCB info": (lambda f, n: parts(f, n, tcb_info=None), "tcb_info_missing"),
    "4 TCB info changed": (
        lambda f, n: document(f, n, "tcb_info", lambda d: d._replace(text=d.text.replace(b":0,", b": 0,"))),
        "tcb_info_sig",
    ),
    "4 TCB info's signature": (
        lambda f, n: document(f, n, "tcb_info", spoiled),
        "tcb_info_sig",
    ),
    "4 TCB info signed by the PCK": (
        lambda f, n: attempt(f, n, collateral={"info_signer": f.pck}),
        "tcb_info_signer_name",
    ),
    "4 TCB info signed by a certificate of another name": (
        lambda f, n: attempt(
            f, n, collateral={"info_signer": make_tcb_signing(f.root, NOW, name="Intel SGX Other Signing")}
        ),
        "tcb_info_signer_name",
    ),
    "4 signer expired": (lambda f, n: with_signer(f, n, now=LONG_AGO), "tcb_signing_validity"),
    "4 signer revoked": (
        lambda f, n: parts(f, n, root_crl=f.crl(f.root, revoked=[f.tcb_signing.certificate])),
        "tcb_signing_revoked",
    ),
    "4 TCB info expired": (
        lambda f, n: attempt(f, n, collateral={"info": {"nextUpdate": "2026-06-01T11:59:59Z"}}),
        "tcb_info_validity",
    ),
    "4 TCB info not issued yet": (
        lambda f, n: attempt(f, n, collateral={"info": {"issueDate": "2026-06-01T12:00:01Z"}}),
        "tcb_info_validity",
    ),
    "4 TCB info of the other TEE": (
        lambda f, n: parts(f, n, tcb_info=f.collateral(other_tee(n)).tcb_info),
        "tcb_info_tee",
    ),
    "4 TCB info of an unknown version": (
        lambda f, n: attempt(f, n, collateral={"info": {"version": 4}}),
        "tcb_info_malformed",
    ),
    "4 TCB info of an unknown type": (
        lambda f, n: attempt(f, n, collateral={"info": {"tcbType": 1}}),
        "tcb_info_malformed",
    ),
    "4 TCB info without levels": (
        lambda f, n: attempt(f, n, collateral={"info": {"tcbLevels": []}}),
        "tcb_info_malformed",
    ),
    "5 FMSPC of another platform": (
        lambda f, n: attempt(f, n, collateral={"info": {"fmspc": "00" * 6}}),
        "fmspc_mismatch",
    ),
    "5 PCK of another FMSPC": (
        lambda f, n: replace(with_leaf(f, n, replace(f.platform, fmspc=b"\1" * 6)), collateral=f.collateral(n)),
        "fmspc_mismatch",
    ),
    "5 PCEID of another platform": (
        lambda f, n: attempt(f, n, collateral={"info": {"pceId": "0100"}}),
        "pceid_mismatch",
    ),
    "6 no QE identity": (lambda f, n: parts(f, n, qe_identity=None), "qe_identity_missing"),
    "6 QE identity's signature": (
        lambda f, n: document(f, n, "qe_identity", spoiled),
        "qe_identity_sig",
    ),
    "6 QE identity signed by the PCK": (
        lambda f, n: attempt(f, n, collateral={"identity_signer": f.pck}),
        "qe_identity_signer_name",
    ),
    "6 QE identity's signer expired": (lambda f, n: with_identity_signer(f, n, now=LONG_AGO), "tcb_signing_validity"),
    "6 QE identity of the other QE": (
        lambda f, n: parts(f, n, qe_identity=f.collateral(other_tee(n)).qe_identity),
        "qe_identity_tee",
    ),
    "6 QE identity expired": (
        lambda f, n: attempt(f, n, collateral={"identity": {"nextUpdate": "2026-06-01T11:59:59Z"}}),
        "qe_identity_validity",
    ),
    "6 QE identity of an unknown version": (
        lambda f, n: attempt(f, n, collateral={"identity": {"version": 3}}),
        "qe_identity_malformed",
    ),
    "8 QE report signed by another key": (lambda f, n: attempt(f, n, quote={"qe_signer": new_key()}), "qe_report_sig"),
    "8 QE report changed": (
        lambda f, n: resigned(f, n, qe_report=msgspec.structs.replace(attempt(f, n).quote.qe_report, isvsvn=9)),
        "qe_report_sig",
    ),
    "9 QE report over another key": (
        lambda f, n: attempt(f, n, quote={"qe_report": {"report_data": hashlib.sha256(b"").digest() + bytes(32)}}),
        "qe_report_data",
    ),
    "9 QE report data with a tail": (
        lambda f, n: attempt(
            f,
            n,
            quote={"qe_report": {"report_data": attempt(f, n).quote.qe_report.report_data[:63] + b"\1"}},
        ),
        "qe_report_data",
    ),
    "9 other authentication data": (lambda f, n: resigned(f, n, qe_auth_data=bytes(32)), "qe_report_data"),
    "10 QE's miscselect": (lambda f, n: attempt(f, n, quote={"qe_report": {"miscselect": 1}}), "qe_miscselect"),
    "10 QE in debug mode": (
        lambda f, n: attempt(
            f, n, quote={"qe_report": {"attributes": bytes.fromhex("1700000000000000e700000000000000")}}
        ),
        "qe_attributes",
    ),
    "10 QE's signer": (lambda f, n: attempt(f, n, quote={"qe_report": {"mrsigner": bytes(32)}}), "qe_mrsigner"),
    "10 QE's product": (lambda f, n: attempt(f, n, quote={"qe_report": {"isvprodid": 9}}), "qe_isvprodid"),
    "10 QE below every level": (lambda f, n: attempt(f, n, quote={"qe_report": {"isvsvn": 0}}), "qe_not_supported"),
    "11 quote signed by another key": (lambda f, n: attempt(f, n, quote={"quote_signer": new_key()}), "quote_sig"),
    "11 quote changed": (
        lambda f, n: resigned(f, n, body=(sgx_body if n == "sgx" else td_body)(report_data=b"\1" * 64)),
        "quote_sig",
    ),
    "12 a component below every level": (
        lambda f, n: attempt(
            f,
            n,
            collateral={
                "levels": [
                    Level((*f.platform.components[:15], 1), 0, tdx=TDX_COMPONENTS if n == "tdx" else None),
                ]
            },
        ),
        "tcb_not_supported",
    ),
    "12 PCESVN below every level": (
        lambda f, n: attempt(
            f,
            n,
            collateral={"levels": [Level(bytes(16), 14, tdx=TDX_COMPONENTS if n == "tdx" else None)]},
        ),
        "tcb_not_supported",
    ),
}
TDX_DEFECTS: dict[str, Defect] = {
    "7 no identity of the module": (
        lambda f, n: attempt(f, n, collateral={"modules": [(3, [ModuleLevel(0)])]}),
        "tdx_module_unknown",
    ),
    "7 no identities at all (declared nowhere, read by nobody)": (
        lambda f, n: attempt(f, n, collateral={"info": {"tdxModuleIdentities": None}}),
        "tdx_module_unknown",
    ),
    "7 the module's signer": (lambda f, n: attempt(f, n, body={"mrsignerseam": b"\1" * 48}), "tdx_module_mrsigner"),
    "7 the module's attributes": (
        lambda f, n: attempt(f, n, body={"seam_attributes": b"\1" + bytes(7)}),
        "tdx_module_attributes",
    ),
    "12 TDX component 2 below every level": (
        lambda f, n: attempt(f, n, body={"tee_tcb_svn": bytes((MODULE[1], MODULE[0], 1)) + bytes(13)}),
        "tcb_not_supported",
    ),
    "12 TDX components 0 and 1 of an old module": (
        lambda f, n: attempt(f, n, body={"tee_tcb_svn": bytes((4, 0, 2)) + bytes(13)}),
        "tcb_not_supported",
    ),
    "13 module below every level": (
        lambda f, n: attempt(f, n, collateral={"modules": [(MODULE[0], [ModuleLevel(MODULE[1] + 1)])]}),
        "tdx_module_not_supported",
    ),
}
ALL = [(name, kind) for name in DEFECTS for kind in TEES] + [(name, "tdx") for name in TDX_DEFECTS]


@pytest.fixture(scope="module")
def forge() -> DcapForge:
    return DcapForge.new(NOW)


class Pool(list[Attempt]):
    """Several; too long to print."""

    def __repr__(self) -> str:
        return "Pool"


class Cases(dict[tuple[str, str], Attempt]):
    """Each defect's evidence; too long to print."""

    def __repr__(self) -> str:
        return "Cases"


@pytest.fixture(scope="module")
def wrong(forge: DcapForge) -> Cases:
    return Cases({(name, kind): (DEFECTS | TDX_DEFECTS)[name][0](forge, kind) for name, kind in ALL})


def code_of(attempt: Attempt, endorsements: EndorsementSet | None = None, **options: Any) -> str | None:
    try:
        attempt.verify(endorsements, **options)
    except AdytonError as error:
        return error.code
    return None


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_one_defect_has_exactly_its_error(forge: DcapForge, wrong: Cases, name: str, kind: str) -> None:
    expected = (DEFECTS | TDX_DEFECTS)[name][1]
    evidence = wrong[name, kind]
    with pytest.raises(AdytonError) as caught:
        evidence.verify()
    assert caught.value.code == expected
    assert caught.value.tee == kind or caught.value.code.endswith("_malformed")
    assert caught.value.field is not None
    assert caught.value.spec is not None
    memory = tee.Remembered()
    code_of(replace(evidence, quote=attempt(forge, kind).quote), remembered=memory)  # what is right about it
    assert [code_of(evidence, remembered=memory) for _ in range(2)] == [expected] * 2
    order = random.Random(name)
    assert {code_of(evidence, evidence.shuffled(order)) for _ in range(3)} == {expected}


@pytest.mark.parametrize("kind", TEES)
def test_a_tcb_signer_under_another_root_is_nobody(forge: DcapForge, kind: str) -> None:
    evidence = with_signer(forge, kind, root=STRANGER)
    stranger = STRANGER.certificate.public_bytes(Encoding.DER)
    assert code_of(replace(evidence, extra=(stranger,))) in {"tcb_signing_sig", "root_untrusted"}
    assert code_of(evidence) in {"tcb_signing_sig", "root_untrusted"}


@pytest.mark.parametrize("kind", TEES)
@pytest.mark.parametrize("ca", CA_NAMES)
def test_without_a_defect_it_is_accepted(forge: DcapForge, kind: str, ca: str) -> None:
    here = forge.with_platform(replace(forge.platform, kind=ca))
    right = attempt(here, kind)
    memory = tee.Remembered()
    for given_ in (right.endorsements(), right.bundled()):
        for _ in range(2):
            for known in (None, memory):
                verified = right.verify(given_, remembered=known)
                assert verified.claims["tcb_status"] == "UpToDate"
                assert verified.claims["fmspc"] == here.platform.fmspc.hex()


@given(first=st.sampled_from(ALL), second=st.sampled_from(ALL), tail=st.binary(max_size=64))
def test_two_defects_are_refused(
    forge: DcapForge,
    wrong: Cases,
    first: tuple[str, str],
    second: tuple[str, str],
    tail: bytes,
) -> None:
    """The quote of one with the collateral of another: refused if either is refused beside what is right."""
    one, two = wrong[first], wrong[second]
    right = attempt(forge, one.tee)
    mixed = replace(
        one, quote=msgspec.structs.replace(one.quote, tail=tail), collateral=two.collateral, extra=two.extra
    )
    quote_is_wrong = code_of(replace(right, quote=one.quote)) is not None
    collateral_is_wrong = one.tee != two.tee or code_of(replace(two, quote=right.quote)) is not None
    if quote_is_wrong or collateral_is_wrong:
        assert code_of(mixed) is not None


@given(
    chosen=st.sampled_from(ALL),
    right=st.booleans(),
    expected=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    let_go=st.sets(st.sampled_from(["report_data", "init_data", "revocation", "anchors"])),
)
def test_stricter_never_accepts_more(
    forge: DcapForge,
    wrong: Cases,
    *,
    chosen: tuple[str, str],
    right: bool,
    expected: tuple[int, int],
    let_go: set[str],
) -> None:
    """Whatever is accepted with more asked for, is accepted with less; and says the same."""
    evidence = attempt(forge, chosen[1]) if right else wrong[chosen]
    body = evidence.quote.body
    init = body.configid if isinstance(body, SgxBody) else body.mrconfigid
    strict: dict[str, Any] = {
        "report_data": (None, ReportData(body.report_data), ReportData(b"\5" * 64))[expected[0]],
        "init_data": (None, init, b"\6" * len(init))[expected[1]],
        "revocation": Revocation.REQUIRED,
        "anchors": TrustAnchors(vendor=False, custom=frozenset({evidence.root})),
    }
    loose = {
        "report_data": None,
        "init_data": None,
        "revocation": Revocation.UNCHECKED_AS_ASKED,
        "anchors": TrustAnchors(vendor=True, custom=frozenset({evidence.root, b"\7" * 32})),
    }
    looser = {**strict, **{name: loose[name] for name in let_go}}
    if code_of(evidence, **strict) is None:
        before, after = evidence.verify(**strict), evidence.verify(**looser)
        facts = [name for name in before.claims if "crl" not in name]
        assert {name: after.claims[name] for name in facts} == {name: before.claims[name] for name in facts}
        assert set(before.unchecked) <= set(after.unchecked)


@given(chosen=st.sampled_from(ALL), lost=st.sets(st.integers(0, 9)))
def test_taking_endorsements_away_never_helps(wrong: Cases, chosen: tuple[str, str], lost: set[int]) -> None:
    evidence = wrong[chosen]
    blobs = [blob for number, blob in enumerate(evidence.blobs) if number not in lost]
    code = code_of(evidence, EndorsementSet.parse(blobs))
    assert code is not None or chosen[0] == "3 leaf revoked on an old list"


@given(bit=st.integers(0, 8 * 700))
def test_a_flipped_bit_of_what_is_signed_is_refused(forge: DcapForge, bit: int) -> None:
    for name in TEES:
        right = attempt(forge, name)
        data = bytearray(right.quote.encode())
        data[bit // 8 % right.quote.signed_size] ^= 1 << bit % 8
        anchors = TrustAnchors(vendor=False, custom=frozenset({right.root}))
        with pytest.raises(AdytonError):
            tee.verify(name, bytes(data), endorsements=right.endorsements(), now=NOW, anchors=anchors)


def test_a_changed_field_may_be_signed_again(forge: DcapForge) -> None:
    """What is refused above is refused for its signature."""
    right = attempt(forge, "tdx")
    body = td_body(report_data=b"\1" * 64)
    changed = resign(msgspec.structs.replace(right.quote, body=body), forge.attestation_key)
    verified = replace(right, quote=changed).verify(report_data=ReportData(b"\1" * 64))
    assert verified.claims["report_data"] == "01" * 64
    assert code_of(replace(right, quote=changed), report_data=ReportData(b"\2" * 64)) == "report_data_mismatch"


@pytest.mark.parametrize(
    ("kind", "version", "td15"),
    [("sgx", 3, False), ("sgx", 4, False), ("sgx", 5, False), ("tdx", 4, False), ("tdx", 5, False), ("tdx", 5, True)],
)
def test_every_version_and_body(forge: DcapForge, kind: str, version: int, td15: bool) -> None:
    right = attempt(forge, kind)
    body = sgx_body() if kind == "sgx" else td_body(td15=td15)
    evidence = replace(right, quote=forge.quote(body, version=version))
    verified = evidence.verify()
    assert verified.claims["quote_version"] == version
    assert verified.claims["tcb_status"] == "UpToDate"
    assert code_of(replace(evidence, quote=forge.quote(body, version=version, quote_signer=new_key()))) == "quote_sig"
    other = replace(evidence, tee=other_tee(kind))
    assert code_of(other) == "tee_type"


SIGNED = {
    "quote": "quote_sig",
    "qe_report": "qe_report_sig",
    "tcb_info": "tcb_info_sig",
    "qe_identity": "qe_identity_sig",
}


def with_signature(right: Attempt, which: str, change: Callable[[bytes], bytes]) -> Attempt:
    if which in {"quote", "qe_report"}:
        field = "signature" if which == "quote" else "qe_report_signature"
        changed = {field: change(getattr(right.quote, field))}
        return replace(right, quote=msgspec.structs.replace(right.quote, **changed))
    signed = getattr(right.collateral, which)
    documents: dict[str, Any] = {which: signed._replace(signature=change(signed.signature))}
    return replace(right, collateral=replace(right.collateral, **documents))


@pytest.mark.parametrize("which", SIGNED)
@pytest.mark.parametrize("kind", TEES)
def test_every_signature_in_every_wrong_way(forge: DcapForge, kind: str, which: str) -> None:
    right = attempt(forge, kind)
    for way in broken_signatures(bytes(64)):
        broken = with_signature(right, which, lambda signature, way=way: broken_signatures(signature)[way])  # type: ignore[misc]  # a default
        assert code_of(broken) == SIGNED[which], way


@pytest.mark.parametrize("which", SIGNED)
def test_a_mirrored_signature_is_as_good(forge: DcapForge, which: str) -> None:
    """So no hash of evidence is its identity: the bytes differ, the verdict does not."""
    right = attempt(forge, "tdx")
    other = with_signature(right, which, mirrored)
    assert (other.quote.encode(), other.blobs) != (right.quote.encode(), right.blobs)
    assert outcome(other) == outcome(right)


@pytest.fixture(scope="module")
def shared(forge: DcapForge, wrong: Cases) -> Pool:
    """Quotes that are right and wrong, of two platforms, with collateral that is right and wrong: few sets, many quotes."""
    other = forge.with_platform(replace(forge.platform, ppid=bytes(16)))
    found = Pool()
    for kind in TEES:
        right = attempt(forge, kind)
        found += [right, replace(right, quote=attempt(other, kind).quote)]
        for name in ("8 QE report changed", "9 other authentication data", "10 QE's signer", "11 quote changed"):
            found.append(replace(right, quote=wrong[name, kind].quote))
        for name in ("3 leaf revoked", "3 no PCK CRL", "4 TCB info's signature", "2 leaf expired"):
            found += [wrong[name, kind], replace(wrong[name, kind], quote=right.quote)]
        found.append(replace(right, extra=(wrong["3 leaf revoked", kind].blobs[-1],)))
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 27), st.integers(-5, 45), st.booleans()), max_size=12))
def test_what_is_remembered_never_changes_a_verdict(shared: list[Attempt], asked: list[tuple[int, int, bool]]) -> None:
    """In any order, at any time, with and without revocation."""
    memory = tee.Remembered(5)
    for number, days, revocation in asked:
        evidence = shared[number % len(shared)]
        options: dict[str, Any] = {
            "now": NOW + days * DAY,
            "revocation": Revocation.REQUIRED if revocation else Revocation.UNCHECKED_AS_ASKED,
        }
        fresh, known = (outcome(evidence, **options, remembered=how) for how in (None, memory))
        assert known == fresh


def outcome(evidence: Attempt, **options: Any) -> object:
    try:
        verified = evidence.verify(**options)
    except AdytonError as error:
        return error.code
    return dict(verified.claims), verified.expires, verified.expires_first, verified.unchecked, verified.root
