"""What the demo shows: numbered steps, the commands as anybody could type them, and a table at the end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

import click


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the summary: what was tried, what had to come of it, what came, how long it took."""

    step: str
    expected: str
    got: str
    ok: bool
    seconds: float


@dataclass(slots=True)
class Screen:
    """Prints as the story goes, and keeps the rows of the summary. ``quiet`` prints nothing (``--json``)."""

    quiet: bool = False
    shorten: tuple[tuple[str, str], ...] = ()
    rows: list[Row] = field(default_factory=list)
    _number: int = 0

    def step(self, title: str) -> None:
        """A new numbered step."""
        self._number += 1
        self._print("")
        self._print(click.style(f"{self._number:2}  {title}", bold=True))

    def command(self, arguments: Sequence[str], *, background: bool = False) -> None:
        """A command, as it is run."""
        text = shlex.join(arguments) + (" &" if background else "")
        self._print(click.style("    $ " + self._short(text), fg="cyan"))

    def tell(self, text: str) -> None:
        """What came of it."""
        for line in self._short(text).splitlines():
            self._print("      " + line)

    def verdict(self, row: Row) -> None:
        """Keep a row and show it."""
        self.rows.append(row)
        mark = click.style("✓", fg="green", bold=True) if row.ok else click.style("✗", fg="red", bold=True)
        self._print(f"    {mark} {self._short(row.got)}")

    def summary(self) -> None:
        """The table of everything that was tried."""
        width = max(len(row.step) for row in self.rows)
        expected = max(len(row.expected) for row in self.rows)
        self._print("")
        self._print(click.style("Summary", bold=True))
        for row in self.rows:
            mark = click.style("✓", fg="green") if row.ok else click.style("✗", fg="red")
            self._print(
                f" {mark} {row.step.ljust(width)}  {row.expected.ljust(expected)}  {row.seconds:5.1f} s  {self._short(row.got)}"
            )

    def lines(self, title: str, lines: Sequence[str]) -> None:
        """A titled block of lines."""
        self._print("")
        self._print(click.style(title, bold=True))
        for line in lines:
            self._print(" " + self._short(line))

    def _short(self, text: str) -> str:
        for long, short in self.shorten:
            text = text.replace(long, short)
        return text

    def _print(self, text: str) -> None:
        if not self.quiet:
            click.echo(text)
