"""``adyton reference provider``: who may publish which reference values, and with which keys they sign."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.binding import read_bytes
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.protocol.providers import ProviderSettings

_MAX_ENTRY = 1024 * 1024
KINDS = ("json", "in-toto", "slsa", "corim", "swid")
WORDS = ("unsigned-documents-i-accept", "inspections-not-run-i-accept")


@click.group(cls=Noun)
def provider() -> None:
    """Providers of reference values: nobody is one by default, and what an entry leaves empty is refused."""


@provider.command("set")
@click.argument("name")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The whole entry, as JSON.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM public key, or certificate whose key it is; repeatable.",
)
@click.option("--threshold", type=int, default=1, show_default=True, help="How many of the keys must have signed.")
@click.option("--name", "names", multiple=True, metavar="GLOB", help="Reference values that are its own; repeatable.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Documents it publishes; repeatable.")
@click.option("--builder", "builders", multiple=True, metavar="ID", help="SLSA: builder that is trusted; repeatable.")
@click.option("--build-type", "build_types", multiple=True, metavar="URI", help="SLSA: kind of build; repeatable.")
@click.option("--material", "materials", multiple=True, metavar="GLOB", help="SLSA: what may go in; repeatable.")
@click.option("--valid-days", type=int, help="Longest time that a document counts; needed where it names no end.")
@click.option("--accept", multiple=True, type=click.Choice(WORDS), help="Take a check away; repeatable.")
@broker_options
@json_option
def set_(name: str, file: Path | None, as_json: bool, **options: Any) -> None:
    """Set or replace the provider NAME. Values that it could not have published so are revoked at once."""
    members = ("keys", "threshold", "names", "kinds", "builders", "build_types", "materials", "valid_days", "accept")
    given = {member: options.pop(member) for member in members}
    settings = _from_file(file) if file is not None else _from_options(given)
    with open_admin(**options) as admin:
        view = admin.set_provider(name, settings)
    if as_json:
        print_json(_built(view))
        return
    say(f"{name} may publish {', '.join(settings.names)} as {', '.join(settings.kinds)}")
    for key in view.key_ids:
        say(f"  key sha256:{key}")
    for word in settings.accept:
        say(f"warning: {word}")
    _say_revoked(view.revoked)


@provider.command("list")
@broker_options
@json_option
def list_(as_json: bool, **options: Any) -> None:
    """All of them."""
    with open_admin(**options) as admin:
        views = admin.list_providers()
    if as_json:
        for view in views:
            print_json(_built(view))
    else:
        rows = ((v.name, " ".join(v.settings.names), " ".join(v.settings.kinds), str(len(v.key_ids))) for v in views)
        print_table(("provider", "names", "kinds", "keys"), rows)


@provider.command()
@click.argument("name")
@broker_options
@json_option
def show(name: str, as_json: bool, **options: Any) -> None:
    """One entry, as JSON that --file takes."""
    with open_admin(**options) as admin:
        view = admin.show_provider(name)
    print_json(_built(view) if as_json else _built(view.settings))


@provider.command()
@click.argument("name")
@broker_options
@json_option
def delete(name: str, as_json: bool, **options: Any) -> None:
    """Forget the provider NAME. Everything that it published is revoked at once."""
    with open_admin(**options) as admin:
        revoked = admin.delete_provider(name)
    if as_json:
        print_json({"deleted": name, "revoked": revoked})
    else:
        say(f"deleted {name}")
        _say_revoked(revoked)


def _say_revoked(names: list[str]) -> None:
    for name in names:
        say(f"revoked {name}")


def _from_file(file: Path) -> ProviderSettings:
    import msgspec

    from adyton.protocol.providers import ProviderSettings
    from adyton.wire import strict_json

    try:
        content = read_bytes(str(file), _MAX_ENTRY)
        strict_json.parse(content, max_size=_MAX_ENTRY)
        return msgspec.json.decode(content, type=ProviderSettings)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"the provider's entry cannot be read: {error}", code="file_unreadable", field=str(file)
        ) from error


def _from_options(given: dict[str, Any]) -> ProviderSettings:
    from adyton.protocol.providers import ProviderSettings

    lists = {member: list(value) for member, value in given.items() if isinstance(value, tuple)}
    lists["keys"] = [_pem(path) for path in given["keys"]]
    return ProviderSettings(**{**given, **lists})


def _pem(path: Path) -> str:
    """The public key in a file, which may hold a certificate instead."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        data = path.read_bytes()
        if b"BEGIN CERTIFICATE" in data:
            key = x509.load_pem_x509_certificate(data).public_key()
            return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
        text = data.decode("ascii")
    except (OSError, ValueError) as error:
        raise ConfigError(f"the key cannot be read: {error}", code="file_unreadable", field=str(path)) from error
    if "PRIVATE KEY" in text:
        raise ConfigError(
            "this is a private key: it does not belong to a verifier",
            code="provider_key_private",
            field=str(path),
            hint="openssl pkey -pubout writes its public half",
        )
    return text


def _built(value: object) -> object:
    from msgspec import to_builtins

    return to_builtins(value)
