"""``adyton resource``: secrets and who may have them. A value goes in; it never comes out here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.binding import binding_of, binding_options, read_bytes, said_who
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.errors import TooLarge

if TYPE_CHECKING:
    from adyton.protocol.admin import ResourceView

_MAX_VALUE = 1_490_000  # what fits into a request of 2 MB as base64, with its binding


@click.group(cls=Noun)
def resource() -> None:
    """Register, bind, list, show and delete secrets (kbs:///repository/type/tag)."""


@resource.command("set")
@click.argument("uri")
@click.option("--file", "-f", "file", type=click.Path(allow_dash=True), help="The value; - reads stdin.")
@click.option("--backend", default="", metavar="NAME", help="The back end that shall hold the value, sealed.")
@click.option(
    "--foreign-plain-value",
    is_flag=True,
    help="Release what SOMEBODY ELSE wrote into the back end, in plain: nothing vouches for it.",
)
@binding_options
@broker_options
@json_option
def set_(uri: str, file: str | None, backend: str, foreign_plain_value: bool, as_json: bool, **options: Any) -> None:
    """Register or replace the secret at URI. Without a binding nobody gets it until one is given."""
    from adyton.protocol.resource import ResourcePath

    path = ResourcePath.parse(uri)
    binding = binding_of(options)
    if foreign_plain_value and (file or not backend):
        raise click.UsageError("--foreign-plain-value is in a back end already: name that, and give no --file")
    if not foreign_plain_value and not file:
        raise click.UsageError("Missing option '--file' / '-f'.")
    value = _value(file) if file else b""
    with open_admin(**options) as admin:
        view = admin.set_resource(path, value, binding, backend, foreign=foreign_plain_value)
    _said(view, as_json, "registered")


@resource.command()
@click.argument("uri")
@binding_options
@click.option("--nobody", is_flag=True, help="Take every binding away.")
@broker_options
@json_option
def bind(uri: str, nobody: bool, as_json: bool, **options: Any) -> None:
    """Replace who may have the secret at URI, without its value."""
    from adyton.protocol.resource import ResourcePath

    path = ResourcePath.parse(uri)
    binding = binding_of(options)
    if binding.is_empty is not nobody:
        raise click.UsageError("give a binding, or --nobody to take it away")
    with open_admin(**options) as admin:
        view = admin.bind_resource(path, binding)
    _said(view, as_json, "bound")


@resource.command("list")
@broker_options
@json_option
def list_(as_json: bool, **options: Any) -> None:
    """All secrets of the tenant, without their values."""
    from msgspec import to_builtins

    with open_admin(**options) as admin:
        views = admin.list_resources()
    if as_json:
        for view in views:
            print_json(to_builtins(view))
    else:
        print_table(
            ("uri", "bytes", "updated", "released to"), ((v.uri, v.size, v.updated, said_who(v.binding)) for v in views)
        )


@resource.command()
@click.argument("uri")
@broker_options
@json_option
def show(uri: str, as_json: bool, **options: Any) -> None:
    """One secret's binding, size and version; never its value."""
    from adyton.protocol.resource import ResourcePath

    path = ResourcePath.parse(uri)
    with open_admin(**options) as admin:
        _said(admin.show_resource(path), as_json, "")


@resource.command()
@click.argument("uri")
@broker_options
@json_option
def delete(uri: str, as_json: bool, **options: Any) -> None:
    """Forget the secret at URI: nobody gets it from then on."""
    from adyton.protocol.resource import ResourcePath

    path = ResourcePath.parse(uri)
    with open_admin(**options) as admin:
        admin.delete_resource(path)
    if as_json:
        print_json({"deleted": path.uri})
    else:
        say(f"deleted {path.uri}")


def _value(file: str) -> bytes:
    value = read_bytes(file, _MAX_VALUE)
    if len(value) > _MAX_VALUE:
        raise TooLarge(
            f"{file} is larger than a secret may be",
            code="resource_too_large",
            hint=f"at most {_MAX_VALUE} bytes: encrypt what is large with a key, and register the key",
        )
    return value


def _said(view: ResourceView, as_json: bool, done: str) -> None:
    if as_json:
        from msgspec import to_builtins

        print_json(to_builtins(view))
        return
    print_table(("uri", "bytes", "version", "updated", "released to"), [
        (view.uri, view.size, view.version, view.updated, said_who(view.binding))
    ])  # fmt: skip
    if done and view.binding.is_empty:
        say(f"{done}, and released to nobody: give a binding with adyton resource bind {view.uri} --workload DIGEST")
