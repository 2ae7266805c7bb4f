"""The frame of the command line: every noun exists, every error has one form, nothing is imported too early."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from adyton.cli import NOUNS, adyton
from adyton.cli.output import Exit, print_json, run
from adyton.errors import BindingMismatch, MalformedEvidence, ReleaseRefused, UnsupportedEvidence


def _adyton(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "adyton", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_every_noun_shows_its_help(noun: str) -> None:
    command = adyton.get_command(click.Context(adyton), noun)
    assert command is not None
    assert command.get_help(click.Context(command, info_name=noun))


def test_wrong_usage_is_status_3() -> None:
    assert _adyton("nonsense").returncode == 3
    assert _adyton("evidence", "verify").returncode == 3


def test_help_imports_no_room() -> None:
    code = "import sys, adyton.cli as c; c.adyton.main(['--help'], standalone_mode=False); print([m for m in sys.modules if m.startswith(('adyton', 'cryptography', 'rich', 'asyncio'))], file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "['adyton', 'adyton.cli']"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BindingMismatch("m"), 1),
        (MalformedEvidence("m"), 2),
        (UnsupportedEvidence("m"), 4),
        (ReleaseRefused("m", reasons=("because",)), 1),
        (Exit(17), 17),
        (KeyboardInterrupt(), 130),
        (click.UsageError("u"), 3),
    ],
)
def test_errors_become_statuses(error: BaseException, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def failing() -> None:
        raise error

    assert run(failing, []) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_json_for_a_terminal_is_harmless_and_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("\x9b2J", "\u202e", "\udcff", "\u2028", "plain \u00e9"):
        print_json({"a": value})
        said = capsys.readouterr().out
        assert said[:-1].isprintable() and json.loads(said) == {"a": value}


def test_a_closed_pipe_is_no_traceback() -> None:
    result = subprocess.run(
        f"{sys.executable} -m adyton --help | head -c 0", shell=True, capture_output=True, text=True, check=False
    )
    assert result.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_completion_script_that_completes(shell: str) -> None:
    script = _adyton("completion", shell)
    assert script.returncode == 0
    assert "_ADYTON_COMPLETE" in script.stdout
    words = {"bash": "COMP_WORDS", "zsh": "COMP_WORDS", "fish": "COMP_WORDS"}[shell]
    answer = subprocess.run(
        [sys.executable, "-m", "adyton"],
        env={
            "_ADYTON_COMPLETE": f"{shell}_complete",
            words: "adyton evid" if shell != "fish" else "adyton",
            "COMP_CWORD": "1" if shell != "fish" else "evid",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "evidence" in answer.stdout


def test_the_version_is_told() -> None:
    from adyton import __version__

    told = subprocess.run([sys.executable, "-m", "adyton", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"adyton {__version__}\n"


def test_help_in_sections_knows_every_option_and_no_other() -> None:
    from adyton.cli.broker import serve
    from adyton.cli.sections import Sectioned

    assert isinstance(serve, Sectioned)
    named = [name for names in serve.sections.values() for name in names]
    assert len(set(named)) == len(named)
    assert set(named) <= {parameter.name for parameter in serve.params}
    told = subprocess.run(
        [sys.executable, "-m", "adyton", "broker", "serve", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for parameter in serve.params:
        assert parameter.opts[0] in told
    assert [line for line in told.splitlines() if line == "The root key and other instances:"]
