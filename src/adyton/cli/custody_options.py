"""Options of those commands that open the root key, and where a passphrase is read: a descriptor, a 0600 file, a terminal.

Never from an argument or the environment: both can be read by others, and stay in histories and logs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.stores.backends.configured import Backends
    from adyton.stores.backends.port import KeyHolder
    from adyton.stores.custody.keyring import Openers
    from adyton.stores.custody.port import Custodian

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = click.Path(dir_okay=False, path_type=Path)
DEFAULT_TPM = "device:/dev/tpmrm0"

_OPENING = (
    click.option("--passphrase-file", type=_FILE, help="Open a passphrase slot with what this 0600 file holds."),
    click.option("--passphrase-fd", type=int, metavar="N", help="Open it with what this inherited descriptor gives."),
    click.option("--tpm", "tcti", default=DEFAULT_TPM, show_default=True, metavar="TCTI", help="Where the TPM is."),
)
_BACKENDS = click.option("--backends", type=_FILE, help="The file that names HSMs, Vaults and KMS (as serve's).")
_NEW = (
    click.option("--custody", type=click.Choice(["file", "passphrase", "tpm", "kms"]), required=True, help="Who."),
    click.option("--slot", help="The slot's name [default: the kind of custody]."),
    click.option("--new-passphrase-file", type=_FILE, help="The new slot's passphrase, in a 0600 file."),
    click.option("--new-passphrase-fd", type=int, metavar="N", help="The new slot's passphrase, from a descriptor."),
    click.option(
        "--kdf",
        type=click.Choice(["argon2id", "pbkdf2"]),
        default="argon2id",
        show_default=True,
        help="How a new passphrase is stretched; a broker with --fips opens pbkdf2 alone.",
    ),
    click.option("--pcrs", default="0,2,4,7", show_default=True, help="What the TPM seals to (SHA-256 bank)."),
    click.option("--backend", metavar="NAME", help="Which back end of --backends."),
    click.option("--backend-key", metavar="HANDLE", help="The key there that wraps the slot [default: a new one]."),
)


def opening_options(command: _F) -> _F:
    """``--passphrase-file``, ``--passphrase-fd``, ``--tpm``."""
    for option in reversed(_OPENING):
        command = option(command)
    return command


def all_opening_options(command: _F) -> _F:
    """As ``opening_options``, with ``--backends`` for who has no such option of its own."""
    return opening_options(_BACKENDS(command))


def new_options(command: _F) -> _F:
    """``--custody`` and what each needs."""
    for option in reversed(_NEW):
        command = option(command)
    return command


def openers(options: dict[str, Any], *, ask: bool = True) -> Openers:
    """The custodians that the options name; a terminal is asked for a passphrase only when a slot needs it, if at all."""
    from adyton.stores.custody.keyring import Openers

    file, descriptor = options.pop("passphrase_file"), options.pop("passphrase_fd")
    tcti, backends = options.pop("tcti"), options.pop("backends")
    given: Callable[[], bytes] | None = None
    if file is not None or descriptor is not None:
        given = partial(bytes, passphrase(file, descriptor))
    elif ask and sys.stdin.isatty():
        given = partial(_prompted, "passphrase of the root key", twice=False)
    return Openers(passphrase=given, tcti=tcti, holders=_holders(backends) if backends else None)


def new_custodian(options: dict[str, Any]) -> tuple[Custodian | None, str]:
    """Who shall hold it, and the slot's name; ``None`` is the plain file."""
    kind = options.pop("custody")
    name = options.pop("slot") or kind
    file, descriptor = options.pop("new_passphrase_file"), options.pop("new_passphrase_fd")
    kdf = options.pop("kdf")
    pcrs, backend, handle = options.pop("pcrs"), options.pop("backend"), options.pop("backend_key")
    tcti, backends = options["tcti"], options["backends"]
    check_name(name)
    match kind:
        case "passphrase":
            from adyton.crypto.profile import ARGON2ID, PBKDF2
            from adyton.stores.custody.passphrase import PassphraseCustodian

            given = file is not None or descriptor is not None
            if not given and not sys.stdin.isatty():
                raise ConfigError(
                    "a passphrase is needed, and there is no terminal to ask",
                    code="passphrase_unreadable",
                    field="new-passphrase-file",
                    hint="--new-passphrase-file FILE (mode 0600) or --new-passphrase-fd N",
                )
            words = passphrase(file, descriptor) if given else _prompted("new passphrase", twice=True)
            return PassphraseCustodian(words, kdf=PBKDF2 if kdf == "pbkdf2" else ARGON2ID), name
        case "tpm":
            from adyton.stores.custody.tpm import TpmCustodian

            return TpmCustodian(tcti, _pcrs(pcrs)), name
        case "kms":
            from adyton.stores.backends.port import KeyKind
            from adyton.stores.custody.device import DeviceCustodian

            if not backends or not backend:
                raise ConfigError(
                    "which device?",
                    code="setting_invalid",
                    field="backend",
                    expected="--backends FILE --backend NAME",
                )
            holder = _holders(backends)(backend)
            handle = handle or holder.generate(KeyKind.AES_256, f"adyton-root-key-{name}")
            return DeviceCustodian(holder, handle, backend), name
    return None, name


def check_name(name: str) -> str:
    """A slot's name has 1 to 40 letters, digits, ``-`` and ``_``."""
    if not (0 < len(name) <= 40 and name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
        raise ConfigError(
            "a slot's name has 1 to 40 letters, digits, '-' and '_'", code="slot_name", field="slot", got=name[:60]
        )
    return name


def passphrase(file: Path | None, descriptor: int | None) -> bytes:
    """What the file or the descriptor gives."""
    from adyton.stores.custody import private_file
    from adyton.stores.custody.passphrase import MAX_LENGTH, cleaned

    if file is not None and descriptor is not None:
        raise ConfigError("a file and a descriptor: which one?", code="setting_invalid", field="passphrase")
    if file is not None:
        return cleaned(private_file.read(file, "the passphrase's file"), str(file))
    assert descriptor is not None  # noqa: S101 -- one of them is given
    try:
        with os.fdopen(descriptor, "rb") as stream:
            return cleaned(stream.read(MAX_LENGTH + 2), f"descriptor {descriptor}")
    except OSError as error:
        raise ConfigError(
            "the passphrase's descriptor cannot be read", code="passphrase_unreadable", field="passphrase-fd"
        ) from error


def _prompted(text: str, *, twice: bool) -> bytes:
    from adyton.stores.custody.passphrase import cleaned

    said: str = click.prompt(text, hide_input=True, confirmation_prompt=twice, err=True)
    return cleaned(said.encode())


def _pcrs(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise ConfigError("these are no PCRs", code="tpm_pcrs", field="pcrs", expected="0,2,4,7", got=text[:60])
    return tuple(int(part) for part in parts)


def _holders(file: Path) -> Callable[[str], KeyHolder]:
    """Devices by the names that the file gives them; it is read when the first one is needed."""
    opened: list[Backends] = []

    def named(name: str) -> KeyHolder:
        from adyton.stores.backends.configured import Backends

        if not opened:
            opened.append(Backends.read(str(file.absolute())))
        return opened[0].key_holder(name)

    return named
