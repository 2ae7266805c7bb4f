"""Help in sections, for a command with more options than a screen has lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click


class Sectioned(click.Command):
    """A command whose options are listed under headings. An option that no section names comes last."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each section with its options, in the order in which they are named."""
        records = {parameter.name: parameter.get_help_record(ctx) for parameter in self.get_params(ctx)}
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([record for name in names if (record := records.pop(name, None))])
        if rest := [record for record in records.values() if record]:
            with formatter.section("Other options"):
                formatter.write_dl(rest)
