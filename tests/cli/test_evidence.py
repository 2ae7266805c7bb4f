from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from adyton.cli import adyton, verdict_page
from adyton.cli.output import run
from adyton.cli.verdict import Verdict
from adyton.errors import EvidenceError
from adyton.rats.types import Check

Cli = Callable[..., tuple[int, str, str]]
GENOA = "snp/reports/genoa-v3-azure.bin"
GENOA_AT = "2025-02-23T02:21:48Z"


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run the real command line in this process: (status, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = run(adyton, [str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def genoa(vectors: Path) -> tuple[object, ...]:
    """Arguments that verify a real Genoa report as of its own time, without a CRL."""
    return (
        "evidence", "verify", vectors / GENOA, "--tee", "snp", "--at", GENOA_AT, "--no-revocation",
        "--endorsements", vectors / "snp/certs/genoa-v3-azure-vcek.der",
        "--endorsements", vectors / "roots/amd-genoa-ask-ark-asvk.pem",
    )  # fmt: skip


def one(output: str) -> dict[str, Any]:
    """The only object on standard output."""
    assert output.endswith("\n")
    assert output.count("\n") == 1
    loaded = json.loads(output)
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.vectors
def test_verified_is_zero_and_says_what_it_did(cli: Cli, genoa: tuple[object, ...]) -> None:
    status, out, err = cli(*genoa, "--json")
    assert (status, err) == (0, "")
    result = one(out)
    assert set(result) == {"tee", "verified", "claims", "tcb", "root", "checks", "unchecked"}
    assert (result["tee"], result["verified"], result["root"]) == ("snp", True, "vendor")
    assert result["claims"]["measurement"].startswith("f57dc09a507c6ecd")
    assert result["tcb"]["reported"] == {"boot_loader": 10, "tee": 0, "snp": 23, "microcode": 84}
    assert all(check["ok"] and check["id"] and check["spec"] for check in result["checks"])
    assert result["unchecked"] == ["revocation", "report_data", "init_data"]
    assert "revocation" not in [check["id"] for check in result["checks"]]


@pytest.mark.vectors
def test_a_person_can_read_the_verdict(cli: Cli, genoa: tuple[object, ...]) -> None:
    status, out, _ = cli(*genoa)
    assert status == 0
    assert "VERIFIED" in out
    assert "not checked: revocation, report_data, init_data" in out
    assert "Authentic is not acceptable" in out
    assert "├─ ✓ report_sig" in out
    assert "when VCEK expires first" in out


@pytest.mark.vectors
def test_a_failed_check_stands_in_the_tree_with_what_was_expected(cli: Cli, genoa: tuple[object, ...]) -> None:
    expected = "00" * 63 + "01"
    status, out, err = cli(*genoa, "--report-data", expected)
    assert status == 1
    tree = out.splitlines()
    failed = next(number for number, line in enumerate(tree) if "✗ report_data" in line)
    assert expected in tree[failed + 1]
    assert "b581f12e29a2d7d64e5e0b738d563879a78b51c644d0fa0cce02b48699f6bf5f" in tree[failed + 2]
    assert "NOT VERIFIED" in out
    assert "report_data_mismatch" in err


@pytest.mark.vectors
def test_the_page_says_the_same_and_loads_nothing(cli: Cli, genoa: tuple[object, ...], tmp_path: Path) -> None:
    good, bad = tmp_path / "good.html", tmp_path / "bad.html"
    status, out, _ = cli(*genoa, "--html", good, "--json")
    assert (status, one(out)["verified"]) == (0, True)
    page = good.read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not re.search(r"<script|https?://|src=|url\(", page)
    for check in one(out)["checks"]:
        assert f"{check['id']}<span" in page
    assert one(out)["claims"]["measurement"] in page
    assert cli(*genoa, "--html", bad, "--report-data", "00" * 63 + "01")[0] == 1
    page = bad.read_text(encoding="utf-8")
    assert "NOT VERIFIED" in page
    assert '<span class="mark bad">✗</span> report_data' in page
    assert cli(*genoa, "--html", tmp_path / "no" / "page.html", "--json")[0] == 3


def test_the_page_escapes_what_came_from_outside() -> None:
    nasty = "<script>alert('x')</script>&\""
    error = EvidenceError(nasty, code="x", field=nasty, expected=nasty, got=nasty.encode(), hint=nasty)
    check = Check(nasty, ok=False, spec=nasty, group=nasty, expected=nasty, got=[nasty])
    verdict = Verdict(nasty, "snp", datetime(2026, 1, 1, tzinfo=UTC), (check,), error=error, unchecked=(nasty,))
    page = verdict_page.render(verdict)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 7


def test_a_stranger_s_text_moves_no_cursor(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    path.write_text(json.dumps({"svn": "1\x1b[2J\r\nVERIFIED: all of it\u202e", "report_data": ""}))
    status, out, _ = cli("evidence", "show", path, "--tee", "sample")
    assert status == 0
    assert out.splitlines()[0].split(maxsplit=1) == ["svn", "1?[2J??VERIFIED: all of it?"]
    status, out, _ = cli("evidence", "show", path, "--tee", "sample", "--json")
    assert one(out)["claims"]["svn"].startswith("1\x1b[2J")


def test_a_file_whose_name_is_no_text(cli: Cli, tmp_path: Path) -> None:
    path, page = tmp_path / "\udcff\x1b[2J.bin", tmp_path / "page.html"
    path.write_bytes(b"x")
    for more in ((), ("--html", page)):
        status, out, _ = cli("evidence", "verify", path, "--tee", "snp", *more)
        assert status == 2
        assert out.startswith("NOT VERIFIED: ")
        assert "?[2J.bin" in out
    assert "?[2J.bin" in page.read_text(encoding="utf-8")


@pytest.mark.vectors
def test_report_data_is_compared_whole(cli: Cli, genoa: tuple[object, ...]) -> None:
    good = "b581f12e29a2d7d64e5e0b738d563879a78b51c644d0fa0cce02b48699f6bf5f" + 64 * "0"
    status, out, _ = cli(*genoa, "--json", "--report-data", good, "--init-data", 64 * "0")
    assert status == 0
    assert one(out)["unchecked"] == ["revocation"]
    status, out, _ = cli(*genoa, "--json", "--report-data", good[:-1] + "1")
    assert status == 1
    result = one(out)
    assert set(result) == {"tee", "verified", "error", "checks", "unchecked"}
    assert set(result["error"]) == {"code", "field", "expected", "got", "spec", "hint"}
    assert result["error"]["code"] == "report_data_mismatch"
    assert result["verified"] is False
    assert [check["ok"] for check in result["checks"]][-2:] == [True, False]
    status, out, _ = cli(*genoa, "--json", "--init-data", 62 * "0" + "01")
    assert (status, one(out)["error"]["code"]) == (1, "init_data_mismatch")


@pytest.mark.vectors
@pytest.mark.parametrize(
    "bad",
    [
        ("--report-data", "ab"),  # a prefix of the field is no expectation
        ("--report-data", 128 * "0"),  # nor is nothing
        ("--report-data", 127 * "0" + "g"),
        ("--report-data", 126 * "0" + " 1"),
        ("--init-data", 128 * "0"),
        ("--at", "yesterday"),
        ("--at", "2025-02-23"),
        ("--at", "2025-02-23T02:21:48"),
        ("--at", "2025-02-30T02:21:48Z"),
        ("--tee", "nosuch"),
        ("--endorsements", "/nonexistent"),
        ("--trust-root", "/nonexistent"),
        ("--frobnicate",),
        ("extra-argument",),
    ],
)
def test_wrong_usage_is_three_and_still_one_object(cli: Cli, genoa: tuple[object, ...], bad: tuple[str, ...]) -> None:
    status, out, err = cli(*genoa, "--json", *bad)
    assert status == 3
    assert one(out)["error"]["code"] == "usage"
    assert one(out)["verified"] is False
    assert "Error" in err
    status, out, err = cli(*genoa, *bad)
    assert (status, out) == (3, "")
    assert err


def test_usage_errors_of_the_group_are_one_object_too(cli: Cli, tmp_path: Path) -> None:
    for arguments in (
        ("evidence", "--json", "verify"),
        ("evidence", "nosuch", "--json"),
        ("evidence", "verify", "--json"),
        ("evidence", "verify", tmp_path / "none", "--tee", "snp", "--json"),
        ("evidence", "show", tmp_path, "--tee", "snp", "--json"),
        ("evidence", "vectors", tmp_path / "none", "--json"),
    ):
        status, out, _ = cli(*arguments)
        assert (status, one(out)["error"]["code"]) == (3, "usage"), arguments


@pytest.mark.parametrize("content", [b"", b"\0" * 1184, b"{}", b"[1]", b"hello", b"\x03" + bytes(1182)])
def test_a_file_that_is_no_report_is_two(cli: Cli, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "evidence"
    file.write_bytes(content)
    status, out, _ = cli("evidence", "verify", file, "--tee", "snp", "--json")
    assert status == 2
    assert one(out)["checks"] == []
    status, out, _ = cli("evidence", "show", file, "--tee", "snp", "--json")
    assert status == 2
    assert one(out)["verified"] is None
    status, out, err = cli("evidence", "verify", file, "--tee", "snp")
    assert status == 2
    assert "NOT VERIFIED" in out
    assert "error:" in err


@pytest.mark.vectors
def test_what_is_missing_is_one(cli: Cli, vectors: Path, genoa: tuple[object, ...], tmp_path: Path) -> None:
    bare = genoa[:8]
    status, out, _ = cli(*bare, "--json")
    assert (status, one(out)["error"]["code"]) == (1, "leaf_missing")
    assert "kdsintf.amd.com/vcek/v1/Genoa/0506ffba" in one(out)["error"]["hint"]
    status, out, _ = cli(*(argument for argument in genoa if argument != "--no-revocation"), "--json")
    assert (status, one(out)["error"]["code"]) == (1, "revocation_unknown")
    assert all(option in one(out)["error"]["hint"] for option in ("--endorsements", "--no-revocation"))
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    status, out, _ = cli(*genoa, "--endorsements", broken, "--json")
    assert (status, one(out)["error"]["code"]) == (1, "endorsement_malformed")


@pytest.mark.vectors
def test_time_defaults_to_now(cli: Cli, genoa: tuple[object, ...]) -> None:
    position = genoa.index("--at")
    status, out, _ = cli(*genoa[:position], *genoa[position + 2 :], "--json")
    if datetime.now(UTC).year < 2032:  # noqa: TID251 -- the certificate of this report ends in February 2032
        assert (status, one(out)["verified"]) == (0, True)
    else:
        assert one(out)["error"]["code"] == "leaf_validity"


@pytest.mark.vectors
def test_a_named_root_replaces_the_pinned_ones(cli: Cli, vectors: Path, genoa: tuple[object, ...]) -> None:
    status, out, _ = cli(*genoa, "--trust-root", vectors / "roots/amd-milan-ask-ark-asvk.pem", "--json")
    assert (status, one(out)["error"]["code"]) == (1, "root_untrusted")
    status, out, _ = cli(*genoa, "--trust-root", vectors / "roots/amd-genoa-ask-ark-asvk.pem", "--json")
    assert (status, one(out)["root"]) == (0, "custom")
    status, out, _ = cli(*genoa, "--trust-root", vectors / "snp/crl/milan-2026-06-22.crl", "--json")
    assert status == 3


@pytest.mark.vectors
def test_a_tee_without_a_room_is_four(cli: Cli, vectors: Path) -> None:
    status, out, _ = cli("evidence", "verify", vectors / GENOA, "--tee", "hygondcu", "--json")
    assert (status, one(out)["error"]["code"]) == (4, "tee_unsupported")


@pytest.mark.vectors
def test_show_says_that_nothing_was_verified(cli: Cli, vectors: Path) -> None:
    status, out, err = cli("evidence", "show", vectors / GENOA, "--tee", "snp", "--json")
    assert status == 0
    result = one(out)
    assert set(result) == {"tee", "verified", "claims"}
    assert result["verified"] is None
    assert result["claims"]["product"] == "Genoa"
    assert "NOTHING WAS VERIFIED" in err
    status, out, err = cli("evidence", "show", vectors / GENOA, "--tee", "snp")
    assert status == 0
    assert "measurement" in out
    assert "NOTHING WAS VERIFIED" in err


@pytest.mark.vectors
@pytest.mark.parametrize(
    ("choice", "number"), [(("--tee", "snp"), 22), (("--id", "measure-snp-*"), 23), (("--id", "measure-sev*"), 5)]
)
def test_the_vectors_pass(cli: Cli, vectors: Path, choice: tuple[str, str], number: int) -> None:
    status, out, _ = cli("evidence", "vectors", vectors / "manifest.json", *choice, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["id"] for line in lines[:-1] if not line["ok"]] == []
    assert status == 0
    assert lines[-1] == {"cases": number, "ok": number, "differ": 0, "not_supported": 0}
    for line in lines[:-1]:
        assert set(line) == {"id", "tee", "kind", "ok", "expected", "got", "differs"}
        if line["kind"] == "report-with-vcek":
            assert line["got"]["unchecked"] == ["revocation"]


@pytest.mark.vectors
def test_vectors_that_differ_are_one(cli: Cli, vectors: Path, tmp_path: Path) -> None:
    manifest = json.loads((vectors / "manifest.json").read_text())
    case = next(case for case in manifest["cases"] if case["id"] == "snp-genoa-v3-azure")
    for role, name in case["files"].items():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((vectors / name).read_bytes())
        assert role
    wrong_claim = {**case, "id": "wrong-claim", "claims": {**case["claims"], "vmpl": 1, "no_such_claim": "x"}}
    wrong_outcome = {**case, "id": "wrong-outcome", "expected": {"outcome": "invalid", "failure": "x", "note": "y"}}
    no_file = {**case, "id": "no-file", "files": {**case["files"], "report": "nowhere.bin"}}
    foreign = {**case, "id": "foreign", "tee": "abacus", "kind": "abacus-report"}
    list_role = {**case, "id": "list-role", "files": {**case["files"], "report": ["a", "b"]}}
    no_role = {**case, "id": "no-role", "files": {}}
    no_time = {**case, "id": "no-time", "reference_time": "when it suits"}
    no_key = {**case, "id": "no-key", "files": {**case["files"], "endorsement_key": case["files"]["report"]}}
    cases = [case, wrong_claim, wrong_outcome, no_file, foreign, no_role, no_time, no_key, list_role]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**manifest, "cases": cases}))
    status, out, _ = cli("evidence", "vectors", path, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert [line["differs"] for line in lines[:-1]] == [
        [],
        ["claims.vmpl", "claims.no_such_claim"],
        ["expected.outcome"],
        ["files.report"],
        ["expected.outcome"],
        ["case"],
        ["case"],
        lines[7]["differs"],
        ["files.report"],
    ]
    assert "expected.outcome" in lines[7]["differs"]
    assert lines[-1] == {"cases": 9, "ok": 1, "differ": 8, "not_supported": 1}
    status, out, _ = cli("evidence", "vectors", path)
    assert status == 1
    assert "abacus abacus-report is not supported" in out

    report = tmp_path / case["files"]["report"]
    report.write_bytes(report.read_bytes()[:-1] + b"\1")  # outside the signature, but not the listed file
    status, out, _ = cli("evidence", "vectors", path, "--id", "snp-*", "--json")
    assert (status, json.loads(out.splitlines()[0])["differs"]) == (1, ["files.report"])
    assert cli("evidence", "vectors", path, "--id", "nothing*")[0] == 3
    assert cli("evidence", "vectors", path, "--tee", "nothing")[0] == 3


CASE = {"id": "x", "tee": "snp", "kind": "crl", "files": {}, "expected": {}}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"schema": "evidence-vectors/2", "cases": []}',
        '{"schema": "evidence-vectors/1", "cases": [{}]}',
        *(
            json.dumps({"schema": "evidence-vectors/1", "cases": [{**CASE, **wrong}]})
            for wrong in cast(
                "list[dict[str, object]]",
                [{"id": 7}, {"id": "\ud800"}, {"id": "\x1b[2J"}, {"files": []}, {"expected": "valid"}, {"claims": []}],
            )
        ),
        json.dumps({"schema": "evidence-vectors/1", "files": [], "cases": [CASE]}),
    ],
)
def test_what_is_no_manifest_is_three(cli: Cli, tmp_path: Path, content: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content)
    assert cli("evidence", "vectors", path)[0] == 3


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A development platform's evidence as JSON, its root and its CRL as files, as of now."""
    from adyton.devtee.forge import Forge
    from adyton.tee.snp.abi import SnpReport
    from adyton.tee.snp.json_form import to_json

    folder = tmp_path_factory.mktemp("platform")
    forge = Forge.new(datetime.now(UTC))  # noqa: TID251 -- the command line's default is the clock's time
    document = to_json(SnpReport.parse(forge.report(report_data=b"\7" * 64)), list(forge.certificates))
    (folder / "evidence.json").write_text(json.dumps(document))
    (folder / "report.bin").write_bytes(forge.report(report_data=b"\7" * 64))
    (folder / "root.der").write_bytes(forge.certificates[2][1])
    (folder / "crls").mkdir()
    (folder / "crls" / "list.crl").write_bytes(forge.crl())
    (folder / "revoked.crl").write_bytes(forge.crl(revoked=[forge.signer.certificate], number=2))
    return forge, folder


def test_evidence_of_a_development_platform(cli: Cli, platform: tuple[Any, Path]) -> None:
    _, folder = platform
    call = ("evidence", "verify", folder / "evidence.json", "--tee", "snp", "--json", "--endorsements", folder / "crls")
    status, out, _ = cli(*call)
    assert (status, one(out)["error"]["code"]) == (1, "root_untrusted")  # nothing trusts it by default
    status, out, _ = cli(*call, "--trust-root", folder / "root.der", "--report-data", 64 * "07")
    result = one(out)
    assert (status, result["root"], result["unchecked"]) == (0, "custom", ["init_data"])
    assert "revocation" in [check["id"] for check in result["checks"]]
    assert result["claims"]["product"] == "Genoa"
    status, out, _ = cli(*call, "--trust-root", folder / "root.der", "--endorsements", folder / "revoked.crl")
    assert (status, one(out)["error"]["code"]) == (1, "leaf_revoked")
    status, out, _ = cli(*call, "--trust-root", folder / "root.der", "--at", "2062-01-01T00:00:00Z")
    assert (status, one(out)["error"]["code"]) == (1, "leaf_validity")
    status, out, _ = cli(*call[:5], "--trust-root", folder / "root.der", "--endorsements", folder / "crls")
    assert status == 0
    assert "a root of your choice" in out


def test_what_two_writers_say_of_one_report(platform: tuple[Any, Path], cli: Cli) -> None:
    """The issuer and the parser were written apart; the raw report and the JSON form show the same claims."""
    _, folder = platform
    _, raw, _ = cli("evidence", "show", folder / "report.bin", "--tee", "snp", "--json")
    _, form, _ = cli("evidence", "show", folder / "evidence.json", "--tee", "snp", "--json")
    assert one(raw)["claims"] == one(form)["claims"]
    assert one(raw)["claims"]["report_data"] == "07" * 64
