"""Write ``docs/reference/cli.md`` from the command line itself; a test fails when the two differ.

Run it with the project's interpreter: ``.venv/bin/python scripts/cli_reference.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from adyton.cli import adyton

TARGET = Path(__file__).resolve().parents[1] / "docs" / "reference" / "cli.md"


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _commands(inner, f"{path} {name}")
    else:
        yield path, command


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def render() -> str:
    """The whole document."""
    lines = [
        "# Command line",
        "",
        "Written by `scripts/cli_reference.py` from the commands themselves. Exit statuses are in [the reference](../reference.md).",
        "",
    ]
    for path, command in _commands(adyton, "adyton"):
        context = click.Context(command, info_name=path)
        usage = " ".join(command.collect_usage_pieces(context))
        lines += [f"## `{path}`", "", f"`{path} {usage}`", "", _cell(command.help or ""), ""]
        rows = [
            record
            for parameter in command.get_params(context)
            if (record := parameter.get_help_record(context)) and "--help" not in record[0]
        ]
        if rows:
            lines += [
                "| option | meaning |",
                "|---|---|",
                *(f"| `{_cell(left)}` | {_cell(right)} |" for left, right in rows),
                "",
            ]
    return "\n".join(lines)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
