"""``adyton broker backup`` and ``adyton broker restore``: the store while it is served, without what would open it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton.cli.bars import Bars
from adyton.cli.custody_options import all_opening_options, openers
from adyton.cli.ending import put_away_when_ended
from adyton.cli.output import json_option, print_json, say
from adyton.cli.places import places
from adyton.errors import AdytonError, ConfigError

if TYPE_CHECKING:
    from adyton.protocol.backup import Manifest
    from adyton.protocol.checkpoint import Checkpoint
    from adyton.stores.custody.keyring import Openers
    from adyton.stores.sql import Database

_FILE = click.Path(dir_okay=False, path_type=Path)
_DATA = click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="The broker's data directory.")
_PLAIN = click.option("--root-key-file", type=_FILE, help="Where the plain file is [default: root.key in --data].")


@click.command()
@click.argument("destination", type=click.Path(path_type=Path))
@_DATA
@_PLAIN
@click.option(
    "--keep-passphrase-slots", is_flag=True, help="Leave them in: whoever has the copy may then guess for ever."
)
@all_opening_options
@json_option
def backup(
    destination: Path,
    data: Path | None,
    root_key_file: Path | None,
    keep_passphrase_slots: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Back up to DESTINATION, a directory or a .tar, while the broker serves. No root key, token or TLS key is in it.

    With the root key at hand (a plain file, TPM or device, or --passphrase-file) the backup is authenticated under it.
    """
    from adyton.broker.running.process import harden
    from adyton.stores.backup import make

    harden(0)
    put_away_when_ended()
    directory = (data or places().broker).absolute()
    opening = openers(options, ask=False)
    _here(directory)
    _sign_checkpoints(directory)
    with Bars(quiet=as_json) as bars:
        manifest = make(
            directory,
            destination.absolute(),
            datetime.fromtimestamp(time.time(), UTC),
            bars,
            root_key=_at_hand(directory, root_key_file, opening),
            keep_passphrase_slots=keep_passphrase_slots,
        )
    if as_json:
        print_json({"backup": str(destination), **_told(manifest)})
        return
    say(f"backup     {destination}  ({manifest.size} bytes, {sum(one.size for one in manifest.logs)} decisions)")
    if not manifest.mac:
        say("authentic  no: the root key is not at hand; digests and checkpoints only")
    if manifest.left_out:
        say(f"left out   passphrase slots: {', '.join(manifest.left_out)}")
    if not manifest.slots:
        say(
            click.style("warning    ", fg="yellow")
            + "nothing in it opens it: keep the root key elsewhere, apart from it"
        )


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--data", required=True, type=click.Path(file_okay=False, path_type=Path), help="An empty directory, or none yet."
)
@_PLAIN
@click.option("--checkpoint", "checkpoints", multiple=True, type=_FILE, help="A checkpoint that you hold. Repeatable.")
@click.option("--log-key", "log_keys", multiple=True, help="The log's key, to verify --checkpoint with. Repeatable.")
@click.option(
    "--unauthenticated-backup-i-accept",
    "unauthenticated",
    is_flag=True,
    help="Also one that bears no MAC, though the root key is at hand to verify it with.",
)
@all_opening_options
@json_option
def restore(  # noqa: PLR0917 -- click gives each option by name
    source: Path,
    data: Path,
    root_key_file: Path | None,
    checkpoints: tuple[Path, ...],
    log_keys: tuple[str, ...],
    unauthenticated: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Restore SOURCE into an empty directory: whole and checked, or not at all."""
    from adyton.broker.running.process import harden
    from adyton.stores.restore import restore as restored

    harden(0)
    put_away_when_ended()
    opening = openers(options, ask=False)
    plain = root_key_file.absolute() if root_key_file else None

    def root_key(database: Database) -> bytes | None:
        from adyton.stores.custody import keyring

        try:
            found = keyring.unlock(database, plain or data / "root.key", opening)
        except AdytonError:
            if plain is not None or opening.passphrase is not None:
                raise
            return None
        return found.root_key if found is not None else None

    held = [_checkpoint(path, log_keys) for path in checkpoints]
    with Bars(quiet=as_json) as bars:
        manifest, authentic = restored(
            source,
            data.absolute(),
            bars,
            checkpoints=held,
            root_key=root_key,
            unauthenticated=unauthenticated,
        )
    if as_json:
        print_json({"data": str(data), "authentic": authentic, **_told(manifest)})
        return
    say(f"restored   {data}  (the store as it was at {manifest.created})")
    unknown = "the root key is not at hand" if manifest.mac else "it bears no MAC of the root key"
    say("authentic  " + ("yes, by its root key" if authentic else f"not known: {unknown}"))
    if not held:
        say(
            click.style("warning    ", fg="yellow")
            + "no --checkpoint: an older backup cannot be told from the last one"
        )
    say(
        "next       adyton broker serve, with the root key that it had then; what was revoked since is not revoked here"
    )


def _told(manifest: Manifest) -> dict[str, Any]:
    from msgspec import to_builtins

    said: dict[str, Any] = to_builtins(manifest)
    return {**said, "mac": bool(manifest.mac)}


def _at_hand(directory: Path, root_key_file: Path | None, opening: Openers) -> bytes | None:
    """The root key if a custodian opens it without asking anybody."""
    from adyton.stores.backup import CopiedFile
    from adyton.stores.custody import keyring
    from adyton.stores.sqlite import FILE

    plain = root_key_file.absolute() if root_key_file else directory / "root.key"
    if not (directory / FILE).exists():
        return None
    database = CopiedFile(directory / FILE, served=True)
    try:
        found = keyring.unlock(database, plain, opening)
        return found.root_key if found is not None else None
    except AdytonError:
        if opening.passphrase is not None or root_key_file is not None:
            raise
        return None
    finally:
        database.close()


def _here(directory: Path) -> None:
    """``ConfigError`` ``backup_elsewhere`` if the store of the broker that was last started here is a shared database.

    A file that lies there too is an older store, which that broker does not use.
    """
    import json

    try:
        database = json.loads((directory / "broker.json").read_text()).get("database")
    except (OSError, ValueError, AttributeError):
        return
    if database:
        raise ConfigError(
            f"this broker's store is the {database}: a PostgreSQL database is backed up with its own tools",
            code="backup_elsewhere",
            field=str(directory),
            got=str(database),
            hint=f"pg_dump --format=custom --serializable-deferrable (or pg_basebackup with WAL archiving); keep the root key "
            f"({directory / 'root.key'}, or what its custodians need: adyton broker root-key) and a signed checkpoint of each "
            "log (adyton audit checkpoint) apart from the dump",
        )


def _sign_checkpoints(directory: Path) -> None:
    """Have the broker, if it serves here, sign where its logs stand now; without it the last ones count."""
    import json

    from adyton.client.address import BrokerAddress
    from adyton.client.admin import Admin
    from adyton.stores.backup import CopiedFile
    from adyton.stores.sqlite import FILE

    try:
        described = json.loads((directory / "broker.json").read_text())
        token = Path(described["admin_token_file"]).read_text("ascii")
    except (OSError, ValueError, KeyError, TypeError):
        return
    database = CopiedFile(directory / FILE, served=True)
    try:
        tenants = [row[0] for row in database.read("SELECT DISTINCT tenant FROM audit")]
    finally:
        database.close()
    for tenant in tenants:
        try:
            with Admin(BrokerAddress(described["url"], pin=described.get("pin"), tenant=tenant), token) as admin:
                admin.audit_checkpoint()
        except AdytonError as error:
            say(f"checkpoint {tenant}: not signed anew [{error.code}]")


def _checkpoint(path: Path, log_keys: tuple[str, ...]) -> Checkpoint:
    from adyton.protocol import checkpoint
    from adyton.protocol.checkpoint import LogKey

    try:
        note = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the checkpoint cannot be read", code="file_unreadable", field=str(path)) from error
    if log_keys:
        return checkpoint.verify(note, [LogKey.parse(text) for text in log_keys])
    return checkpoint.parse(note)
