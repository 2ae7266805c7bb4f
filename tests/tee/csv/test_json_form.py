from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton import tee
from adyton.errors import MalformedEvidence
from adyton.tee.csv import json_form
from adyton.tee.csv.abi import CsvReport


def test_members_come_back(chip: Any) -> None:
    for report in (chip.report(), chip.report(version=2)):
        for hsk_cek in (True, False):
            for log in (None, b"", b"log"):
                parsed = json_form.parse(chip.json(report, hsk_cek=hsk_cek, log=log))
                raw = CsvReport.parse(report)
                assert raw.signer is not None
                assert parsed.report.info == raw.info
                assert parsed.pek == chip.pek
                assert parsed.hsk_cek == (chip.hsk_cek if hsk_cek else b"")
                assert parsed.event_log == log
                assert parsed.serial == raw.signer.serial


def test_white_space_and_order_do_not_matter(chip: Any) -> None:
    value = json.loads(chip.json())
    text = json.dumps(dict(reversed(value.items())), indent=1).encode()
    assert json_form.parse(text).pek == chip.pek
    assert (
        json_form.parse(json.dumps(value | {"cert_chain": value["cert_chain"] | {"hsk_cek": None}}).encode()).hsk_cek
        == b""
    )
    del value["cc_eventlog"]
    assert json_form.parse(json.dumps(value).encode()).event_log is None
    assert json_form.parse(b" " + json.dumps(value).encode()).event_log is None


def test_padded_certificates_are_not_kept(chip: Any) -> None:
    """A cache that outlives the call held half a gigabyte of white space for whoever sent it."""
    text = chip.json()
    at = text.index(b"{", text.index(b'"cert_chain"')) + 1
    before = json_form._certificates.cache_info().currsize
    for more in range(3):
        assert json_form.parse(text[:at] + b" " * (100_000 + more) + text[at:]).pek == chip.pek
    assert json_form._certificates.cache_info().currsize == before


def changed(chip: Any, path: list[str | int], new: object) -> bytes:
    value = json.loads(chip.json())
    inner = value
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = new
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("path", "new"),
    [
        (["attestation_report", "data"], [0] * 4095),
        (["attestation_report", "data"], [0] * 4097),
        (["attestation_report", "data", 5], 256),
        (["attestation_report", "data", 5], -1),
        (["attestation_report", "data", 5], 2**70),
        (["attestation_report", "data", 5], "1"),
        (["attestation_report", "data", 5], 1.5),
        (["attestation_report", "magic"], [0] * 15),
        (["attestation_report", "flags"], 7),
        (["attestation_report", "more"], 1),
        (["cert_chain", "pek", "sigs"], []),
        (["cert_chain", "pek", "body", "ver"], 2**32),
        (["cert_chain", "pek", "body", "ver"], -1),
        (["cert_chain", "pek", "body", "data", "uid_size"], 65536),
        (["cert_chain", "pek", "body", "data", "pubkey", "key", "x"], [0] * 71),
        (["cert_chain", "hsk_cek", "hsk", "body", "reserved"], [0] * 107),
        (["cert_chain", "hsk_cek", "hsk", "extra"], 1),
        (["cert_chain", "hsk_cek"], 5),
        (["serial_number"], [0] * 63),
        (["serial_number"], "TEST"),
        (["cc_eventlog"], "AAA"),
        (["cc_eventlog"], 'A"A='),
        (["cc_eventlog"], 4),
        (["other"], None),
    ],
)
def test_members_out_of_bounds(chip: Any, path: list[str | int], new: object) -> None:
    with pytest.raises(MalformedEvidence):
        json_form.parse(changed(chip, path, new))


def test_missing_members(chip: Any) -> None:
    for name in ("attestation_report", "cert_chain", "serial_number"):
        value = json.loads(chip.json())
        del value[name]
        with pytest.raises(MalformedEvidence):
            json_form.parse(json.dumps(value).encode())


def test_a_member_twice(chip: Any) -> None:
    text = chip.json()
    for name, value in (
        (b'"serial_number":', text.split(b'"serial_number":')[1].split(b"]")[0] + b"]"),
        (b'"cc_eventlog":', b"null"),
        (b'"flags":', b"0"),
        (b'"uid_size":', b"10"),
        (b'"kid":', text.split(b'"kid":')[1].split(b"]")[0] + b"]"),
    ):
        twice = text.replace(name, name + value + b"," + name, 1)
        json.loads(twice)
        with pytest.raises(MalformedEvidence, match="same name"):
            json_form.parse(twice)


def test_too_large() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        json_form.parse(b"{" + b" " * json_form.MAX_SIZE)
    assert caught.value.code == "evidence_too_large"


@given(
    st.binary(max_size=200).map(lambda data: b"{" + data) | st.text(max_size=100).map(lambda text: b"{" + text.encode())
)
def test_any_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        tee.show("csv", data)


def test_nesting_without_end() -> None:
    with pytest.raises(MalformedEvidence):
        json_form.parse(b'{"cert_chain":' + b"[" * 100_000)


@given(st.integers(0, 20_000))
def test_every_prefix_is_malformed(chip: Any, cut: int) -> None:
    text = chip.json(hsk_cek=False)
    if cut < len(text):
        with pytest.raises(MalformedEvidence):
            tee.show("csv", text[:cut])
