"""``adyton run`` and its neighbours where no instance is started: usage, options, exit statuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

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
    assert not (home / "run").exists()


@pytest.mark.parametrize("arguments", [["rm", "x"], ["logs", "x"], ["ps", "-a"]])
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
