"""``adyton audit``: what the broker decided, and proof that this is all of it. Strangers are told little; here is the rest."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from adyton.cli import audit_check, log_keys
from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.audit_verify import verify
from adyton.cli.files import write
from adyton.cli.output import json_option, print_json, print_line, print_table, say
from adyton.cli.seen import platforms, receivers
from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.client.admin import Admin

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=Noun)
def audit() -> None:
    """Read the broker's record of decisions, and prove what is in it."""


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
            # The row's own "version" is the resource's; the format's stays under its name.
            print_json({**{name: entry[name] for name in entry if name not in {"row", "version"}}, **entry["row"]})
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
@click.argument("decision", metavar="ROW")
@broker_options
@json_option
def show(decision: str, as_json: bool, **options: Any) -> None:
    """One row, by its number or by the id that a stranger was given; `adyton broker explain` says what it means."""
    with open_admin(**options) as admin:
        found = msgspec.to_builtins(admin.explain(decision).decision)
    if as_json:
        print_json(found)
        return
    row = found.pop("row")
    for name, value in {**found, **{f"row.{name}": row[name] for name in row}}.items():
        say_value(name, value)


def say_value(name: str, value: object) -> None:
    """One member on standard output, lists a line an item."""
    items = value if isinstance(value, list | tuple) and value else [value]
    for number, item in enumerate(items):
        print_line(f"{name if not number else '':24}{item}")


@audit.command()
@broker_options
@json_option
def key(as_json: bool, **options: Any) -> None:
    """The public key that signs this log's checkpoints, for whoever verifies elsewhere."""
    with open_admin(**options) as admin:
        found = log_keys.of_broker(admin)
    if as_json:
        print_json({"origin": found.name, "key": found.text(), "id": found.id.hex()})
    else:
        click.echo(found.text())


@audit.command()
@click.option("-o", "--output", type=_NEW, help="Write it there; an older checkpoint is replaced.")
@broker_options
@json_option
def checkpoint(output: Path | None, as_json: bool, **options: Any) -> None:
    """A signed checkpoint of the log as it is now: keep it, and nothing before it can be changed unnoticed."""
    with open_admin(**options) as admin:
        note, found = _signed(admin)
    if output is not None:
        write(output, note.encode())
    if as_json:
        print_json({"origin": found.origin, "size": found.size, "root": found.root.hex(), "checkpoint": note})
    elif output is None:
        click.echo(note, nl=False)
    else:
        say(f"{found.size} decisions: {output}")


def _signed(admin: Admin) -> tuple[str, Any]:
    """A checkpoint of now, under the key that this log had before."""
    from adyton.protocol import checkpoint as format_

    found = log_keys.of_broker(admin)
    note = admin.audit_checkpoint()
    return note, format_.verify(note, [found], origin=found.name)


@audit.command()
@click.argument("row", required=False)
@click.option(
    "--from", "start", type=_FILE, help="Prove that the log continues this older checkpoint, instead of a row."
)
@click.option("--checkpoint", "end", type=_FILE, help="Prove it for this checkpoint [default: one of now].")
@click.option("-o", "--output", type=_NEW, help="Write the proof there [default: standard output].")
@broker_options
@json_option
def prove(
    row: str | None, start: Path | None, end: Path | None, output: Path | None, as_json: bool, **options: Any
) -> None:
    """Prove that ROW (a number or an id) is in the log, as JSON that `audit verify --proof` checks offline."""
    if (row is None) == (start is None):
        raise click.UsageError("give a ROW, or --from CHECKPOINT")
    with open_admin(**options) as admin:
        found = log_keys.of_broker(admin)
        size = audit_check.read_checkpoint(end, [found.text()], origin=found.name).size if end else None
        proof: Any
        if row is not None:
            proof = admin.audit_inclusion(row, size)
        else:
            assert start is not None  # noqa: S101 -- one of them is given
            proof = admin.audit_consistency(
                audit_check.read_checkpoint(start, [found.text()], origin=found.name).size, size
            )
    if end is not None:
        proof = msgspec.structs.replace(proof, checkpoint=end.read_text("utf-8"))
    written = msgspec.json.encode(proof)
    if output is None:
        click.echo(written.decode())
        return
    write(output, written + b"\n")
    if as_json:
        print_json({"proof": str(output), "size": proof.size})
    else:
        say(f"proved for the log of {proof.size} decisions: {output}")


@audit.command()
@click.argument("output", type=_NEW)
@broker_options
@json_option
def export(output: Path, as_json: bool, **options: Any) -> None:
    """Write all rows to OUTPUT, a line each, byte for byte what is hashed, and their checkpoint to OUTPUT.checkpoint."""
    beside = Path(f"{output}.checkpoint")
    for file in (output, beside):
        if file.exists():
            raise ConfigError("the file is there already", code="file_exists", field=str(file))
    with open_admin(**options) as admin:
        note, found = _signed(admin)
        part = Path(f"{output}.part")
        try:
            with part.open("xb") as lines:
                count = 0
                for body in audit_check.rows(admin, 0, found.size):
                    lines.write(body + b"\n")
                    count += 1
            part.rename(output)
        except OSError as error:
            raise ConfigError(f"cannot write: {error.strerror}", code="file_unwritable", field=str(part)) from error
        finally:
            with suppress(OSError):
                part.unlink()
    write(beside, note.encode())
    if as_json:
        print_json({"rows": count, "origin": found.origin, "size": found.size, "root": found.root.hex()})
    else:
        say(f"{count} decisions: {output}, {beside}; check them with: adyton audit verify --export {output}")


audit.add_command(verify)
audit.add_command(platforms)
audit.add_command(receivers)
