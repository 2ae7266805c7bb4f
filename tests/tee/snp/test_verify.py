from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from adyton import tee
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import (
    AdytonError,
    BindingMismatch,
    EndorsementError,
    EndorsementExpired,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementRevoked,
    EndorsementUntrusted,
    EvidenceError,
    MalformedEvidence,
    SignatureInvalid,
    UnsupportedEvidence,
)
from adyton.rats.types import Check, ReportData, Revocation, RootKind, TrustAnchors, VerifiedEvidence
from adyton.tee.snp.abi import GuestPolicy, KeyInfo, Tcb

Refused = Callable[..., AdytonError]


def verify(issuer: Any, report: bytes, endorsements: EndorsementSet, **changes: Any) -> VerifiedEvidence:
    changes = {"now": issuer_now(), "anchors": issuer.anchors} | changes
    return tee.verify("snp", report, endorsements=endorsements, **changes)


def issuer_now() -> datetime:
    return datetime.fromisoformat("2026-06-01T12:00:00Z")


@pytest.fixture
def refused(genoa: Any) -> Refused:
    """Verify and expect exactly this class of error and this code; the trail ends with the one failed check."""

    def call(
        kind: type[AdytonError],
        code: str,
        check: str,
        *,
        report: bytes | None = None,
        given: EndorsementSet | None = None,
        issuer: Any = genoa,
        **changes: Any,
    ) -> AdytonError:
        trail: list[Check] = []
        with pytest.raises(AdytonError) as caught:
            verify(issuer, report or issuer.report(), given or issuer.set_of(), trail=trail, **changes)
        error = caught.value
        assert (type(error), error.code) == (kind, code), error.message
        assert (trail[-1].id, trail[-1].ok) == (check, False)
        assert all(done.ok for done in trail[:-1])
        assert error.tee == "snp"
        assert error.spec
        return error

    return call


def test_what_is_right_verifies(genoa: Any, now: datetime) -> None:
    trail: list[Check] = []
    verified = verify(
        genoa,
        genoa.report(),
        genoa.set_of(),
        report_data=ReportData(b"\x11" * 64),
        init_data=b"\x22" * 32,
        trail=trail,
    )
    assert verified.unchecked == ()
    assert [check.id for check in verified.checks] == [
        *("format", "signing_key", "certificate", "product", "key_kind", "chip_id", "chain", "validity", "root"),
        *("revocation", "tcb", "report_sig", "tcb_order", "report_data", "init_data"),
    ]
    assert [check.id for check in trail] == [check.id for check in verified.checks]
    assert all(check.ok for check in trail)
    assert verified.root is RootKind.CUSTOM
    assert bytes.fromhex(verified.root_fingerprint) in genoa.anchors.custom
    assert (verified.expires_first, verified.expires) == ("CRL", now + timedelta(days=40))
    assert verified.tee_class == "cpu"
    assert verified.coco_claims == {
        "measurement": "33" * 48,
        "report_data": "11" * 64,
        "init_data": "22" * 32,
        "chip_id": bytes(range(1, 65)).hex(),
        "reported_tcb_bootloader": 10,
        "reported_tcb_tee": 0,
        "reported_tcb_snp": 23,
        "reported_tcb_microcode": 84,
        "policy_abi_major": 0,
        "policy_abi_minor": 0,
        "policy_smt_allowed": True,
        "policy_migrate_ma": False,
        "policy_debug_allowed": False,
        "policy_single_socket": False,
        "platform_smt_enabled": False,
        "platform_tsme_enabled": False,
    }
    assert verified.claims["report_version"] == 5
    assert (verified.claims["launch_mit_vector"], verified.claims["current_mit_vector"]) == (3, 3)


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_all_versions(milan: Any, version: int) -> None:
    verified = verify(milan, milan.report(version=version), milan.set_of())
    assert verified.claims["report_version"] == version
    assert ("cpuid_fms" in verified.claims) is (version > 2)
    assert ("launch_mit_vector" in verified.claims) is (version > 3)  # 4 parses as 5


def test_turin_has_its_own_layout(turin: Any) -> None:
    tcb = {"boot_loader": 1, "tee": 2, "snp": 3, "microcode": 0x80, "fmc": 200}
    report = turin.report(
        **dict.fromkeys(("reported_tcb", "committed_tcb", "current_tcb", "launch_tcb"), Tcb.of(**tcb))
    )
    verified = verify(turin, report, turin.set_of(vcek=turin.leaf(tcb=tcb)))
    assert verified.tcb["reported"] == tcb
    assert verified.claims["hwid_len"] == 8


@pytest.mark.parametrize("name", ["Genoa", "Genoa-B1", "Bergamo", "Siena-A0"])
def test_siblings_of_genoa(genoa: Any, name: str) -> None:
    assert verify(genoa, genoa.report(), genoa.set_of(vcek=genoa.leaf(product_name=name))).claims["product"] == name


@pytest.mark.parametrize(("model", "product"), [(0x10, 1), (0x1F, 1), (0xA0, 1), (0xAF, 1)])
def test_models_of_genoa_bergamo_and_siena(genoa: Any, model: int, product: int) -> None:
    assert verify(genoa, genoa.report(cpuid_model=model), genoa.set_of()).claims["cpuid_fms"] == [0x19, model, product]


def test_components_from_0x80_are_encoded_with_a_leading_zero(genoa: Any) -> None:
    tcb = {"boot_loader": 0x7F, "tee": 0x80, "snp": 0xDB, "microcode": 0xFF}
    fields = dict.fromkeys(("reported_tcb", "committed_tcb", "current_tcb", "launch_tcb"), Tcb.of(**tcb))
    vcek = genoa.leaf(tcb=tcb)
    assert bytes.fromhex("020200ff") in vcek
    assert verify(genoa, genoa.report(**fields), genoa.set_of(vcek=vcek)).tcb["reported"] == tcb


# 4.3.1


def test_reserved_policy_bit(refused: Refused, genoa: Any) -> None:
    refused(MalformedEvidence, "policy_reserved_bit", "format", report=genoa.report(policy=GuestPolicy(0x10000)))


# 4.3.2


@pytest.mark.parametrize("cpuid", [(0x19, 0x20, 0), (0x19, 0x9F, 0), (0x1A, 0x50, 0), (0x1A, 0x12, 0), (0x17, 0x31, 0)])
def test_a_generation_without_a_root(refused: Refused, genoa: Any, cpuid: tuple[int, int, int]) -> None:
    report = genoa.report(cpuid_family=cpuid[0], cpuid_model=cpuid[1], cpuid_stepping=cpuid[2])
    refused(UnsupportedEvidence, "product_unknown", "format", report=report)


def test_certificate_of_another_product(refused: Refused, genoa: Any, milan: Any) -> None:
    given = milan.set_of()
    refused(BindingMismatch, "product_mismatch", "product", given=given)
    mixed = genoa.set_of(vcek=genoa.leaf(product_name="Milan-B0"))
    refused(BindingMismatch, "product_mismatch", "product", given=mixed)


def test_turin_never_wrote_version_2(refused: Refused, turin: Any) -> None:
    report = turin.report(version=2, chip_id=bytes(range(1, 9)).ljust(64, b"\0"))
    refused(BindingMismatch, "product_mismatch", "product", report=report, issuer=turin)


def test_chain_of_another_product_under_the_right_leaf(refused: Refused, genoa: Any, milan: Any) -> None:
    vcek = genoa.leaf(issuer="SEV-Milan")
    given = EndorsementSet.parse([vcek, milan.standard("ask"), milan.standard("ark"), milan.standard("crl")])
    refused(EndorsementUntrusted, "intermediate_name", "chain", given=given)


# 4.3.3


@pytest.mark.parametrize("key_info", [2 << 2, 6 << 2, 7 << 2])
def test_reports_that_no_known_key_signed(refused: Refused, genoa: Any, key_info: int) -> None:
    refused(EvidenceError, "signing_key", "signing_key", report=genoa.report(key_info=KeyInfo(key_info)))


def test_vlek(genoa: Any) -> None:
    given = genoa.set_of(vcek=genoa.standard("vlek"), ask=genoa.standard("asvk"))
    verified = verify(genoa, genoa.report(vlek=True, chip_id=bytes(64)), given)
    assert verified.claims["csp_id"] == "CN=cloud.example"
    assert "hwid_len" not in verified.claims
    assert verified.unchecked == ("chip_id", "csp_id", "report_data", "init_data")
    assert "chip_id" not in [check.id for check in verified.checks]


def test_tav_142_a_vlek_in_the_place_of_a_vcek(refused: Refused, genoa: Any) -> None:
    """Microsoft TAV #142: a VLEK that was taken for a VCEK skipped the check of the chip."""
    given = genoa.set_of(vcek=genoa.standard("vlek"), asvk=genoa.standard("asvk"))
    refused(BindingMismatch, "key_kind", "key_kind", given=given)
    # and the other way round
    refused(BindingMismatch, "key_kind", "key_kind", report=genoa.report(vlek=True))


def test_tav_142_the_host_s_label_decides_nothing(genoa: Any) -> None:
    from adyton.tee.snp import json_form
    from adyton.tee.snp.abi import SnpReport

    report = SnpReport.parse(genoa.report())
    labelled = msgspec_json(json_form.to_json(report, [("VCEK", genoa.standard("vlek"))]))
    with pytest.raises(BindingMismatch) as caught:
        verify(genoa, labelled, genoa.set_of(vcek=None, asvk=genoa.standard("asvk")))
    assert caught.value.code == "key_kind"


def test_snpguest_159_the_hardware_id_is_compared(refused: Refused, genoa: Any) -> None:
    """virtee/snpguest #159: the check of the chip never ran, since the leaf was taken for an ASK."""
    other = bytes(range(2, 66))
    refused(BindingMismatch, "chip_id", "chip_id", report=genoa.report(chip_id=other))
    refused(BindingMismatch, "chip_id", "chip_id", given=genoa.set_of(vcek=genoa.leaf(chip=other)))


def test_snpguest_159_a_leaf_is_no_authority(refused: Refused, genoa: Any) -> None:
    more = [(x509.BasicConstraints(ca=True, path_length=None), True)]
    refused(EndorsementMalformed, "leaf_profile", "chain", given=genoa.set_of(vcek=genoa.leaf(more=more)))


def test_turin_compares_eight_bytes_and_wants_zeros_after_them(refused: Refused, turin: Any) -> None:
    report = turin.report(chip_id=bytes(range(1, 9)).ljust(63, b"\0") + b"\1")
    refused(BindingMismatch, "chip_id", "chip_id", report=report, issuer=turin)


def test_masked_chip_id_is_said(genoa: Any) -> None:
    verified = verify(genoa, genoa.report(chip_id=bytes(64)), genoa.set_of())
    assert "chip_id" in verified.unchecked
    assert verified.claims["chip_id_masked"] is True
    assert "chip_id" not in [check.id for check in verified.checks]


def test_a_vcek_of_zeros_fits_no_other_chip(refused: Refused, genoa: Any) -> None:
    refused(BindingMismatch, "chip_id", "chip_id", given=genoa.set_of(vcek=genoa.leaf(chip=bytes(64))))


# 4.3.4: certificates


@pytest.mark.parametrize(
    "broken",
    [
        {"set_": {"1": None}},
        {"set_": {"2": None}},
        {"set_": {"3.1": None}},
        {"set_": {"3.8": None}},
        {"set_": {"4": None}},
        {"set_": {"5": b"\x16\x01a"}},  # hardware id and provider's id
        {"set_": {"1": b"\x02\x01\x01"}},  # Turin's structure
        {"set_": {"1": b"\x02\x01\x02"}},
        {"set_": {"3.9": b"\x02\x01\x00"}},  # FMC outside Turin
        {"set_": {"3.1": b"\x02\x02\x00\x0a"}},  # not DER
        {"set_": {"3.1": b"\x02\x01\x8a"}},  # negative
        {"set_": {"3.1": b"\x02\x02\x01\x00"}},  # larger than a byte
        {"set_": {"3.1": b"\x02\x01\x0a\x00"}},  # bytes after it
        {"set_": {"3.1": b""}},
        {"set_": {"4": bytes(63)}},
        {"set_": {"4": bytes(8)}},
        {"set_": {"2": b"\x0c\x05Genoa"}},  # UTF8String
        {"product_name": "Genoa-"},
        {"product_name": "GenoaX"},  # no prefix match
        {"product_name": "Genoa-B11"},
        {"product_name": "Venice"},
        {"set_": {"1": b"\x02\x01\x01", "2": b"\x16\x05Turin", "3.9": b"\x02\x01\x00"}},  # with Genoa's long id
    ],
)
def test_leaf_extensions(refused: Refused, genoa: Any, broken: dict[str, Any]) -> None:
    refused(EndorsementMalformed, "leaf_extensions", "certificate", given=genoa.set_of(vcek=genoa.leaf(**broken)))


def test_leaf_names_and_extensions_agree(refused: Refused, genoa: Any) -> None:
    for subject in ("SEV-VLEK", "SEV-Genoa", "SEV-VCEK-2", ""):
        vcek = genoa.leaf(subject=subject or "-")
        refused(EndorsementMalformed, "leaf_name", "certificate", given=genoa.set_of(vcek=vcek))


def test_leaf_key_is_p384(refused: Refused, genoa: Any) -> None:
    for key in (ec.generate_private_key(ec.SECP256R1()).public_key(), genoa.keys.other.public_key()):
        given = genoa.set_of(vcek=genoa.leaf(public_key=key))
        refused(EndorsementMalformed, "leaf_key", "certificate", given=given)


def test_missing_certificates(refused: Refused, genoa: Any) -> None:
    refused(EndorsementMissing, "leaf_missing", "certificate", given=EndorsementSet())
    refused(EndorsementMissing, "leaf_missing", "certificate", given=genoa.set_of(vcek=None))
    refused(EndorsementMissing, "intermediate_missing", "chain", given=genoa.set_of(ask=None))
    refused(EndorsementMissing, "root_missing", "chain", given=genoa.set_of(ark=None))
    refused(EndorsementMissing, "revocation_unknown", "revocation", given=genoa.set_of(crl=None))


def test_go_sev_guest_72_the_key_service_is_asked_for_the_reported_tcb(
    refused: Refused, genoa: Any, turin: Any
) -> None:
    """google/go-sev-guest #72: asked with current_tcb, the service hands out the wrong VCEK."""
    newer = Tcb.of(boot_loader=11, tee=1, snp=24, microcode=85)
    report = genoa.report(current_tcb=newer, committed_tcb=newer)
    error = refused(EndorsementMissing, "leaf_missing", "certificate", report=report, given=EndorsementSet())
    assert error.hint is not None
    assert f"vcek/v1/Genoa/{bytes(range(1, 65)).hex()}?blSPL=10&teeSPL=00&snpSPL=23&ucodeSPL=84" in error.hint
    error = refused(EndorsementMissing, "leaf_missing", "certificate", given=EndorsementSet(), issuer=turin)
    assert error.hint is not None
    assert "vcek/v1/Turin/0102030405060708?fmcSPL=00&blSPL=10" in error.hint
    # the VCEK of the current TCB does not fit
    vcek = genoa.leaf(tcb={"boot_loader": 11, "tee": 1, "snp": 24, "microcode": 85})
    refused(BindingMismatch, "tcb_mismatch", "tcb", report=report, given=genoa.set_of(vcek=vcek))


@pytest.mark.parametrize("part", ["vcek", "ask", "ark"])
@pytest.mark.parametrize("late", [True, False])
def test_validity(refused: Refused, genoa: Any, now: datetime, part: str, late: bool) -> None:
    second = timedelta(seconds=1)
    times = {"not_after": now - second} if late else {"not_before": now + second}
    make = {"vcek": genoa.leaf, "ask": genoa.ask, "ark": genoa.ark}[part]
    code = {"vcek": "leaf_validity", "ask": "intermediate_validity", "ark": "root_validity"}[part]
    error = refused(EndorsementExpired, code, "validity", given=genoa.set_of(**{part: make(**times)}))
    assert ("expired" in error.message) is late
    edge = {"not_after": now} if late else {"not_before": now}
    verify(genoa, genoa.report(), genoa.set_of(**{part: make(**edge)}))


def test_forged_links(refused: Refused, genoa: Any) -> None:
    other = genoa.keys.other
    refused(EndorsementUntrusted, "leaf_sig", "chain", given=genoa.set_of(vcek=genoa.leaf(signer=other)))
    refused(EndorsementUntrusted, "intermediate_sig", "chain", given=genoa.set_of(ask=genoa.ask(signer=other)))
    refused(EndorsementUntrusted, "root_sig", "chain", given=genoa.set_of(ark=genoa.ark(signer=other)))


def test_foreign_root(refused: Refused, genoa: Any) -> None:
    other = genoa.keys.other
    given = EndorsementSet.parse(
        [
            genoa.leaf(),
            genoa.ask(signer=other),
            genoa.ark(key=other),
            genoa.crl(signer=other),
        ]
    )
    refused(EndorsementUntrusted, "root_untrusted", "root", given=given)
    refused(EndorsementUntrusted, "root_untrusted", "root", anchors=TrustAnchors())


def test_a_trusted_root_is_found_among_others_of_its_name(genoa: Any) -> None:
    given = genoa.set_of(junk=genoa.ark(key=genoa.keys.other), junk2=genoa.ask(signer=genoa.keys.other))
    assert verify(genoa, genoa.report(), given).root is RootKind.CUSTOM


def test_wrong_order(refused: Refused, genoa: Any) -> None:
    # the leaf straight under the root, an intermediate as leaf, an intermediate that is its own root
    straight = genoa.leaf(issuer="ARK-Genoa", signer=genoa.keys.ark)
    refused(EndorsementUntrusted, "intermediate_name", "chain", given=genoa.set_of(vcek=straight))
    own = genoa.ask(issuer="SEV-Genoa", signer=genoa.keys.ask)
    refused(EndorsementUntrusted, "root_name", "chain", given=genoa.set_of(ask=own))
    refused(EndorsementMissing, "leaf_missing", "certificate", given=genoa.set_of(vcek=None))


@pytest.mark.parametrize(
    "pss",
    [
        padding.PSS(padding.MGF1(hashes.SHA384()), 32),
        padding.PSS(padding.MGF1(hashes.SHA256()), 48),
        padding.PKCS1v15(),
    ],
    ids=["salt 32", "MGF1 SHA-256", "PKCS#1 v1.5"],
)
def test_only_the_format_s_algorithm(refused: Refused, genoa: Any, pss: Any) -> None:
    refused(EndorsementMalformed, "leaf_sig_algorithm", "chain", given=genoa.set_of(vcek=genoa.leaf(pss=pss)))
    refused(EndorsementMalformed, "intermediate_sig_algorithm", "chain", given=genoa.set_of(ask=genoa.ask(pss=pss)))
    refused(EndorsementMalformed, "root_sig_algorithm", "chain", given=genoa.set_of(ark=genoa.ark(pss=pss)))
    refused(EndorsementUntrusted, "crl_sig", "revocation", given=genoa.set_of(crl=genoa.crl(pss=pss)))


def test_only_sha384(refused: Refused, genoa: Any) -> None:
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 48)
    vcek = genoa.leaf(pss=pss, digest=hashes.SHA256())
    refused(EndorsementMalformed, "leaf_sig_algorithm", "chain", given=genoa.set_of(vcek=vcek))


def test_authorities_have_rsa_4096(refused: Refused, genoa: Any) -> None:
    small = rsa.generate_private_key(65537, 2048)
    given = genoa.set_of(vcek=genoa.leaf(signer=small), ask=genoa.ask(key=small))
    refused(EndorsementMalformed, "intermediate_key", "chain", given=given)


@pytest.mark.parametrize(
    "broken",
    [
        {"constraints": None},
        {"constraints": x509.BasicConstraints(ca=False, path_length=None)},
        {"key_usage": None},
        {"key_usage": x509.KeyUsage(*([True] + [False] * 8))},
    ],
    ids=["no constraints", "no CA", "no key usage", "other key usage"],
)
def test_authorities_are_authorities(refused: Refused, genoa: Any, broken: dict[str, Any]) -> None:
    refused(EndorsementMalformed, "intermediate_profile", "chain", given=genoa.set_of(ask=genoa.ask(**broken)))
    refused(EndorsementMalformed, "root_profile", "chain", given=genoa.set_of(ark=genoa.ark(**broken)))


def test_path_length(refused: Refused, genoa: Any) -> None:
    short = genoa.ark(constraints=x509.BasicConstraints(ca=True, path_length=0))
    refused(EndorsementMalformed, "root_profile", "chain", given=genoa.set_of(ark=short))


@pytest.mark.parametrize("part", ["vcek", "ask", "ark"])
def test_unknown_critical_extensions(refused: Refused, genoa: Any, part: str) -> None:
    more = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)]
    make = {"vcek": genoa.leaf, "ask": genoa.ask, "ark": genoa.ark}[part]
    code = {"vcek": "leaf", "ask": "intermediate", "ark": "root"}[part] + "_critical_extension"
    refused(EndorsementMalformed, code, "chain", given=genoa.set_of(**{part: make(more=more)}))
    harmless = [(more[0][0], False)]
    verify(genoa, genoa.report(), genoa.set_of(**{part: make(more=harmless)}))


# 4.3.4: revocation


@pytest.mark.parametrize(("part", "code"), [("vcek", "leaf_revoked"), ("ask", "intermediate_revoked")])
def test_revoked(refused: Refused, genoa: Any, now: datetime, part: str, code: str) -> None:
    serial = Certificate(genoa.standard(part)).serial
    listed = genoa.crl([serial, 12345])
    refused(EndorsementRevoked, code, "revocation", given=genoa.set_of(crl=listed))
    # Revocation is for good: an old or a future list tells it as well, and a clean one beside it heals nothing.
    for days in (-400, 400):
        start = now + timedelta(days=days)
        other = genoa.crl([serial], this_update=start, next_update=start + timedelta(days=30))
        refused(EndorsementRevoked, code, "revocation", given=genoa.set_of(other=other))
    verified = verify(genoa, genoa.report(), genoa.set_of(crl=listed), revocation=Revocation.UNCHECKED_AS_ASKED)
    assert "revocation" in verified.unchecked


def test_others_revoked_serials_do_no_harm(genoa: Any) -> None:
    verify(genoa, genoa.report(), genoa.set_of(crl=genoa.crl([1, 2, 3])))


def test_crl_that_is_not_fresh(refused: Refused, genoa: Any, now: datetime) -> None:
    day = timedelta(days=1)
    stale = genoa.crl(this_update=now - 40 * day, next_update=now - timedelta(seconds=1))
    early = genoa.crl(this_update=now + timedelta(seconds=1), next_update=now + 40 * day)
    refused(EndorsementExpired, "crl_validity", "revocation", given=genoa.set_of(crl=stale))
    refused(EndorsementExpired, "crl_validity", "revocation", given=genoa.set_of(crl=early))
    verify(genoa, genoa.report(), genoa.set_of(crl=stale, fresh=genoa.standard("crl")))


def test_crl_by_another_authority(refused: Refused, genoa: Any, milan: Any) -> None:
    forged = genoa.crl(signer=genoa.keys.other)
    refused(EndorsementUntrusted, "crl_sig", "revocation", given=genoa.set_of(crl=forged))
    by_ask = genoa.crl(signer=genoa.keys.ask, issuer="SEV-Genoa")
    refused(EndorsementMissing, "revocation_unknown", "revocation", given=genoa.set_of(crl=by_ask))
    refused(EndorsementMissing, "revocation_unknown", "revocation", given=genoa.set_of(crl=milan.crl()))
    serial = Certificate(genoa.standard("vcek")).serial
    verify(genoa, genoa.report(), genoa.set_of(forged=genoa.crl([serial], signer=genoa.keys.other)))


def test_partial_crl_is_no_crl(refused: Refused, genoa: Any) -> None:
    delta = genoa.crl(more=[(x509.DeltaCRLIndicator(3), True)])
    refused(EndorsementMalformed, "crl_profile", "revocation", given=genoa.set_of(crl=delta))


def test_root_that_may_not_sign_crls(refused: Refused, genoa: Any) -> None:
    usage = x509.KeyUsage(*([False] * 5 + [True] + [False] * 3))
    refused(EndorsementUntrusted, "crl_sig", "revocation", given=genoa.set_of(ark=genoa.ark(key_usage=usage)))


# 4.3.5 to 4.3.7


@pytest.mark.parametrize("part", ["boot_loader", "tee", "snp", "microcode"])
@pytest.mark.parametrize("step", [1, 0x80])
def test_every_component_of_the_tcb(refused: Refused, genoa: Any, part: str, step: int) -> None:
    tcb = {"boot_loader": 10, "tee": 0, "snp": 23, "microcode": 84}
    tcb[part] ^= step
    refused(BindingMismatch, "tcb_mismatch", "tcb", given=genoa.set_of(vcek=genoa.leaf(tcb=tcb)))


def test_signature_of_another_key(refused: Refused, genoa: Any) -> None:
    report = genoa.report(key=ec.generate_private_key(ec.SECP384R1()))
    refused(SignatureInvalid, "report_sig", "report_sig", report=report)


@pytest.mark.parametrize("number", [0, 1, 2**384 - 1, 2**576 - 1])
@pytest.mark.parametrize("place", [0x2A0, 0x2E8])
def test_numbers_that_are_no_signature(refused: Refused, genoa: Any, number: int, place: int) -> None:
    report = bytearray(genoa.report())
    report[place : place + 72] = number.to_bytes(72, "little")
    refused(SignatureInvalid, "report_sig", "report_sig", report=bytes(report))


@pytest.mark.parametrize("field", ["committed_tcb", "current_tcb", "launch_tcb"])
@pytest.mark.parametrize("part", ["boot_loader", "snp", "microcode"])
def test_order_of_tcbs(refused: Refused, genoa: Any, field: str, part: str) -> None:
    tcb = {"boot_loader": 10, "tee": 0, "snp": 23, "microcode": 84}
    tcb[part] += 1 if field == "launch_tcb" else -1
    refused(EvidenceError, "tcb_order", "tcb_order", report=genoa.report(**{field: Tcb.of(**tcb)}))


def test_one_newer_component_does_not_make_up_for_an_older(refused: Refused, genoa: Any) -> None:
    mixed = Tcb.of(boot_loader=9, tee=0, snp=23, microcode=200)
    refused(EvidenceError, "tcb_order", "tcb_order", report=genoa.report(current_tcb=mixed, committed_tcb=mixed))


def test_order_of_versions(refused: Refused, genoa: Any) -> None:
    refused(EvidenceError, "tcb_order", "tcb_order", report=genoa.report(committed_minor=56))
    refused(EvidenceError, "tcb_order", "tcb_order", report=genoa.report(committed_build=41))
    verify(genoa, genoa.report(committed_minor=54, committed_build=200), genoa.set_of())


# binding


def test_report_data_and_init_data(refused: Refused, genoa: Any) -> None:
    wrong = ReportData(b"\x11" * 63 + b"\x12")
    refused(BindingMismatch, "report_data_mismatch", "report_data", report_data=wrong)
    prefix = ReportData((b"\x11" * 32).ljust(64, b"\0"))
    refused(BindingMismatch, "report_data_mismatch", "report_data", report_data=prefix)
    zero = genoa.report(report_data=bytes(64))
    refused(BindingMismatch, "report_data_mismatch", "report_data", report=zero, report_data=wrong)
    refused(BindingMismatch, "init_data_mismatch", "init_data", init_data=b"\x22" * 31 + b"\0")
    for mistake in ({"report_data": ReportData(bytes(64))}, {"init_data": b"\x22" * 48}, {"init_data": b""}):
        with pytest.raises(ValueError, match=r"."):
            verify(genoa, genoa.report(), genoa.set_of(), **mistake)
    with pytest.raises(ValueError, match="time zone"):
        verify(genoa, genoa.report(), genoa.set_of(), now=datetime(2026, 6, 1))  # noqa: DTZ001


def test_ccf_4299_appraisal_is_given_what_it_must_refuse(genoa: Any) -> None:
    """microsoft/CCF #4299, #5024: policy, VMPL and debug were not looked at. They are claims, and cannot be lost."""
    report = genoa.report(policy=GuestPolicy(0xB0000), vmpl=2)
    verified = verify(genoa, report, genoa.set_of())
    assert verified.claims["vmpl"] == 2
    assert verified.coco_claims["policy_debug_allowed"] is True
    bits = verified.claims["policy_bits"]
    assert isinstance(bits, dict)
    assert bits["debug_allowed"] is True


# choosing among many


def test_the_right_leaf_is_chosen_among_many(genoa: Any, milan: Any, now: datetime) -> None:
    many = {
        "a": genoa.leaf(chip=bytes(64)),
        "b": genoa.leaf(tcb={"boot_loader": 9, "tee": 0, "snp": 23, "microcode": 84}),
        "c": genoa.leaf(not_after=now - timedelta(days=1)),
        "d": genoa.standard("vlek"),
        "e": milan.standard("vcek"),
        "f": genoa.leaf(set_={"3.1": b"\x02\x02\x00\x0a"}),
    }
    given = EndorsementSet.parse(
        [*many.values(), genoa.standard("vcek"), genoa.standard("ask"), genoa.standard("ark"), genoa.standard("crl")]
    )
    assert verify(genoa, genoa.report(), given).expires_first == "CRL"


def test_certificates_in_the_evidence(genoa: Any) -> None:
    from adyton.tee.snp import json_form
    from adyton.tee.snp.abi import SnpReport

    chain = [("VCEK", genoa.standard("vcek")), ("ASK", genoa.standard("ask")), ("ARK", genoa.standard("ark"))]
    evidence = msgspec_json(json_form.to_json(SnpReport.parse(genoa.report()), chain))
    given = EndorsementSet.parse([genoa.standard("crl")])
    verified = verify(genoa, evidence, given)
    assert verified == verify(genoa, genoa.report(), genoa.set_of())
    junk = msgspec_json(json_form.to_json(SnpReport.parse(genoa.report()), [("VCEK", b"\x30\x03\x02\x01\x01")]))
    with pytest.raises(EndorsementError):
        verify(genoa, junk, genoa.set_of())


def msgspec_json(value: object) -> bytes:
    import msgspec

    return msgspec.json.encode(value)


# every bit


def test_every_flipped_byte_of_the_signed_part_is_refused(genoa: Any) -> None:
    report = genoa.report()
    given = genoa.set_of()
    whole = verify(genoa, report, given)
    memory = tee.Remembered()
    for position in range(len(report)):
        flipped = bytearray(report)
        flipped[position] ^= 1 << position % 8
        if position < 0x330:
            with pytest.raises((EvidenceError, EndorsementError)):
                verify(genoa, bytes(flipped), given, remembered=memory)
        else:
            assert verify(genoa, bytes(flipped), given, remembered=memory) == whole


@pytest.mark.slow
def test_every_flipped_bit_of_the_signed_part_is_refused(genoa: Any) -> None:
    report = genoa.report()
    given = genoa.set_of()
    memory = tee.Remembered()
    for bit in range(0x330 * 8):
        flipped = bytearray(report)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((EvidenceError, EndorsementError)):
            verify(genoa, bytes(flipped), given, remembered=memory)


def test_every_prefix_and_anything_longer_is_malformed(genoa: Any) -> None:
    report = genoa.report()
    for length in range(len(report)):
        with pytest.raises(MalformedEvidence):
            verify(genoa, report[:length], EndorsementSet())
    for tail in (b"\0", bytes(1184), bytes(100_000)):
        with pytest.raises(MalformedEvidence):
            verify(genoa, report + tail, EndorsementSet())
