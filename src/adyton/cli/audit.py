"""``adyton audit``: what the broker decided, and why. Strangers are told little; here is the rest."""

from __future__ import annotations

from typing import Any

import click

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_table, say


@click.group(cls=Noun)
def audit() -> None:
    """Read the broker's record of decisions."""


@audit.command("list")
@click.option("--since", metavar="RFC3339", help="Only decisions from this time on.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="The newest so many.")
@broker_options
@json_option
def list_(since: str | None, limit: int, as_json: bool, **options: Any) -> None:
    """The newest decisions, oldest of them first."""
    with open_admin(**options) as admin:
        entries = admin.audit(since, limit)
    if as_json:
        for entry in entries:
            print_json({**{name: entry[name] for name in entry if name != "row"}, **entry["row"]})
        return
    rows = []
    for entry in entries:
        row = entry["row"]
        reasons = row.get("reasons", ())
        rows.append(
            (
                entry["sequence"],
                entry["time"][:19] + "Z",
                row["action"],
                row["decision"],
                row.get("status") or "-",
                row.get("resource") or "-",
                reasons[0] if reasons else "-",
            )
        )
        rows += [("", "", "", "", "", "", reason) for reason in reasons[1:]]
    print_table(("no", "time", "action", "decision", "status", "resource", "reasons"), rows)


@audit.command()
@broker_options
@json_option
def verify(as_json: bool, **options: Any) -> None:
    """Check the whole chain of decisions; prints its length and last digest, to be kept elsewhere."""
    with open_admin(**options) as admin:
        report = admin.audit_verify()
    if as_json:
        print_json({"sequence": report.sequence, "root": report.root, "broken": report.broken})
    else:
        say(f"the log holds: {report.sequence} decisions")
        click.echo(report.root)
