from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.collateral.endorser import Answer, Endorser, pem, play_amd, play_intel, running, vcek_path

from adyton.cli import adyton
from adyton.cli.output import run
from adyton.collateral import bundle
from adyton.collateral.cache import Cache
from adyton.collateral.collector import fresh_until
from adyton.devtee.dcap import DcapForge, td_body
from adyton.devtee.forge import Forge

NOW = datetime.now(UTC).replace(microsecond=0)  # noqa: TID251 -- the commands read the clock themselves
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def forge() -> Forge:
    return Forge.new(NOW)


@pytest.fixture
def endorser(forge: Forge) -> Iterator[Endorser]:
    with running() as started:
        play_amd(started, forge)
        yield started


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run the real command line in this process, in a home of its own: (status, standard output, standard error)."""
    monkeypatch.setenv("ADYTON_HOME", str(tmp_path / "home"))

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = run(adyton, [str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def report(forge: Forge, tmp_path: Path) -> Path:
    path = tmp_path / "report.bin"
    path.write_bytes(forge.report())
    return path


@pytest.fixture
def root(forge: Forge, tmp_path: Path) -> Path:
    path = tmp_path / "ark.pem"
    path.write_bytes(pem(forge.certificates[2][1]))
    return path


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_offline_from_end_to_end(cli: Cli, endorser: Endorser, report: Path, root: Path, tmp_path: Path) -> None:
    """Bundle where there is a network, carry, import, verify where there is none."""
    bundle = tmp_path / "genoa.tar"
    status, out, err = cli("collateral", "bundle", "-o", bundle, "--for", report, "--from", f"kds={endorser.url}")
    assert (status, "3 endorsements" in err) == (0, True), err
    assert "amd/crl/Genoa" in out
    endorser.outage = True
    verify = ("evidence", "verify", report, "--tee", "snp", "--trust-root", root)
    assert cli(*verify)[0] == 1
    assert cli(*verify, "--endorsements", bundle)[0] == 0
    other = ("--cache", tmp_path / "other")
    status, out, _ = cli("collateral", "import", bundle, *other, "--json")
    assert status == 0
    assert [row["state"] for row in lines(out)] == ["valid"] * 3
    status, out, _ = cli("collateral", "list", *other, "--json")
    assert status == 0
    assert {row["name"].rpartition("/")[0] for row in lines(out)} >= {"amd/crl", "amd/chain/Genoa"}
    assert lines(out)[0]["name"] == "amd/crl/Genoa"  # what expires first is above
    assert cli("collateral", "fetch", "--offline", "--for", report, *other)[0] == 0
    laid = tmp_path / "laid"
    assert cli("collateral", "import", bundle, "--into", laid)[0] == 0
    assert cli(*verify, "--endorsements", laid)[0] == 0
    again = tmp_path / "again.tar"
    assert cli("collateral", "bundle", "--offline", "-o", again, *other)[0] == 0
    assert again.read_bytes() == bundle.read_bytes()


def test_verify_fetches_only_when_asked(cli: Cli, endorser: Endorser, report: Path, root: Path) -> None:
    verify = ("evidence", "verify", report, "--tee", "snp", "--trust-root", root, "--json")
    for options, status, code in (
        ((), 1, "leaf_missing"),
        (("--offline",), 3, "usage"),
        (("--from", f"kds={endorser.url}"), 3, "usage"),
        (("--fetch", "--offline"), 1, "leaf_missing"),
        (("--fetch", "--offline", "--from", f"kds={endorser.url}"), 3, "usage"),
    ):
        got, out, _ = cli(*verify, *options)
        assert (got, json.loads(out)["error"]["code"]) == (status, code), options
    assert endorser.asked == []
    assert cli(*verify, "--fetch", "--from", f"kds={endorser.url}")[0] == 0
    assert len(endorser.asked) >= 3
    asked = len(endorser.asked)
    status, out, _ = cli(*verify, "--fetch", "--offline")  # the cache alone is enough now
    assert (status, json.loads(out)["verified"]) == (0, True)
    assert len(endorser.asked) == asked


def test_fetch_says_what_failed_and_what_to_do(cli: Cli, endorser: Endorser, report: Path, forge: Forge) -> None:
    status, _, err = cli("collateral", "fetch")
    assert (status, "--for EVIDENCE" in err) == (3, True)
    status, _, err = cli("collateral", "fetch", "amd/crl/genoa", "--offline")
    assert status == 3
    status, _, err = cli("collateral", "fetch", "amd/crl/Genoa", "--offline")
    assert (status, "endorsement_no_source" in err, "adyton collateral import" in err) == (1, True, True)
    del endorser.routes[vcek_path(forge)]
    status, out, err = cli("collateral", "fetch", "--for", report, "--from", f"kds={endorser.url}", "--json")
    assert status == 1
    assert [set(line) == {"error"} for line in lines(out)] == [False, False, True]  # what could be had is had
    assert "endorsement_absent" in err
    endorser.limit, endorser.retry_after = 0, "120"
    status, _, err = cli(
        "collateral", "fetch", "amd/chain/Milan/vcek", "--from", f"kds={endorser.url}", "--seconds", "1"
    )
    assert (status, "endorser_busy" in err, "120 s" in err) == (1, True, True)
    for wrong, expected in (
        (("--from", "http://example.com"), 1),
        (("--from", "ias=https://x"), 1),
        (("--from", f"kds={endorser.url}", "--offline"), 3),
    ):
        status, _, err = cli("collateral", "fetch", "amd/crl/Genoa", *wrong)
        assert (status, "error:" in err) == (expected, True)
    status, _, err = cli("collateral", "fetch", "--for", report, "--tee", "snp", "--tee", "sgx", "--offline")
    assert status == 3
    status, out, _ = cli("collateral", "fetch", "--for", report, "--tee", "tdx", "--offline", "--json")
    assert (status, set(lines(out)[0])) == (2, {"error"})  # that file is not TDX evidence


def test_a_bundle_is_whole_or_not_written(
    cli: Cli, endorser: Endorser, report: Path, forge: Forge, tmp_path: Path
) -> None:
    before = endorser.routes.pop(vcek_path(forge))
    target = tmp_path / "b.tar"
    status, _, err = cli("collateral", "bundle", "-o", target, "--for", report, "--from", f"kds={endorser.url}")
    assert (status, target.exists()) == (1, False)
    assert "endorsement_absent" in err
    status, _, err = cli("collateral", "bundle", "-o", tmp_path / "none" / "b.tar", "amd/crl/Genoa", "--offline")
    assert (status, "file_unwritable" in err) == (1, True)
    endorser.routes[vcek_path(forge)] = before
    os.mkfifo(tmp_path / "pipe")  # written to, not replaced
    held = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    arguments = ("--for", report, "--from", f"kds={endorser.url}", "--cache", tmp_path / "fresh")
    assert cli("collateral", "bundle", "-o", tmp_path / "pipe", *arguments)[0] == 0
    assert os.read(held, 1 << 16)
    os.close(held)
    assert (tmp_path / "pipe").is_fifo()
    status, _, err = cli("collateral", "show", "amd/crl/Genoa", "-o", tmp_path / "none" / "crl")
    assert (status, "file_unwritable" in err) == (1, True)
    status, _, err = cli("--help")
    assert status == 0


def test_what_failed_is_json_too_and_contradictions_are_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    cache = ("--cache", tmp_path / "c")
    status, out, _ = cli("collateral", "fetch", "amd/crl/Genoa", "amd/crl/Milan", "--offline", "--json", *cache)
    assert status == 1
    assert [line["error"]["code"] for line in lines(out)] == ["endorsement_no_source"] * 2
    contradiction = ("collateral", "fetch", "amd/crl/Genoa", "--offline", "--from", "kds=https://127.0.0.1:1", "--json")
    status, out, _ = cli(*contradiction, *cache)
    assert (status, lines(out)[0]["error"]["code"]) == (3, "usage")
    (tmp_path / "c.pem").write_text("x")
    assert cli("collateral", "serve", "--certificate", tmp_path / "c.pem", *cache)[0] == 3


def test_an_empty_cache_makes_no_bundle(cli: Cli, tmp_path: Path) -> None:
    status, _, err = cli("collateral", "bundle", "--offline", "-o", tmp_path / "b.tar")
    assert (status, "bundle_empty" in err) == (1, True)
    status, out, _ = cli("collateral", "list")
    assert (status, out) == (0, "NAME  STATE  EXPIRES  SUBJECT\n")


def test_import_refuses_what_is_wrong_and_what_is_older(
    cli: Cli, endorser: Endorser, forge: Forge, tmp_path: Path
) -> None:
    names = ("amd/chain/Genoa/vcek", "amd/crl/Genoa")
    old, new = tmp_path / "old.tar", tmp_path / "new.tar"
    for path, number in ((old, 1), (new, 2)):
        endorser.routes["/vcek/v1/Genoa/crl"] = Answer(forge.crl(number=number))
        cache = tmp_path / f"cache{number}"
        assert (
            cli("collateral", "bundle", "-o", path, *names, "--cache", cache, "--from", f"kds={endorser.url}")[0] == 0
        )
    assert cli("collateral", "import", new)[0] == 0
    status, out, err = cli("collateral", "import", old)
    assert status == 0  # the chain is the same
    assert "left out: amd/crl/Genoa: a newer one" in err
    assert "crl" not in out
    broken = tmp_path / "broken.tar"
    content = bytearray(new.read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes(content)
    status, _, err = cli("collateral", "import", broken)
    assert (status, str(broken) in err) == (1, True)
    (tmp_path / "text").write_text("hello")
    status, out, _ = cli("collateral", "import", tmp_path / "text", "--json")
    assert (status, lines(out)[0]["error"]["code"]) == (1, "bundle_malformed")


def test_what_a_bundle_says_of_the_future_does_not_stay_fresh_until_then(
    cli: Cli, endorser: Endorser, tmp_path: Path
) -> None:
    path = tmp_path / "future.tar"
    names = ("amd/chain/Genoa/vcek", "amd/crl/Genoa")
    assert cli("collateral", "bundle", "-o", path, *names, "--from", f"kds={endorser.url}")[0] == 0
    items = [replace(item, fetched=NOW.replace(year=NOW.year + 900)) for item in bundle.read(path.read_bytes())]
    path.write_bytes(bundle.write(items))
    assert cli("collateral", "import", path, "--cache", tmp_path / "cache")[0] == 0
    with Cache(tmp_path / "cache") as cache:
        stored = cache.all()
    assert len(stored) == 2
    for one in stored:
        assert fresh_until(one) < NOW + timedelta(days=31)


def test_list_and_show(cli: Cli, endorser: Endorser, tmp_path: Path, forge: Forge) -> None:
    bundle = tmp_path / "b.tar"
    cli("collateral", "bundle", "-o", bundle, "amd/chain/Genoa/vcek", "amd/crl/Genoa", "--from", f"kds={endorser.url}")
    later = (NOW + timedelta(days=100)).isoformat()
    status, out, _ = cli("collateral", "list", bundle, "--at", later, "--json")
    assert [row["state"] for row in lines(out)] == ["expired", "stale"]
    status, out, _ = cli("collateral", "list", bundle, "--at", (NOW - timedelta(days=9999)).isoformat(), "--json")
    assert {row["state"] for row in lines(out)} == {"not yet valid"}
    assert cli("collateral", "list", bundle, "--at", "yesterday")[0] == 3
    assert cli("collateral", "list", tmp_path / "nowhere")[0] == 3
    status, out, err = cli("collateral", "show", "amd/chain/Genoa/vcek", bundle)
    assert (status, "ARK-Genoa" in out, "Nothing of this was verified" in err) == (0, True, True)
    raw = tmp_path / "crl.der"
    status, out, _ = cli("collateral", "show", "amd/crl/Genoa", "--json", "-o", raw)
    (row,) = lines(out)
    assert (row["revoked"], row["number"]) == ([], 1)
    assert raw.read_bytes() == endorser.routes["/vcek/v1/Genoa/crl"].body  # type: ignore[union-attr]  # an Answer
    assert cli("collateral", "show", "amd/crl/Milan")[0] == 1


def test_forged_dcap_from_a_pccs_to_a_verdict(cli: Cli, tmp_path: Path) -> None:
    forged = DcapForge.new(NOW)
    (tmp_path / "td.quote").write_bytes(forged.quote(td_body()).encode())
    ca = "platform" if "Platform" in str(forged.pck_ca.certificate.subject) else "processor"
    (tmp_path / "root.pem").write_bytes(forged.collateral("tdx").bundle()["pck_crl_issuer_chain"].encode())
    with running() as pccs:
        play_intel(pccs, forged.collateral("tdx").bundle(), tee="tdx", ca=ca)
        bundle = tmp_path / "td.tar"
        status, _, err = cli(
            "collateral", "bundle", "-o", bundle, "--for", tmp_path / "td.quote", "--from", f"pccs={pccs.url}"
        )
        assert status == 0, err
    from adyton.crypto.x509 import EndorsementSet

    chain = EndorsementSet.parse([(tmp_path / "root.pem").read_bytes()]).certificates
    (tmp_path / "root.pem").write_bytes(pem(chain[-1].der))
    verify = (
        "evidence",
        "verify",
        tmp_path / "td.quote",
        "--tee",
        "tdx",
        "--trust-root",
        tmp_path / "root.pem",
        "--json",
    )
    status, out, _ = cli(*verify, "--endorsements", bundle)
    assert status == 0, out
    assert lines(out)[0]["claims"]["tcb_status"] == "UpToDate"
    assert cli(*verify)[0] != 0


def test_two_processes_that_want_the_same_ask_once(endorser: Endorser, report: Path, tmp_path: Path) -> None:
    endorser.delay = 0.3
    command = [
        sys.executable,
        "-m",
        "adyton",
        "collateral",
        "fetch",
        "--for",
        str(report),
        "--from",
        f"kds={endorser.url}",
    ]
    environment = {**os.environ, "ADYTON_HOME": str(tmp_path / "shared")}
    running_ = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0] for process in running_]
    assert [process.returncode for process in running_] == [0, 0, 0]
    assert len(set(outputs)) == 1
    assert len(endorser.asked) == 3


def test_serve(cli: Cli, endorser: Endorser, report: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "ADYTON_HOME": str(tmp_path / "served")}
    command = [
        sys.executable,
        "-m",
        "adyton",
        "collateral",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--from",
        f"kds={endorser.url}",
    ]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stderr.readline())
            assert found is not None
            status, out, err = cli("collateral", "fetch", "--for", report, "--from", found[0], "--json")
            assert (status, len(lines(out))) == (0, 3), err
            endorser.outage = True
            assert cli("collateral", "fetch", "--for", report, "--from", found[0], "--cache", tmp_path / "x")[0] == 0
        finally:
            process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(60) == 0
        assert "amd/vcek 200" in rest
        assert "Genoa" not in rest  # a chip's id identifies a machine
    assert cli("collateral", "serve", "--offline", "--certificate", report)[0] == 3
    for wrong in (("--listen", "nowhere"), ("--listen", "127.0.0.1:99999")):
        assert cli("collateral", "serve", "--offline", *wrong)[0] == 1


def test_serve_speaks_tls_where_others_reach_it(tmp_path: Path) -> None:
    environment = {**os.environ, "ADYTON_HOME": str(tmp_path / "served")}
    command = [sys.executable, "-m", "adyton", "collateral", "serve", "--listen", "0.0.0.0:0", "--offline"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = [process.stderr.readline() for _ in range(3)]
        finally:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert "https://0.0.0.0:" in said[0]
    assert re.search(r"pin +sha256:[0-9a-f]{64}", said[2])
