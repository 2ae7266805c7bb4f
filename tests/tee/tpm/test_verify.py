"""TPM evidence through the door: wrong in one place each, then right; CoCo's form and the bundle."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from tests.tee.tpm.building import NONCE, quotes, verify

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.forge import flip
from adyton.devtee.tpm import QuoteFields, SoftTpm, b64, digest
from adyton.errors import (
    AdytonError,
    BindingMismatch,
    EndorsementUntrusted,
    EvidenceError,
    FreshnessFailed,
    MalformedEvidence,
    SignatureInvalid,
    UnsupportedEvidence,
)
from adyton.rats.types import SHARED_CLAIMS, Check, ReportData, RootKind, TrustAnchors
from adyton.tee.remembered import Remembered
from adyton.tee.tpm.abi import Attributes, fingerprint


def refused(code: str, kind: type[AdytonError], evidence: bytes, **changes: Any) -> AdytonError:
    with pytest.raises(kind) as caught:
        verify(evidence, **changes)
    assert caught.value.code == code
    assert type(caught.value) is kind
    return caught.value


def changed(evidence: bytes, change: Any) -> bytes:
    document = json.loads(evidence)
    change(document)
    return json.dumps(document).encode()


# Forms


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("ak_public"),
        lambda d: d.update(extra=1),
        lambda d: d["tpm_quote"].update(extra=1),
        lambda d: d["tpm_quote"].pop("message"),
        lambda d: d["tpm_quote"].update(pcrs=d["tpm_quote"]["pcrs"][:23]),
        lambda d: d["tpm_quote"].update(pcrs=d["tpm_quote"]["pcrs"] + ["00" * 32]),
        lambda d: d["tpm_quote"].update(pcrs=["zz"] * 24),
        lambda d: d["tpm_quote"].update(message="AA=A"),
        lambda d: d.update(ak_public="MA=="),
        lambda d: d.update(ak_public=5),
        lambda d: d.update(tpm_quote=[]),
    ],
)
def test_broken_json_of_coco_is_malformed(tpm: SoftTpm, change: Any) -> None:
    with pytest.raises(MalformedEvidence):
        verify(changed(tpm.coco(NONCE), change))


def test_members_that_come_twice_are_malformed(tpm: SoftTpm) -> None:
    evidence = tpm.coco(NONCE)
    refused("evidence_json", MalformedEvidence, evidence[:-1] + b',"ak_public":"AAAA"}')
    twice = evidence.replace(b'"pcrs"', b'"pcrs": [], "pcrs"')
    refused("evidence_json", MalformedEvidence, twice)
    bundle = tpm.bundle(quotes(tpm))
    refused("evidence_json", MalformedEvidence, bundle.replace(b'"pcrs"', b'"pcrs": {}, "pcrs"'))
    for name, value in (
        (b'"sha256"', b"{}"), (b'"message"', b'""'), (b'"signature"', b'""'), (b'"quotes"', b"[]"), (b'"7"', b'"00"'),
        (b'"ak_public"', b"null"), (b'"ak_public"', b'"\\u0041A=="'), (b'"ak_p\\u0075blic"', b"null"),
    ):  # fmt: skip
        plain = name.replace(b"\\u0075", b"u")
        assert plain in bundle
        for both in (name + b":" + value + b"," + plain, plain + b":" + value + b"," + name):
            refused("evidence_json", MalformedEvidence, bundle.replace(plain, both, 1))
    null = changed(bundle, lambda d: d.update(ima_log=None, event_log=None))
    assert verify(null).claims["pcrs"] == verify(bundle).claims["pcrs"]


def test_large_evidence_that_is_none_is_refused_in_time(tpm: SoftTpm) -> None:
    bundle = tpm.bundle(quotes(tpm))
    for data in (
        changed(bundle, lambda d: d.update(ima_log="[" * 99 + "A" * 30_000_000)),
        b'{"quotes":' + b"[" * 30_000_000,
        b'{"quotes":[],"pcrs":{"sha256":{' + b",".join(b'"%d":"00"' % i for i in range(500_000)) + b"}}}",
    ):
        begin = time.process_time()
        refused("evidence_json", MalformedEvidence, data)
        assert time.process_time() - begin < 10


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("ak_public"),
        lambda d: d.update(quotes=[]),
        lambda d: d.update(quotes=d["quotes"] * 9),
        lambda d: d["pcrs"].update(md5={}),
        lambda d: d["pcrs"]["sha256"].update({"24": "00"}),
        lambda d: d["pcrs"]["sha256"].update({"07": "00" * 32}),
        lambda d: d["pcrs"]["sha256"].update({"-1": "00" * 32}),
        lambda d: d["pcrs"]["sha256"].update({"5": "0"}),
        lambda d: d.update(ak_certificate="AAAA"),
        lambda d: d.update(ak_public=b64(b"\0\1")),
        lambda d: d.update(event_log="AAAA"),
        lambda d: d.update(ima_log=b64(b"10 zz ima-ng x\n")),
    ],
)
def test_broken_bundles_are_malformed(tpm: SoftTpm, change: Any) -> None:
    with pytest.raises(MalformedEvidence):
        verify(changed(tpm.bundle(quotes(tpm)), change))


def test_other_things_are_malformed() -> None:
    for data in (b"", b"{}", b"[]", b"\xff" * 40, b'{"tpm_quote":' * 100, b"[" * 100_000, b'{"quotes":[' * 50_000):
        with pytest.raises(MalformedEvidence):
            verify(data)


def test_evidence_without_end_is_refused(monkeypatch: pytest.MonkeyPatch, tpm: SoftTpm) -> None:
    monkeypatch.setattr("adyton.tee.tpm.forms.MAX_SIZE", 100)
    refused("evidence_too_large", MalformedEvidence, tpm.coco(NONCE))


# Signature, key, PCRs


def test_wrong_evidence_is_refused_by_name(tpm: SoftTpm, made: dict[str, SoftTpm]) -> None:
    other = made["other"]
    refused(
        "quote_sig",
        SignatureInvalid,
        changed(tpm.coco(NONCE), lambda d: d.update(ak_public=b64(other.spki))),
    )
    wrong = changed(tpm.coco(NONCE), lambda d: d["tpm_quote"]["pcrs"].__setitem__(3, "11" * 32))
    assert refused("pcr_digest", EvidenceError, wrong).field == "pcrs"
    refused("nonce_missing", FreshnessFailed, tpm.coco(b""))


def test_pcrs_numbered_by_position_need_the_whole_sha256_bank(tpm: SoftTpm) -> None:
    # Else a quote over fewer registers would move a resettable one into the place of another
    refused("pcr_selection", EvidenceError, tpm.coco(NONCE, selections=(("sha256", range(23)),)))
    refused("pcr_missing", EvidenceError, tpm.coco(NONCE, selections=(("sha384", range(24)),)))


@pytest.mark.parametrize("bit", [1, 4, 5, 16, 18])
def test_a_key_that_is_no_attestation_key_is_refused(tpm: SoftTpm, bit: int) -> None:
    tpm.attributes &= ~(1 << bit)
    refused("ak_attributes", EvidenceError, tpm.bundle(quotes(tpm)))


def test_a_key_that_decrypts_is_refused(tpm: SoftTpm) -> None:
    tpm.attributes |= 1 << 17
    refused("ak_attributes", EvidenceError, tpm.bundle(quotes(tpm)))


def test_keylime_2021_cve_2026_1709_a_key_that_nobody_vouches_for_is_told_as_such(tpm: SoftTpm) -> None:
    # Keylime's registrar took an AK though its link to the EK was broken; CVE-2026-1709 took anybody's
    verified = verify(tpm.coco(NONCE))
    assert verified.claims["ak_trust"] == "self-asserted"
    assert verified.claims["platform_id"] is None
    assert {"ak", "ak_attributes"} <= set(verified.unchecked)
    assert verified.root is RootKind.CUSTOM
    assert "root" not in [check.id for check in verified.checks]


def test_a_key_that_nobody_vouches_for_is_refused_where_keys_or_roots_are_named(
    tpm: SoftTpm, made: dict[str, SoftTpm]
) -> None:
    pins = TrustAnchors(vendor=False, custom=frozenset({fingerprint(made["other"].spki)}))
    error = refused("ak_untrusted", EndorsementUntrusted, tpm.coco(NONCE), anchors=pins)
    assert error.got == fingerprint(tpm.spki)
    for endorsed in ([b"{}", b"\x30\x00", b"ocsp"], [made["other"].spki], [tpm.spki]):  # none of them is trust
        verified = verify(tpm.coco(NONCE), endorsements=EndorsementSet(documents=endorsed))
        assert "ak" in verified.unchecked
        assert verified.claims["ak_trust"] == "self-asserted"
        refused(
            "ak_untrusted",
            EndorsementUntrusted,
            tpm.coco(NONCE),
            anchors=pins,
            endorsements=EndorsementSet(documents=endorsed),
        )


def test_a_pinned_key_passes(tpm: SoftTpm) -> None:
    pin = frozenset({fingerprint(tpm.spki)})
    beside_vendors = verify(tpm.coco(NONCE), anchors=TrustAnchors(custom=pin))
    alone = verify(tpm.bundle(quotes(tpm)), anchors=TrustAnchors(vendor=False, custom=pin))
    for verified in (beside_vendors, alone):
        assert verified.claims["ak_trust"] == "pinned"
        assert verified.claims["platform_id"] == fingerprint(tpm.spki).hex() == verified.root_fingerprint
        assert "ak" not in verified.unchecked
        assert verified.root is RootKind.CUSTOM
        assert "ak_attributes" in verified.unchecked


def test_a_public_area_proves_nothing_of_its_key(tpm: SoftTpm) -> None:
    """A pin is of the key alone: what the evidence says of an unrestricted one may be made up."""
    honest = tpm.attributes
    tpm.attributes = honest & ~Attributes.RESTRICTED
    pin = {"anchors": TrustAnchors(vendor=False, custom=frozenset({fingerprint(tpm.spki)}))}
    refused("ak_attributes", EvidenceError, tpm.bundle(quotes(tpm)), **pin)
    tpm.attributes = honest  # in the evidence; the key is what it is
    assert "ak_attributes" in verify(tpm.bundle(quotes(tpm)), **pin).unchecked


# Several quotes


def test_quotes_over_several_banks_are_one_evidence(tpm: SoftTpm) -> None:
    listed = quotes(tpm, "sha1") + quotes(tpm, "sha256", clock=2_000) + quotes(tpm, "sha384", clock=1_500)
    verified = verify(tpm.bundle(listed))
    pcrs: Any = verified.claims["pcrs"]
    assert {bank: len(values) for bank, values in pcrs.items()} == {"sha1": 24, "sha256": 24, "sha384": 24}
    assert verified.claims["clock"] == verified.tcb["clock"] == 2_000
    listed_claims: Any = verified.claims["quotes"]
    assert [item["clock"] for item in listed_claims] == [1_000, 2_000, 1_500]


def test_two_quotes_over_parts_of_one_bank_are_put_together(tpm: SoftTpm) -> None:
    parts = [tpm.quote(QuoteFields(extra_data=NONCE, selections=(("sha256", part),))) for part in ((0, 7), (4, 8))]
    pcrs: Any = verify(tpm.bundle(parts)).claims["pcrs"]
    assert list(pcrs["sha256"]) == ["00", "07", "04", "08"]


@pytest.mark.parametrize(
    "changes",
    [{"reset_count": 2}, {"restart_count": 1}, {"nonce": b"another"}, {"firmware": 1}, {"qualified_signer": b"\0"}],
)
def test_quotes_of_several_boots_are_no_evidence(tpm: SoftTpm, changes: dict[str, Any]) -> None:
    listed = quotes(tpm, "sha256") + quotes(tpm, "sha384", **changes)
    refused("quotes_differ", EvidenceError, tpm.bundle(listed))


def test_every_quote_must_verify(tpm: SoftTpm, made: dict[str, SoftTpm]) -> None:
    first, (message, _) = quotes(tpm, "sha256", "sha384")
    stranger = made["other"].sign(message)
    refused("quote_sig", SignatureInvalid, tpm.bundle([first, (message, stranger)]))


# Binding


def test_the_whole_nonce_is_compared(tpm: SoftTpm) -> None:
    evidence = tpm.coco(NONCE)
    for wrong in (NONCE[:-1], NONCE[:32], NONCE + b"\0", flip(NONCE, 511), b"\1"):
        refused("report_data_mismatch", BindingMismatch, evidence, report_data=ReportData(wrong))
    verified = verify(evidence, report_data=ReportData(NONCE))
    assert verified.report_data == ReportData(NONCE)
    assert "report_data" not in verified.unchecked


def test_init_data_is_pcr_8_whole(tpm: SoftTpm) -> None:
    document = digest("sha256", b"init data")
    expected = digest("sha256", bytes(32) + document)
    refused("init_data_mismatch", BindingMismatch, tpm.coco(NONCE), init_data=expected)
    tpm.extend(8, {bank: document.ljust(len(value[0]), b"\0")[: len(value[0])] for bank, value in tpm.pcrs.items()})
    verified = verify(tpm.coco(NONCE), init_data=expected)
    assert verified.init_data == expected == tpm.pcrs["sha256"][8]
    assert verified.claims["init_data"] == expected.hex()
    refused("init_data_mismatch", BindingMismatch, tpm.coco(NONCE), init_data=document)  # the digest is not the PCR
    refused("init_data_mismatch", BindingMismatch, tpm.coco(NONCE), init_data=flip(expected, 255))
    tpm.extend(8, b"more")
    refused("init_data_mismatch", BindingMismatch, tpm.coco(NONCE), init_data=expected)
    unquoted = tpm.bundle([tpm.quote(QuoteFields(extra_data=NONCE, selections=(("sha256", (0,)),)))])
    refused("init_data_mismatch", BindingMismatch, unquoted, init_data=expected)
    assert verify(unquoted).init_data == b""
    with pytest.raises(ValueError, match="32 bytes"):
        verify(tpm.coco(NONCE), init_data=b"short")


# Logs


def test_a_log_must_lead_to_the_quoted_registers(tpm: SoftTpm) -> None:
    log = tpm.log()
    tpm.extend(4, b"one more, not in the log")
    error = refused("event_log_mismatch", EvidenceError, tpm.bundle(quotes(tpm), event_log=log))
    assert error.field == "pcr04"
    refused("event_log_mismatch", EvidenceError, tpm.bundle(quotes(tpm, "sha384"), event_log=log))


def test_a_firmware_register_without_events_must_be_untouched(tpm: SoftTpm) -> None:
    tpm.events = [event for event in tpm.events if event[0] != 3]
    error = refused("event_log_mismatch", EvidenceError, tpm.bundle(quotes(tpm), event_log=tpm.log()))
    assert error.field == "pcr03"


def test_registers_of_the_operating_system_may_have_other_logs(tpm: SoftTpm) -> None:
    log = tpm.log()
    tpm.extend(10, b"IMA")
    verify(tpm.bundle(quotes(tpm), event_log=log))


def test_rewritten_event_data_is_refused(tpm: SoftTpm) -> None:
    tpm.events = [
        (pcr, kind, digests, data[:-1] + b"\0" if data[-1:] == b"\1" else data)
        for pcr, kind, digests, data in tpm.events
    ]
    error = refused("event_data_digest_mismatch", EvidenceError, tpm.bundle(quotes(tpm), event_log=tpm.log()))
    assert "register 7" in str(error.field)


def test_a_log_of_other_banks_cannot_be_replayed(tpm: SoftTpm) -> None:
    log = tpm.log(banks=["sha1"])
    refused("event_log_bank", UnsupportedEvidence, tpm.bundle(quotes(tpm, "sha256"), event_log=log))


def test_claims_of_a_log_that_replays(tpm: SoftTpm) -> None:
    verified = verify(tpm.bundle(quotes(tpm, "sha256", "sha384"), event_log=tpm.log()))
    assert verified.claims["secure_boot"] is True
    assert verified.claims["separators"] == [*range(8)]
    assert verified.claims["event_log_banks"] == ["sha256", "sha384"]
    assert verified.claims["event_log_events"] == len(tpm.events)
    assert {"event_log", "event_data"} <= {check.id for check in verified.checks}


def test_claims_come_only_from_registers_that_are_quoted(tpm: SoftTpm) -> None:
    # GHSA-99cg-575x-774p once more: a log whose PCR 7 nobody signed says nothing about Secure Boot
    some = tpm.quote(QuoteFields(extra_data=NONCE, selections=(("sha256", (0, 1, 2, 3, 4, 5, 6)),)))
    verified = verify(tpm.bundle([some], event_log=tpm.log()))
    assert verified.claims["secure_boot"] is None
    assert verified.claims["separators"] == [*range(7)]
    pcrs: Any = verified.claims["pcrs"]
    assert "07" not in pcrs["sha256"]


def test_what_a_log_does_not_show_soundly_is_unchecked(tpm: SoftTpm) -> None:
    tpm.reset(("sha256",))
    tpm.measure(7, 0x80000001, b"no variable")
    tpm.measure(7, 4, bytes(4))
    verified = verify(tpm.bundle(quotes(tpm), event_log=tpm.log()))
    assert verified.claims["secure_boot"] is None
    assert any(item.startswith("event_log pcr07") for item in verified.unchecked)


def ima_line(path: str, *, pcr: int = 10) -> tuple[str, bytes]:
    data = b"\x1a\0\0\0sha1:\0" + bytes(20) + (len(path) + 1).to_bytes(4, "little") + path.encode() + b"\0"
    return f"{pcr} {digest('sha1', data).hex()} ima-ng sha1:{'00' * 20} {path}\n", data


def test_ima_lists_lead_to_pcr_10(tpm: SoftTpm) -> None:
    text = ""
    for path in ("boot_aggregate", "/init", "/bin/with space"):
        line, data = ima_line(path)
        text += line
        tpm.extend(10, data)
    listed = quotes(tpm, "sha1", "sha256")
    verified = verify(tpm.bundle(listed, ima_log=text.encode()))
    assert verified.claims["ima_entries"] == 3
    assert verified.claims["ima_banks"] == ["sha1", "sha256"]
    later = verify(tpm.bundle(listed, ima_log=(text + ima_line("/later")[0]).encode()))
    assert later.claims["ima_entries"] == 3
    cut = text.splitlines(keepends=True)
    refused("ima_mismatch", EvidenceError, tpm.bundle(listed, ima_log="".join(cut[:2]).encode()))
    other = text.replace("/init", "/inix")
    refused("event_data_digest_mismatch", EvidenceError, tpm.bundle(listed, ima_log=other.encode()))
    without = [tpm.quote(QuoteFields(extra_data=NONCE, selections=(("sha256", (0,)),)))]
    refused("ima_not_quoted", UnsupportedEvidence, tpm.bundle(without, ima_log=text.encode()))


# What comes out


def test_claims_trail_and_coco_claims(tpm: SoftTpm) -> None:
    trail: list[Check] = []
    verified = verify(tpm.coco(NONCE), report_data=ReportData(NONCE), trail=trail)
    assert set(SHARED_CLAIMS) <= set(verified.claims)
    assert verified.claims["safe"] is True
    assert verified.claims["hash_alg"] == "0xb"
    assert [check.id for check in trail] == [check.id for check in verified.checks]
    assert all(check.ok and check.group for check in trail)
    coco: Any = verified.coco_claims
    assert coco["report_data"] == NONCE.hex()
    assert coco["tpm"]["pcr07"] == tpm.pcrs["sha256"][7].hex()
    assert len(coco["tpm"]) == 24
    assert coco["ak_public"] == b64(tpm.spki)
    assert coco["init_data"] == tpm.pcrs["sha256"][8].hex()


def test_the_trail_ends_with_what_failed(tpm: SoftTpm) -> None:
    trail: list[Check] = []
    with pytest.raises(EvidenceError):
        verify(changed(tpm.coco(NONCE), lambda d: d["tpm_quote"]["pcrs"].__setitem__(3, "11" * 32)), trail=trail)
    assert (trail[-1].id, trail[-1].ok) == ("pcrs", False)


def test_the_trail_tells_of_logs(tpm: SoftTpm) -> None:
    trail: list[Check] = []
    verify(
        tpm.bundle(quotes(tpm), event_log=tpm.log()),
        anchors=TrustAnchors(custom=frozenset({fingerprint(tpm.spki)})),
        trail=trail,
    )
    told = {check.id: check.got for check in trail}
    assert told["event_log"] == ["sha256"]
    assert str(told["ak"]).startswith("pinned")
    assert told["root"] == fingerprint(tpm.spki).hex()


def test_show_parses_and_believes_nothing(tpm: SoftTpm) -> None:
    shown = tee.show("tpm", tpm.coco(NONCE))
    assert shown["nonce"] == NONCE.hex()
    assert "quotes" in tee.show("tpm", tpm.bundle(quotes(tpm, "sha256", "sha384")))
    with pytest.raises(MalformedEvidence):
        tee.show("tpm", b"{}")


def test_remembered_keys_give_the_same_verdict(tpm: SoftTpm, made: dict[str, SoftTpm]) -> None:
    memory = Remembered()
    first = verify(tpm.coco(NONCE), remembered=memory)
    assert len(memory) == 1
    second = verify(tpm.coco(NONCE), remembered=memory)
    assert dict(first.claims) == dict(second.claims)
    assert first.checks == second.checks
    pinned = verify(tpm.coco(NONCE), remembered=memory, anchors=TrustAnchors(custom=frozenset({fingerprint(tpm.spki)})))
    assert pinned.claims["ak_trust"] == "pinned"
    assert len(memory) == 2
    with pytest.raises(SignatureInvalid):
        verify(changed(tpm.coco(NONCE), lambda d: d.update(ak_public=b64(made["other"].spki))), remembered=memory)
