"""``adyton run`` and its neighbours where no instance is started: usage, options, exit statuses."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.image.building import image, layer

from adyton.cli import adyton
from adyton.cli.output import run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADYTON_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument"),
        (["--no-such-option", "x"], "No such option"),
        (["--network", "wild", "x"], "Invalid value"),
        (["--workload", "/does/not/exist", "x"], "does not exist"),
        (["--decryption-key", "/does/not/exist", "x"], "does not exist"),
        (["-v", "a:b:c:d", "oci:/x"], "option_invalid"),
        (["-p", "80/udp", "oci:/x"], "option_invalid"),
        (["-e", "1=2", "oci:/x"], "option_invalid"),
        (["--name", "a/b", "oci:/x"], "option_invalid"),
        (["NOT-A-NAME"], "image_reference_invalid"),
        (["--pull", "never", "localhost:1/unknown"], "image_unknown"),
        (["oci:/does/not/exist"], "error: "),
        (["oci:/x", "\udcff"], "not_text"),
        (["-e", "A=\udcff", "oci:/x"], "not_text"),
        (["-v", "/\udcff:/x", "oci:/x"], "not_text"),
    ],
)
def test_whatever_adyton_cannot_do_is_125(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    assert run(adyton, ["run", *arguments]) == 125
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert not (home / "run").exists()  # and no service was started for it


def test_no_service_no_instances(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert run(adyton, ["ps", "--json"]) == 0
    assert capsys.readouterr().out == ""
    assert run(adyton, ["stop", "nobody"]) == 1
    assert "platform_absent" in capsys.readouterr().err
    assert run(adyton, ["ps", "-a", "--json"]) == 0  # nothing ever ran: no service is built and started to say so
    assert not (home / "run").exists()


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1"])
@pytest.mark.parametrize(
    "command", [["stop", "x", "-t"], ["devtee", "serve", "--idle-exit"], ["collateral", "fetch", "x", "--seconds"]]
)
def test_a_time_that_is_none(command: list[str], seconds: str, capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert run(adyton, [*command, seconds]) == 3
    assert "Invalid value" in capsys.readouterr().err and not any(home.iterdir())


def test_an_image_for_another_machine_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = "s390x" if platform.machine() != "s390x" else "amd64"
    built = image([layer({"a": b"x"})], architecture=other, Cmd=["/a"])
    built.write_layout(home / "layout")
    assert run(adyton, ["workload", "new", f"oci:{home / 'layout'}"]) == 0
    assert f"the image is for linux/{other}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["rm", "x"], ["logs", "x"]])
def test_who_is_not_root_is_told_before_a_service_is_started(
    arguments: list[str], capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert run(adyton, arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.count("error:") == 1
    assert "root_required" in captured.err
    assert not any(home.iterdir())


@pytest.mark.parametrize("noun", ["run", "ps", "logs", "stop", "rm"])
def test_help(noun: str) -> None:
    result = CliRunner().invoke(adyton, [noun, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
