"""What every noun prints with: errors, JSON, tables, exit statuses.

Exit statuses: 0 done; 1 refused or failed; 2 the input is not what it should be (``evidence``); 3 wrong usage or an
unreadable path; 4 cannot be verified with what was given. ``run`` gives the workload's own status instead, and 125
when Adyton itself failed, as ``podman run`` does.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import click

from adyton.errors import AdytonError, ConfigError, MalformedEvidence, UnsupportedEvidence

_STATUS: tuple[tuple[type[AdytonError], int], ...] = ((MalformedEvidence, 2), (UnsupportedEvidence, 4))
_UNUSABLE = frozenset(
    {"file_unreadable", "argument_not_utf8", "option_invalid", "usage"}
)  # status 3, whatever the error's class
_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")
_BROKEN_PIPE = 141  # as a shell says of a process that SIGPIPE ended


@dataclass(slots=True)
class _Asked:
    """What the caller asked of every answer, errors included. Travels as click's ``obj``."""

    json: bool = False


class Exit(Exception):
    """Leave with this status; whatever had to be said has been said."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def exit_status(error: AdytonError) -> int:
    """The exit status for an error of the tree."""
    if error.code in _UNUSABLE:
        return 3
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 1)


def run(command: click.Command, arguments: list[str] | None = None) -> int:
    """Run ``command`` with errors turned into messages; returns the exit status."""
    asked = _Asked()
    try:
        command.main(args=arguments, prog_name="adyton", standalone_mode=False, obj=asked)
    except Exit as leaving:
        return leaving.status
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 3
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.exceptions.Abort:
        say("interrupted")
        return 130
    except click.ClickException as error:  # usage errors and unreadable paths
        error.show()
        return 3
    except AdytonError as error:
        return _failed(error, asked)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; so do we, silently
        return _BROKEN_PIPE
    except SystemExit:
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):  # click saw the same; its 1 would mean *refused*
            return _BROKEN_PIPE
        raise
    except UnicodeEncodeError as error:
        return _failed(_not_text(error), asked)
    except Exception as error:  # noqa: BLE001 -- the last door: a defect of ours is said as one, without a traceback
        return _failed(defect(error), asked)
    return 0


def _failed(error: AdytonError, asked: _Asked) -> int:
    if asked.json:
        with suppress(OSError):  # where it should go may be what is full; the line after it says so
            print_json({"error": error.as_dict()})
    with suppress(OSError):
        print_error(error)
    return exit_status(error)


def _not_text(error: UnicodeEncodeError) -> AdytonError:
    if not any("\ud800" <= character <= "\udfff" for character in str(error.object)):
        return defect(error)
    return ConfigError(
        "an argument is not UTF-8 where a text is needed",
        code="argument_not_utf8",
        got=repr(error.object)[:80],
        hint="file names may hold any bytes, and nothing else may",
    )


def defect(error: Exception) -> AdytonError:
    """What nobody expected, as one error; its class says where to look."""
    if os.environ.get("ADYTON_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return ConfigError(
            f"the output cannot be written (or the input read): {error.strerror}",
            code="output_unwritable",
            hint="nothing may have come out whole: look before you use it",
        )
    what = (
        f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else type(error).__name__
    )
    return AdytonError(
        f"unexpected: {what}",
        code="internal",
        hint="this should have been a better message; ADYTON_TRACEBACK=1 shows where it came from",
    )


def print_error(error: AdytonError) -> None:
    """One error as a person reads it, on standard error."""
    say(click.style("error: ", fg="red", bold=True, reset=True) + _printable(error.message) + f" [{error.code}]")
    for label, value in (
        ("field", error.field),
        ("expected", error.as_dict()["expected"]),
        ("got", error.as_dict()["got"]),
        ("asked for by", error.spec),
    ):
        if value is not None:
            say(f"  {label}: {_printable(str(value))}")
    for reason in getattr(error, "reasons", ()):
        say(f"  reason: {_printable(str(reason))}")
    if error.hint:
        say(click.style("  hint: ", fg="yellow", reset=True) + _printable(error.hint))


def _printable(text: str, *, kept: str = "\n\t") -> str:
    """Text that may be a stranger's, for a terminal: what could move its cursor becomes a question mark."""
    return "".join(character if character.isprintable() or character in kept else "?" for character in text)


def say(text: str) -> None:
    """A line on standard error, where everything goes that is not the answer; colours alone may be in it."""
    parts = _STYLE.split(text)
    click.echo("".join(part if at % 2 else _printable(part) for at, part in enumerate(parts)), err=True)


def print_json(value: object) -> None:
    """One JSON document on one line of standard output."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        plain = text.isprintable()
    except UnicodeEncodeError:  # bytes of an argument that are no text, or a terminal that knows fewer characters
        plain = False
    click.echo(text if plain else json.dumps(value, default=str))


def print_text(text: str) -> None:
    """A whole text of the answer: as it is for a program, harmless for a terminal."""
    click.echo(_printable(text) if sys.stdout.isatty() else text, nl=not text.endswith("\n"))


def print_line(text: str) -> None:
    """A line of the answer on standard output, whatever a stranger put into it."""
    click.echo(_printable(text, kept=""))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Left-aligned columns on standard output; nothing is cut, so that pipes see whole values."""
    texts = [[_printable(str(cell), kept="") if cell is not None else "-" for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[index]) for row in texts)]) for index, name in enumerate(columns)]
    for row in [[name.upper() for name in columns], *texts]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _remember(context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    asked = context.find_root().obj
    if isinstance(asked, _Asked):
        asked.json = value
    return value


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=_remember,
    help='Print JSON on standard output, one object a line; an error too, as {"error": …}.',
)
