"""Options of every noun that administers a broker, and the client they open.

Where they are not given: ``ADYTON_BROKER``, ``ADYTON_ADMIN_KEY`` and ``ADYTON_ADMIN_TOKEN_FILE``, then the ``broker.json`` that a broker on
this machine writes into its data directory while it runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adyton.cli.output import print_json
from adyton.cli.places import places
from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.client.address import BrokerAddress
    from adyton.client.admin import Admin

_F = TypeVar("_F", bound=Callable[..., Any])
_MAX_TOKEN_FILE = 64 * 1024

_OPTIONS = (
    click.option("--broker", metavar="URL", help="The broker's address [default: the broker of this machine]."),
    click.option(
        "--admin-token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File that holds the admin token, a personal token, or a JWT of your identity provider.",
    ),
    click.option(
        "--admin-key",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Your Ed25519 private key (PEM), instead of a token: each request is signed with it.",
    ),
    click.option("--broker-pin", metavar="PIN", help="sha256:<hex> of the SPKI of the broker's certificate."),
    click.option("--tenant", default="default", show_default=True, help="Whose things they are."),
    click.option("--insecure-http", is_flag=True, help="Send secrets over plain http to another machine."),
    click.option(
        "--unattested-broker-i-accept",
        "unattested",
        is_flag=True,
        help="Send secrets to a broker elsewhere that nobody attested or pinned.",
    ),
)


class Verb(click.Command):
    """A command whose usage errors are one JSON object too when ``--json`` was asked for."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """As every command's; remembers whether JSON was asked for, since a command line that is wrong is never parsed."""
        wanted = "--json" in args and not (parent is not None and isinstance(parent.command, Verb))  # that one tells
        try:
            ctx = super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            tell(error, wanted=wanted)
            raise
        ctx.meta.setdefault(_WANTED, (self, wanted))
        return ctx

    def invoke(self, ctx: click.Context) -> Any:
        """As every command's."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            outermost, wanted = ctx.meta[_WANTED]
            tell(error, wanted=wanted and outermost is self)
            raise


class Noun(Verb, click.Group):
    """A group of which the same is true."""


_WANTED = "adyton.json"


def tell(error: click.ClickException, *, wanted: bool) -> None:
    """Print a usage error as JSON if it is ``wanted``."""
    if wanted and not isinstance(error, click.exceptions.NoArgsIsHelpError):
        print_json({"error": ConfigError(error.format_message(), code="usage").as_dict()})


def broker_options(command: _F) -> _F:
    """``--broker`` and how it is known, ``--admin-token-file``, ``--admin-key``, ``--tenant``, ``--insecure-http``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def local_broker() -> dict[str, Any]:
    """What the broker of this machine wrote about itself, or an empty object."""
    try:
        described = json.loads((places().broker / "broker.json").read_text())
    except (OSError, ValueError):
        return {}
    return described if isinstance(described, dict) else {}


def address(broker: str | None, broker_pin: str | None, tenant: str, *, insecure_http: bool = False) -> BrokerAddress:
    """The broker that the options, the environment or this machine's ``broker.json`` name."""
    from adyton.client.address import BrokerAddress

    local = local_broker()
    url = broker or os.environ.get("ADYTON_BROKER") or local.get("url")
    if not url:
        raise ConfigError(
            "no broker is named and none runs on this machine",
            code="broker_unknown",
            field="broker",
            hint="start one: adyton broker serve; or give --broker URL (and --broker-pin)",
        )
    pin = broker_pin or os.environ.get("ADYTON_BROKER_PIN")
    if pin is None and url.rstrip("/") == str(local.get("url", "")).rstrip("/"):
        pin = local.get("pin")
    return BrokerAddress(url, pin=pin, tenant=tenant, insecure_http=insecure_http)


def open_admin(  # noqa: PLR0917 -- the options of broker_options
    broker: str | None,
    admin_token_file: Path | None,
    broker_pin: str | None,
    tenant: str,
    insecure_http: bool,
    admin_key: Path | None = None,
    unattested: bool = False,
) -> Admin:
    """A client with the admin's token, or one that signs with a key; for a broker that secrets may be sent to."""
    from adyton.cli.known import for_secrets
    from adyton.client.admin import Admin

    where = address(broker, broker_pin, tenant, insecure_http=insecure_http)
    own = local_broker()
    ours = where.url.rstrip("/") == str(own.get("url", "")).rstrip("/") and where.pin == own.get("pin")
    where = for_secrets(where, ours=ours, accept=unattested)
    if admin_key is None and admin_token_file is None and "ADYTON_ADMIN_KEY" in os.environ:
        admin_key = Path(os.environ["ADYTON_ADMIN_KEY"])
    if admin_key is not None:
        if admin_token_file is not None:
            raise ConfigError(
                "--admin-key and --admin-token-file contradict each other", code="setting_invalid", field="admin-key"
            )
        return Admin(where, _signing(admin_key, [canonical(url) for url in where.urls]))
    named = admin_token_file or os.environ.get("ADYTON_ADMIN_TOKEN_FILE")
    local = local_broker()
    if not named and where.url.rstrip("/") == str(local.get("url", "")).rstrip("/"):
        named = local.get("admin_token_file")  # this broker's token is for this broker; no other gets to see it
    if not named:
        raise ConfigError(
            "no admin token",
            code="admin_token_missing",
            field="admin-token-file",
            hint="adyton broker serve prints where its admin token is; give --admin-token-file",
        )
    try:
        with Path(named).open("rb") as opened:
            token = opened.read(_MAX_TOKEN_FILE).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the admin token's file cannot be read",
            code="admin_token_unreadable",
            field=str(named),
            hint="administering needs the broker owner's token; is the file yours?",
        ) from error
    return Admin(where, token)


def canonical(url: str) -> str:
    """How a token names the broker at ``url``: scheme, host and port; what is no URL, as it is."""
    from adyton.client.known_brokers import origin

    try:
        return origin(url) if "://" in url else url
    except ValueError as error:
        raise ConfigError("not an address", code="setting_invalid", field="url", got=url[:200]) from error


def _signing(file: Path, where: list[str]) -> Callable[[], str]:
    """What makes a token of five minutes for the broker at ``where``, signed with the key in ``file``.

    ``adyton`` is in it for brokers that ask for no more.
    """
    import time

    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from adyton.crypto import jws

    try:
        with file.open("rb") as opened:
            key = load_pem_private_key(opened.read(_MAX_TOKEN_FILE), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")  # noqa: TRY004 -- a wrong value in a file
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            "the admin key cannot be used",
            code="admin_key_unusable",
            field=str(file),
            expected="an Ed25519 private key, PEM, without a passphrase",
            hint="openssl genpkey -algorithm ed25519",
        ) from error
    signing = key

    def made() -> str:
        now = int(time.time())
        return jws.sign(signing, {"aud": ["adyton", *where], "iat": now, "exp": now + 300})

    return made
