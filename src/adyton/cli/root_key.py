"""``adyton broker root-key``: who holds the key that seals the store. On the broker's machine only, never over the API."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adyton.cli.administering import Noun
from adyton.cli.custody_options import all_opening_options, check_name, new_custodian, new_options, openers, passphrase
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.cli.places import places
from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.broker.custodians.root_key import Custody
    from adyton.stores.custody.keyring import Openers

_FILE = click.Path(dir_okay=False, path_type=Path)
_DATA = click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="The broker's data directory.")
_PLAIN_OPTION = click.option(
    "--root-key-file", type=_FILE, help="Where the plain file is [default: root.key in --data]."
)
_DATABASE = click.option(
    "--database",
    envvar="ADYTON_DATABASE",
    metavar="URL",
    help="The PostgreSQL database that the store is in (as serve's).",
)
_PASSWORD = click.option("--database-password-file", type=_FILE, help="Its password: a file that only you read.")
_F = TypeVar("_F", bound=Callable[..., Any])


def _store_options(command: _F) -> _F:
    """Which store: ``--data``, ``--root-key-file``, ``--database``, ``--database-password-file``."""
    for option in (_PASSWORD, _DATABASE, _PLAIN_OPTION, _DATA):
        command = option(command)
    return command


@click.group("root-key", cls=Noun)
def root_key() -> None:
    """Who holds the root key: a file, a passphrase, a TPM, an HSM or KMS, owners with threshold shares."""
    from adyton.broker.running.process import harden

    harden(0)  # before a passphrase or a share is read


@root_key.command()
@_store_options
@new_options
@all_opening_options
@json_option
def init(as_json: bool, **options: Any) -> None:
    """Make a new store whose root key never lies in a plain file."""
    from adyton.broker.custodians.root_key import PLAIN

    custodian, name = new_custodian(options)
    if custodian is None:
        raise ConfigError(
            f"the broker makes the plain {PLAIN} itself at its first start",
            code="setting_invalid",
            field="custody",
            hint="adyton broker serve",
        )
    with _custody(options, openers(options), alone=True, new=True) as custody:
        custody.begin(custodian, name)
        _show(custody, as_json=as_json)


@root_key.command()
@_store_options
@json_option
def show(as_json: bool, **options: Any) -> None:
    """List the slots, without opening any."""
    from adyton.stores.custody.keyring import Openers

    with _custody(options, Openers(), alone=False) as custody:
        _show(custody, as_json=as_json)


@root_key.command()
@_store_options
@new_options
@all_opening_options
@json_option
def add(as_json: bool, **options: Any) -> None:
    """Let another custodian hold the same root key. The broker may be running."""
    custodian, name = new_custodian(options)
    with _custody(options, openers(options), alone=False) as custody:
        if custodian is None:
            custody.keep_plain()
        else:
            custody.add(custodian, name)
        _show(custody, as_json=as_json)


@root_key.command()
@click.argument("slot")
@_store_options
@all_opening_options
@json_option
def remove(slot: str, as_json: bool, **options: Any) -> None:
    """Take a custodian's slot away; who could open it may have kept the root key: rotate it as well."""
    with _custody(options, openers(options), alone=False) as custody:
        custody.remove(slot)
        _show(custody, as_json=as_json)


@root_key.command()
@_store_options
@all_opening_options
@json_option
def rotate(as_json: bool, **options: Any) -> None:
    """Make a new root key for the same custodians; the old one opens nothing afterwards. The broker must be stopped."""
    with _custody(options, openers(options), alone=True) as custody:
        custody.rotate()
        _show(custody, as_json=as_json)


@root_key.command()
@_store_options
@new_options
@all_opening_options
@click.option("--keep", "kept", multiple=True, metavar="SLOT", help="A slot that stays. Repeatable.")
@json_option
def change(kept: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Make a new root key for one custodian (and --keep) and for nobody else. The broker must be stopped."""
    custodian, name = new_custodian(options)
    with _custody(options, openers(options), alone=True) as custody:
        for wanted in kept:
            _known(custody, wanted)
        custody.change(custodian, name, keep=lambda slot: slot.name in kept)
        _show(custody, as_json=as_json)


@root_key.command()
@_store_options
@click.option("--owner", "owners", multiple=True, required=True, type=_FILE, help="An owner's public key (PEM).")
@click.option("--threshold", type=int, required=True, help="How many owners are needed.")
@click.option("--slot", default="shares", show_default=True, help="The slot's name.")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the shares go."
)
@all_opening_options
@json_option
def split(
    owners: tuple[Path, ...],
    threshold: int,
    slot: str,
    output: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Give each owner a share, sealed to the owner's key; THRESHOLD of them open the store when nothing else does."""
    from adyton.protocol import shares
    from adyton.stores.custody import private_file

    check_name(slot)
    keys = [(path.stem, shares.owner_key(_read(path), str(path))) for path in owners]
    files = [output / f"share-{number}-{name}.json" for number, (name, _) in enumerate(keys, 1)]
    for path in files:
        if path.exists():
            raise ConfigError("the file is there already", code="secret_file_exists", field=str(path))
    try:
        output.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("cannot make the directory", code="secret_file_unwritable", field=str(output)) from error
    with _custody(options, openers(options), alone=False) as custody:
        sealed = custody.split(keys, threshold, slot)
        written: list[Path] = []
        try:
            for path, content in zip(files, sealed, strict=True):
                private_file.write(path, content)
                written.append(path)
        except BaseException:  # shares of which some never came to be must not pass for a way back
            for path in written:
                path.unlink(missing_ok=True)
            custody.remove(slot)
            raise
    for path, content in zip(files, sealed, strict=True):
        if as_json:
            print_json({"file": str(path), **shares.described(content)})
        else:
            say(f"share      {path}")


@root_key.command("decrypt-share")
@click.argument("share", type=_FILE)
@click.option("--key", required=True, type=_FILE, help="The owner's private key (PEM, mode 0600).")
@click.option("--passphrase-file", type=_FILE, help="The private key's own passphrase, in a 0600 file.")
@click.option("-o", "--output", required=True, type=_FILE, help="Where the opened share goes (mode 0600).")
@json_option
def decrypt_share(share: Path, key: Path, passphrase_file: Path | None, output: Path, as_json: bool) -> None:
    """Open one's own share, on one's own machine, to hand it to who recovers the store."""
    from adyton.protocol import shares
    from adyton.stores.custody import private_file

    password = passphrase(passphrase_file, None) if passphrase_file else None
    private = shares.private_key(private_file.read(key, "the private key's file"), str(key), password)
    sealed = _read(share)
    private_file.write(output, shares.open_(sealed, private))
    if as_json:
        print_json({"file": str(output), **shares.described(sealed)})
    else:
        say(f"share      {output}  (secret: hand it over on a way that you trust, then delete it)")


@root_key.command()
@_store_options
@click.option("--share", "given", multiple=True, required=True, type=_FILE, help="An opened share. Repeatable.")
@new_options
@all_opening_options
@json_option
def recover(given: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Open the store with the owners' shares, and give it to a custodian anew. The broker must be stopped."""
    from adyton.protocol import shares
    from adyton.stores.custody import private_file

    custodian, name = new_custodian(options)
    parsed = [shares.parse(private_file.read(path, "a share's file")) for path in given]
    with _custody(options, openers(options), alone=True) as custody:
        opened = custody.recover(parsed)
        if custodian is None:
            custody.keep_plain(opened)
        else:
            custody.add(custodian, name, opened, replace=True)
        _show(custody, as_json=as_json)


def _custody(
    options: dict[str, Any], opening: Openers, *, alone: bool, new: bool = False
) -> AbstractContextManager[Custody]:
    from adyton.broker.custodians import root_key as office
    from adyton.broker.settings import Settings

    def absolute(name: str) -> str:
        return str(options[name].absolute()) if options[name] else ""

    settings = Settings(
        data=absolute("data") or str(places().broker.absolute()),
        root_key_file=absolute("root_key_file"),
        database=options["database"] or "",
        database_password_file=absolute("database_password_file"),
    )
    return office.of(settings, opening, datetime.fromtimestamp(time.time(), UTC), alone=alone, new=new)


def _known(custody: Custody, name: str) -> None:
    from adyton.stores.custody import slots

    slots.one(custody.database, name)


def _show(custody: Custody, *, as_json: bool) -> None:
    shown = custody.show()
    if as_json:
        print_json(
            {
                "root": shown.root,
                "store": shown.store,
                "file": shown.plain or None,
                "slots": [
                    {
                        "name": slot.name,
                        "kind": slot.kind,
                        "created": slot.created.isoformat(),
                        **_told(slot.kept.details),
                    }
                    for slot in shown.slots
                ],
            }
        )
        return
    rows: list[tuple[str, str, str, str]] = [("-", "file", "-", shown.plain)] if shown.plain else []
    for slot in shown.slots:
        told = ", ".join(f"{name} {value}" for name, value in _told(slot.kept.details).items())
        rows.append((slot.name, slot.kind, slot.created.isoformat(timespec="seconds"), told))
    print_table(("slot", "custody", "since", "how"), rows)


def _told(details: dict[str, Any]) -> dict[str, Any]:
    """What tells a person which one it is."""
    told: dict[str, Any] = {
        name: details[name] for name in ("kdf", "memory_kib", "holder", "handle") if name in details
    }
    if isinstance(pcrs := details.get("pcrs"), dict):
        told["pcrs"] = ",".join(pcrs)
    if isinstance(one := details.get("set"), dict):
        told["threshold"] = f"{one.get('threshold')} of {len(one.get('shares', ()))}"
        told["owners"] = ",".join(details.get("names", ()))
    return told


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", code="file_unreadable", field=str(path)) from error
