"""``adyton audit verify``: is the record what was signed? Of a broker, of an export, or of one row by its proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from adyton.cli import audit_check
from adyton.cli.administering import broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_line, say

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OWN = ("exported", "proof", "checkpoints", "start", "end", "keys")


@click.command()
@click.option("--export", "exported", type=_FILE, help="Recompute an export, offline.")
@click.option("--proof", type=_FILE, help="Check a proof, offline.")
@click.option("--checkpoint", "checkpoints", multiple=True, type=_FILE, help="A checkpoint that must be met.")
@click.option("--from", "start", type=_FILE, help="Begin after this checkpoint, which you kept.")
@click.option("--to", "end", type=_FILE, help="End at this checkpoint [default: one of now].")
@click.option(
    "--key", "keys", multiple=True, metavar="KEY", help="The log's key, or a file with it [default: as first met here]."
)
@broker_options
@json_option
def verify(as_json: bool, **options: Any) -> None:
    """Recompute the record, and name the first row that is not what was signed.

    Without a file: the broker's whole log, or what lies between two checkpoints; row by row on this machine, and by the
    broker itself against every checkpoint that it ever signed. With --export or --proof: offline.
    """
    exported, proof, checkpoints, start, end, keys = (options.pop(name) for name in _OWN)
    if (exported and (proof or start)) or ((exported or proof) and end):
        raise click.UsageError(
            "--export takes --checkpoint, --proof takes --checkpoint and --from; neither needs a broker"
        )
    if proof is not None:
        _proved(*audit_check.proof(proof, checkpoints, start, keys), as_json=as_json)
        return
    if exported is not None:
        _holds(audit_check.export(exported, checkpoints, keys), as_json=as_json)
        return
    if keys:
        raise click.UsageError("--key is for --export and --proof: a broker is asked for its key")
    with open_admin(**options) as admin:
        if not checkpoints and start is None and end is None:
            audit_check.by_broker(admin)
        _holds(audit_check.live(admin, options["tenant"], checkpoints, start, end), as_json=as_json)


def _holds(found: audit_check.Verified, *, as_json: bool) -> None:
    if as_json:
        print_json(found.as_json())
        return
    which = f"rows {found.first} to {found.last} are" if found.last >= found.first else "no row came since: all are"
    say(f"the log holds: {which} as they were signed, at {', '.join(map(str, found.checkpoints))} rows")
    click.echo(found.root.hex())


def _proved(newest: Any, what: Any, *, as_json: bool) -> None:
    from adyton.protocol.audit_row import AuditEntry

    if isinstance(what, AuditEntry):
        if as_json:
            row = msgspec.to_builtins(what)
            print_json({"verified": True, "origin": newest.origin, "size": newest.size, "row": row})
            return
        said = what.row
        say(f"proved: row {what.sequence} is in the log {newest.origin} of {newest.size} decisions")
        at = what.time.isoformat(timespec="seconds")
        print_line(f"{at}  {said.action}  {said.decision}  {said.resource or '-'}")
        for reason in said.reasons:
            print_line(f"  {reason}")
        return
    if as_json:
        print_json({"verified": True, "origin": newest.origin, "size": newest.size, "continues": what.size})
    else:
        say(f"proved: the log {newest.origin} of {newest.size} decisions begins with its first {what.size}, unchanged")
