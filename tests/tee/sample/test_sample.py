from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton import tee
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.sample import evidence
from adyton.errors import BindingMismatch, EndorsementUntrusted, MalformedEvidence
from adyton.rats.types import SHARED_CLAIMS, Check, ReportData, Revocation, RootKind, TrustAnchors, VerifiedEvidence
from adyton.tee.sample import abi, anybody

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DIGEST = hashlib.sha384(b"runtime data").digest()
BELIEVER = TrustAnchors(vendor=False, custom=frozenset({anybody.ANYBODY}))
BOTH = ("sample", "sampledevice")


def verify(name: str, data: bytes, **changes: Any) -> VerifiedEvidence:
    call: dict[str, Any] = {"endorsements": EndorsementSet(), "now": NOW, "anchors": BELIEVER} | changes
    return tee.verify(name, data, **call)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    "anchors", [TrustAnchors(), TrustAnchors(custom=frozenset({bytes(32), hashlib.sha256(b"sample").digest()}))]
)
@pytest.mark.parametrize("revocation", list(Revocation))
def test_never_believed(name: str, anchors: TrustAnchors, revocation: Revocation) -> None:
    trail: list[Check] = []
    with pytest.raises(EndorsementUntrusted) as caught:
        verify(
            name, evidence(DIGEST), anchors=anchors, revocation=revocation, report_data=ReportData(DIGEST), trail=trail
        )
    assert (caught.value.code, caught.value.tee) == ("sample_untrusted", name)
    assert [(check.id, check.ok) for check in trail] == [("format", True), ("root", False)]


def test_the_confession_says_what_it_means() -> None:
    assert hashlib.sha256(anybody.CONFESSION).digest() == anybody.ANYBODY
    assert b"proves nothing" in anybody.CONFESSION


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"1", b"null", b"{}", b"\xff", b'{"svn": 1}', b'{"svn": ""}', b'{"svn": null}', b'{"report_data": ""}',
        b'{"svn": "1", "svn": "1"}', evidence(b"", svn="1" * 65), evidence(b"", report_data=None), evidence(b"", report_data=[1]),
        evidence(b"", report_data="AQI"), evidence(b"", report_data="AQ-_"), evidence(b"", report_data=" AQID"),
        evidence(bytes(1025)), evidence(b"", more="x" * 70_000), b"[" * 100_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", BOTH)
def test_malformed(name: str, data: bytes) -> None:
    for call in (verify, tee.show):
        with pytest.raises(MalformedEvidence):
            call(name, data)


def test_report_data_is_compared_without_padding() -> None:
    verify("sample", evidence(DIGEST), report_data=ReportData(DIGEST))
    for held, wanted in (
        (DIGEST, DIGEST.ljust(64, b"\0")),
        (DIGEST.ljust(64, b"\0"), DIGEST),
        (DIGEST[:47], DIGEST),
        (b"", DIGEST),
        (DIGEST, DIGEST[:1]),
    ):
        with pytest.raises(BindingMismatch):
            verify("sample", evidence(held), report_data=ReportData(wanted))
    with pytest.raises(ValueError, match="empty"):
        verify("sample", evidence(b""), report_data=ReportData(b"\0"))


@pytest.mark.parametrize(("name", "tee_class", "svn"), [("sample", "cpu", "1"), ("sampledevice", "gpu", "2")])
def test_what_a_believer_gets(name: str, tee_class: str, svn: str) -> None:
    trail: list[Check] = []
    verified = verify(name, evidence(DIGEST, svn=svn, cc_eventlog=None), init_data=b"\1\2", trail=trail)
    assert (verified.tee, verified.tee_class, verified.root) == (name, tee_class, RootKind.CUSTOM)
    assert verified.root_fingerprint == anybody.ANYBODY.hex()
    assert verified.unchecked == ("signature", "report_data", "init_data")
    assert tuple(trail) == verified.checks
    assert set(SHARED_CLAIMS) <= verified.claims.keys()
    assert verified.claims == tee.show(name, evidence(DIGEST, svn=svn))
    assert verified.claims["report_data"] == DIGEST.hex()
    expected: dict[str, Any] = {"svn": svn, "report_data": base64.b64encode(DIGEST).decode()}
    if name == "sample":
        made_up = {"launch_digest": "abcde", "platform_version": {"major": 1, "minor": 4}, "debug": False}
        expected |= made_up | {"init_data": "0102"}
    assert verified.coco_claims == expected
    assert verified.report_data.value == DIGEST
    bound = verify(name, evidence(DIGEST), report_data=ReportData(DIGEST), revocation=Revocation.UNCHECKED_AS_ASKED)
    assert bound.unchecked == ("signature", "revocation", "init_data")
    assert [check.id for check in bound.checks] == ["format", "root", "report_data"]
    assert "init_data" not in bound.coco_claims
    assert verify(name, b'{"svn": "1"}').claims["report_data"] is None


@given(st.text(min_size=1, max_size=8).filter(str.isascii), st.binary(max_size=64))
def test_written_is_read(svn: str, report_data: bytes) -> None:
    parsed = abi.parse("sample", evidence(report_data, svn=svn))
    assert parsed == (svn, report_data)
    assert abi.parse("sample", parsed.encode()) == parsed


@given(
    st.binary(max_size=100)
    | st.dictionaries(st.sampled_from(["svn", "report_data", "x"]), st.text() | st.none()).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_bytes(data: bytes) -> None:
    with suppress(MalformedEvidence, EndorsementUntrusted):
        verify("sample", data, anchors=TrustAnchors())
        pytest.fail("believed")
