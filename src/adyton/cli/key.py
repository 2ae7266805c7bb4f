"""``adyton key``: keys that are made, kept, turned and destroyed inside the broker. No value comes out here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adyton.cli import key_use
from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.binding import binding_of, binding_options, read_bytes, said_who
from adyton.cli.output import json_option, print_json, print_line, print_table, say

if TYPE_CHECKING:
    from adyton.protocol.key_record import CertificateRequest
    from adyton.protocol.keys import KeyView

_FORMATS = click.Choice(["pem", "der", "jwk", "raw"])
_VERSION = click.option("--version", type=click.IntRange(min=1), help="[default: the newest]")
_SETTINGS = (
    click.option("--never-export", is_flag=True, help="It never leaves, for ever: it is only used where it is."),
    click.option(
        "--operation", "may", multiple=True, help="What workloads may do with it at all [default: all it can]."
    ),
    click.option("--owner-may", multiple=True, metavar="OPERATION", help="What you may do with it [default: nothing]."),
)
_CERTIFICATE = (
    click.option("--subject", help="Common name in a certificate from the tenant's authority."),
    click.option("--name", "names", multiple=True, help="DNS name, IP address or URI in it. Repeatable."),
    click.option("--days", type=int, default=365, show_default=True, help="How long the certificate is valid."),
)


_F = TypeVar("_F", bound=Callable[..., Any])


def _all(*options: Callable[[Any], Any]) -> Callable[[_F], _F]:
    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group(cls=Noun)
def key() -> None:
    """Keys that need not leave: generate, import, rotate, use, disable and destroy them (kbs:///repository/type/tag)."""


@key.command()
@click.argument("uri")
@click.option(
    "--kind", default="aes-256", show_default=True, help="aes-128 … rsa-4096, p-256, ed25519, hmac-256, random."
)
@click.option("--size", type=int, default=0, help="Bytes, of random ones.")
@_all(*_SETTINGS, *_CERTIFICATE)
@click.option("--backend", default="", help="The back end that makes and keeps it [default: this broker].")
@binding_options
@broker_options
@json_option
def generate(uri: str, kind: str, size: int, as_json: bool, **options: Any) -> None:
    """Make a key at URI, inside. Without a binding nobody gets or uses it until one is given (adyton resource bind)."""
    _create(uri, kind, size, None, as_json, options)


@key.command("import")
@click.argument("uri")
@click.option("--kind", required=True, help="What it is: as of generate, or opaque for any bytes with versions.")
@click.option("--file", "-f", required=True, type=click.Path(allow_dash=True), help="The key; - reads stdin.")
@click.option("--format", "form", type=_FORMATS, default="pem", show_default=True)
@_all(*_SETTINGS, *_CERTIFICATE)
@binding_options
@broker_options
@json_option
def import_(uri: str, kind: str, file: str, form: str, as_json: bool, **options: Any) -> None:
    """Bring a key in. PEM may hold its certificate chain too."""
    _create(uri, kind, 0, (form, read_bytes(file, key_use.MAX_INPUT)), as_json, {**options, "backend": ""})


def _create(  # noqa: PLR0917 -- one value each
    uri: str, kind: str, size: int, value: tuple[str, bytes] | None, as_json: bool, options: dict[str, Any]
) -> None:
    import msgspec

    from adyton.client.keys import Keys
    from adyton.protocol.keys import NewKey, ValueBody
    from adyton.protocol.resource import ResourcePath

    path = ResourcePath.parse(uri)
    may = options.pop("may")
    body = NewKey(
        kind,
        binding_of(options),
        size,
        msgspec.convert({"format": value[0], "data": value[1]}, ValueBody) if value else None,
        options.pop("never_export"),
        list(may) or None,
        list(options.pop("owner_may")),
        _certificate(options),
        backend=options.pop("backend"),
    )
    with open_admin(**options) as admin:
        view = Keys(admin).create(path, body)
    said(view, as_json)
    if not as_json and view.binding.is_empty:
        say(f"nobody gets or uses it: give a binding with adyton resource bind {view.uri} --workload DIGEST")


def _certificate(options: dict[str, Any]) -> CertificateRequest | None:
    from adyton.protocol.key_record import CertificateRequest

    subject, names, days = options.pop("subject"), options.pop("names"), options.pop("days")
    if subject is None and not names:
        return None
    if not names:
        raise click.UsageError("a certificate needs a --name")
    return CertificateRequest(subject or names[0][:64], list(names), days)


@key.command()
@click.argument("uri")
@click.option("--file", "-f", type=click.Path(allow_dash=True), help="The new version, of a key that was imported.")
@click.option("--format", "form", type=_FORMATS, default="pem", show_default=True)
@_all(*_CERTIFICATE)
@broker_options
@json_option
def rotate(uri: str, file: str | None, form: str, as_json: bool, **options: Any) -> None:
    """Make one more version, the newest from then on. Older ones still decrypt and verify until they are destroyed."""
    import msgspec

    from adyton.client.keys import Keys
    from adyton.protocol.keys import RotateBody, ValueBody
    from adyton.protocol.resource import ResourcePath

    path = ResourcePath.parse(uri)
    value = msgspec.convert({"format": form, "data": read_bytes(file, key_use.MAX_INPUT)}, ValueBody) if file else None
    body = RotateBody(value, _certificate(options))
    with open_admin(**options) as admin:
        said(Keys(admin).rotate(path, body), as_json)


@key.command("list")
@broker_options
@json_option
def list_(as_json: bool, **options: Any) -> None:
    """All keys of the tenant."""
    from msgspec import to_builtins

    from adyton.client.keys import Keys

    with open_admin(**options) as admin:
        views = Keys(admin).list()
    if as_json:
        for view in views:
            print_json(to_builtins(view))
        return
    print_table(
        ("uri", "kind", "newest", "state", "leaves", "back end", "for"),
        [
            (
                v.uri,
                v.kind,
                v.versions[-1].number,
                v.versions[-1].state,
                _leaves(v),
                v.backend or "-",
                said_who(v.binding),
            )
            for v in views
        ],
    )


@key.command()
@click.argument("uri")
@broker_options
@json_option
def show(uri: str, as_json: bool, **options: Any) -> None:
    """A key's versions and settings; never its value."""
    from adyton.client.keys import Keys
    from adyton.protocol.resource import ResourcePath

    with open_admin(**options) as admin:
        said(Keys(admin).show(ResourcePath.parse(uri)), as_json)


@key.command()
@click.argument("uri")
@_VERSION
@click.option("--jwk", is_flag=True, help="As a JWK instead of PEM.")
@broker_options
@json_option
def public(uri: str, version: int | None, jwk: bool, as_json: bool, **options: Any) -> None:
    """Print the public half of a pair."""
    from msgspec import to_builtins

    view = _public(uri, version, options)
    if as_json:
        print_json(to_builtins(view))
    elif jwk:
        print_json(view.jwk)
    else:
        click.echo(view.pem, nl=False)


@key.command()
@click.argument("uri")
@_VERSION
@broker_options
@json_option
def certificate(uri: str, version: int | None, as_json: bool, **options: Any) -> None:
    """Print a key's certificate chain (PEM), its own first. Renew it with adyton key rotate."""
    from adyton.errors import NotFound

    view = _public(uri, version, options)
    if not view.chain:
        raise NotFound(
            "this version has no certificate",
            code="certificate_absent",
            field="version",
            got=view.version,
            hint="adyton key rotate URI --name NAME makes a version with one",
        )
    if as_json:
        print_json({"uri": view.uri, "version": view.version, "chain": view.chain})
    else:
        click.echo(view.chain, nl=False)


def _public(uri: str, version: int | None, options: dict[str, Any]) -> Any:
    from adyton.client.keys import Keys
    from adyton.protocol.resource import ResourcePath

    with open_admin(**options) as admin:
        return Keys(admin).public(ResourcePath.parse(uri), version)


@key.command()
@click.argument("uri")
@click.option("--version", type=click.IntRange(min=1), required=True)
@broker_options
@json_option
def disable(uri: str, version: int, as_json: bool, **options: Any) -> None:
    """Let nobody get or use a version until it is enabled again."""
    from adyton.client.keys import Keys
    from adyton.protocol.resource import ResourcePath

    with open_admin(**options) as admin:
        said(Keys(admin).disable(ResourcePath.parse(uri), version), as_json)


@key.command()
@click.argument("uri")
@click.option("--version", type=click.IntRange(min=1), required=True)
@broker_options
@json_option
def enable(uri: str, version: int, as_json: bool, **options: Any) -> None:
    """Let a disabled version be used again."""
    from adyton.client.keys import Keys
    from adyton.protocol.resource import ResourcePath

    with open_admin(**options) as admin:
        said(Keys(admin).enable(ResourcePath.parse(uri), version), as_json)


@key.command()
@click.argument("uri")
@click.option("--version", type=click.IntRange(min=1), help="This one.")
@click.option("--all", "every", is_flag=True, help="All versions.")
@broker_options
@json_option
def destroy(uri: str, version: int | None, every: bool, as_json: bool, **options: Any) -> None:
    """Erase a version, or all, for ever: what it encrypted is lost. Its record stays."""
    from adyton.client.keys import Keys
    from adyton.protocol.resource import ResourcePath

    if (version is None) is not every:
        raise click.UsageError("give --version N, or --all")
    with open_admin(**options) as admin:
        said(Keys(admin).destroy(ResourcePath.parse(uri), version), as_json)


@key.command()
@click.argument("uri")
@broker_options
@json_option
def delete(uri: str, as_json: bool, **options: Any) -> None:
    """Erase all versions, and forget that the key was there."""
    from adyton.client.keys import Keys
    from adyton.protocol.resource import ResourcePath

    path = ResourcePath.parse(uri)
    with open_admin(**options) as admin:
        Keys(admin).delete(path)
    if as_json:
        print_json({"deleted": path.uri})
    else:
        say(f"deleted {path.uri}")


for _command in key_use.COMMANDS:
    key.add_command(_command)


def said(view: KeyView, as_json: bool) -> None:
    """Print a key."""
    from msgspec import to_builtins

    if as_json:
        print_json(to_builtins(view))
        return
    print_line(f"{view.uri}  {view.kind}  {_leaves(view)}{'  in ' + view.backend if view.backend else ''}")
    print_line(f"for {said_who(view.binding)}; workloads may {', '.join(view.operations) or 'do nothing'};"
               f" you may {', '.join(view.owner_operations) or 'not use it'}")  # fmt: skip
    print_table(
        ("version", "state", "created", "changed", "from", "public half", "certificate until", "of its uses"),
        [
            (
                one.number,
                one.state,
                one.created,
                one.changed,
                "outside" if one.imported else "inside",
                one.fingerprint[:16] or "-",
                one.expires or "-",
                "-" if one.uses is None else f"{one.uses / 2**32:.4%}",
            )
            for one in view.versions
        ],
    )
    if view.erasing:
        print_line(
            f"what was destroyed still lies in {' and in '.join(view.erasing)}: the broker tries again by itself,"
            f" and at once with adyton key destroy {view.uri} --version N, or adyton key delete {view.uri}"
        )


def _leaves(view: KeyView) -> str:
    return (
        "never leaves" if view.never_export else "can be released" if "release" in view.operations else "not released"
    )
