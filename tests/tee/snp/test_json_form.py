from __future__ import annotations

import json
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import MalformedEvidence
from adyton.tee.snp import json_form
from adyton.tee.snp.abi import SnpReport, Tcb

CHAIN = [("VCEK", b"\x30\x01"), ("ASK", b"\x30\x02"), ("ARK", b"\x30\x03")]


def body(version: int = 3, **fields: Any) -> dict[str, Any]:
    """A document as CoCo sends it."""
    cpuid = {"cpuid_family": 0x19, "cpuid_model": 0x11} if version > 2 else {}
    report = SnpReport(version=version, **(cpuid | fields))
    document = json_form.to_json(report, CHAIN)
    assert isinstance(document, dict)
    return document


def compact_body(version: int) -> bytes:
    """The same without white space, as CoCo's guest writes it."""
    return json.dumps(body(version), separators=(",", ":")).encode()


def malformed(data: bytes, code: str = "json_malformed") -> MalformedEvidence:
    with pytest.raises(MalformedEvidence) as caught:
        json_form.parse_json(data)
    assert caught.value.code == code
    return caught.value


@pytest.mark.vectors
def test_real_reports_come_back_to_the_byte(vectors: Path) -> None:
    for file in (vectors / "snp" / "reports").iterdir():
        report = SnpReport.parse(file.read_bytes())
        parsed, chain = json_form.parse_json(json.dumps(json_form.to_json(report, CHAIN)).encode())
        assert parsed.encode() == file.read_bytes()
        assert chain == CHAIN


@given(
    st.sampled_from([2, 3, 4, 5]),
    st.binary(min_size=64, max_size=64),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=8, max_size=8),
)
def test_reports_come_back_to_the_byte(version: int, data: bytes, number: int, tcb: bytes) -> None:
    parts = {"boot_loader": tcb[0], "tee": tcb[1], "snp": tcb[6], "microcode": tcb[7]}
    family: dict[str, Any] = {} if version == 2 else {"cpuid_family": 0x1A, "cpuid_model": 2, "cpuid_stepping": 1}
    others: dict[str, Any] = {
        name: Tcb.of(**parts, fmc=None if version == 2 else 0)
        for name in ("current_tcb", "committed_tcb", "launch_tcb")
    }
    report = SnpReport(
        version=version,
        report_data=data,
        chip_id=data,
        guest_svn=number % 2**32,
        launch_mit_vector=number if version > 3 else 0,
        current_mit_vector=number if version > 3 else 0,
        reported_tcb=Tcb.of(**parts, fmc=None if version == 2 else tcb[2]),
        **others,
        **family,
        r=data + bytes(8),
    )
    encoded = report.encode()
    parsed, _ = json_form.parse_json(msgspec.json.encode(json_form.to_json(report, [])))
    assert parsed.encode() == encoded
    assert parsed == SnpReport.parse(encoded)


def test_reserved_bytes_cannot_be_carried() -> None:
    for wrong in (
        SnpReport(reserved_208=b"\1" + bytes(151)),
        SnpReport(reserved_4c=1),
        SnpReport(current_tcb=Tcb(b"\0\0\1" + bytes(5))),
    ):
        with pytest.raises(ValueError, match="reserved"):
            json_form.to_json(wrong, [])
    with pytest.raises(ValueError, match="type of certificate"):
        json_form.to_json(SnpReport(), [("CRL", b"")])


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("absent", [True, False])
def test_mitigation_vectors_are_needed(version: int, absent: bool) -> None:
    document = body(version)
    for name in ("launch_mit_vector", "current_mit_vector"):
        broken = deepcopy(document)
        if absent:
            del broken["attestation_report"][name]
        else:
            broken["attestation_report"][name] = None
        error = malformed(json.dumps(broken).encode(), "mitigation_vectors_missing")
        assert error.hint is not None
        assert "raw report" in error.hint


def test_optional_members_may_be_absent_or_null() -> None:
    document = body(2)
    for name in ("cpuid_fam_id", "cpuid_mod_id", "cpuid_step"):
        assert document["attestation_report"].pop(name) is None
    document["attestation_report"] |= {"launch_mit_vector": None, "current_mit_vector": None}
    for tcb in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
        del document["attestation_report"][tcb]["fmc"]
    del document["cert_chain"]
    report, chain = json_form.parse_json(json.dumps(document, indent=1).encode())
    assert (report.version, chain) == (2, [])
    document["cert_chain"] = None
    assert json_form.parse_json(json.dumps(document).encode())[1] == []


@pytest.mark.parametrize("name", sorted(body()["attestation_report"]))
def test_every_member_of_a_wrong_type(name: str) -> None:
    values: list[Any] = ["1", 1.0, 1e3, True, -1, 2**64, 10**400, [256], [-1], [1.5], ["a"], {}, [[]], [1] * 10_000]
    for wrong in values:
        document = body()
        if document["attestation_report"][name] == wrong:
            continue
        document["attestation_report"][name] = wrong
        malformed(json.dumps(document).encode(), "json_malformed")
    document = body()
    del document["attestation_report"][name]
    malformed(json.dumps(document).encode())


@pytest.mark.parametrize("wrong", [None, 5, "x", [], {"cert_type": "VCEK"}, [{"cert_type": "CRL", "data": []}], [{"cert_type": 1, "data": []}],
                                   [{"cert_type": "ASK", "data": "MAA="}], [{"cert_type": "ASK", "data": [], "x": 1}], [{"cert_type": "ASK", "data": [256]}],
                                   [{"cert_type": "ASK", "data": []}] * 9, [[]]])  # fmt: skip
def test_certificates_of_a_wrong_type(wrong: object) -> None:
    document = body() | {"cert_chain": wrong}
    if wrong in (None, []):
        assert json_form.parse_json(json.dumps(document).encode())[1] == []
    else:
        malformed(json.dumps(document).encode())


def test_duplicate_members_anywhere() -> None:
    text = json.dumps(body(5)).encode()
    json_form.parse_json(text)
    for once, twice in (
        (b'"vmpl": 0', b'"vmpl": 0, "vmpl": 0'),
        (b'"vmpl": 0', b'"vmpl": 3, "vmp\\u006c": 0'),
        (b'"launch_mit_vector": 0', b'"launch_mit_vector": 0, "launch_mit_vector": 0'),
        (b'"snp": 0', b'"snp": 1, "snp": 0'),
        (b'"fmc": null', b'"fmc": null, "fmc": null'),
        (b'"major": 0', b'"major": 0, "major": 0'),
        (b'"cert_type": "ASK"', b'"cert_type": "ASK", "cert_type": "ASK"'),
        (b'"data": [48, 1]', b'"data": [48, 1], "data": [48, 1]'),
        (b'"cert_chain": [', b'"cert_chain": [], "cert_chain": ['),
        (b'{"attestation_report": ', b'{"attestation_report": {}, "attestation_report": '),
    ):
        assert once in text
        malformed(text.replace(once, twice, 1))
        narrow = [part.replace(b'": ', b'":').replace(b", ", b",") for part in (once, twice)]
        compact = compact_body(5)
        assert narrow[0] in compact
        malformed(compact.replace(narrow[0], narrow[1], 1))


def test_unknown_members() -> None:
    for place in ((), ("attestation_report",), ("attestation_report", "signature")):
        document = inner = body()
        for step in place:
            inner = inner[step]
        inner["comment"] = 1
        malformed(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"null",
        b'{"attestation_report": null}',
        b'{"attestation_report": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"attestation_report": ' + b'{"a":' * 40_000 + b"1" + b"}" * 40_000 + b"}",
        b'{"attestation_report": {"version": ' + b"9" * 200_000 + b"}}",
        b'{"attestation_report": {"version": NaN}}',
        b'{"attestation_report": "\xff"}',
        b"\xef\xbb\xbf{}",
    ],
    ids=range(10),
)
def test_hostile_documents_are_refused_at_once(data: bytes) -> None:
    start = time.thread_time()
    malformed(data)
    assert time.thread_time() - start < 2


def test_size_is_limited() -> None:
    malformed(b" " * (json_form.MAX_SIZE + 1), "evidence_too_large")


def test_fmc_belongs_to_turin_alone() -> None:
    document = body(3)
    document["attestation_report"]["current_tcb"]["fmc"] = 0
    malformed(json.dumps(document).encode())
    document = body(
        3,
        cpuid_family=0x1A,
        **dict.fromkeys(
            ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"),
            Tcb.of(boot_loader=1, tee=1, snp=1, microcode=1, fmc=1),
        ),
    )
    json_form.parse_json(json.dumps(document).encode())
    document["attestation_report"]["current_tcb"]["fmc"] = None
    malformed(json.dumps(document).encode())


def test_every_prefix_is_malformed_and_fast() -> None:
    text = json.dumps(body(5)).encode()
    slowest = 0.0
    for length in range(0, len(text), 7):
        start = time.thread_time()
        malformed(text[:length])
        slowest = max(slowest, time.thread_time() - start)
    assert slowest < 2  # 10 ms on a quiet machine, and now and then a collection of garbage


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_other_json_is_malformed(value: object) -> None:
    try:
        data = json.dumps(value).encode()
    except ValueError:
        return
    malformed(data)


@pytest.mark.parametrize(
    "chain", [b"", b"[", b"[]]", b"[],", b'[],"x":1', b'null,"cert_chain":null', b"[],[]", b" ", b"nul"]
)
def test_a_compact_document_is_read_whole(chain: bytes) -> None:
    text = compact_body(5)
    start = text.index(b',"cert_chain":') + len(b',"cert_chain":')
    assert json_form.parse_json(text[:start] + b" [] }")[1] == []
    malformed(text[:start] + chain + b"}")
