"""``adyton configuration``: values with types that attested workloads read, and who may read them."""

from __future__ import annotations

from typing import Any

import click

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.binding import binding_of, binding_options, read_bytes
from adyton.cli.key import said
from adyton.cli.output import json_option, print_json

_MAX_VALUE = 256 * 1024


@click.group(cls=Noun)
def configuration() -> None:
    """Settings of workloads, JSON or TOML, with versions (kbs:///repository/type/tag)."""


@configuration.command("set")
@click.argument("uri")
@click.option("--file", "-f", required=True, type=click.Path(allow_dash=True), help="The document; - reads stdin.")
@click.option("--format", "form", type=click.Choice(["json", "toml"]), default="json", show_default=True)
@click.option("--shown", is_flag=True, help="It is no secret: you may read it back. Only when it is made.")
@binding_options
@broker_options
@json_option
def set_(uri: str, file: str, form: str, shown: bool, as_json: bool, **options: Any) -> None:
    """Set the value at URI: the first time with a binding, then a new version with the binding that it has."""
    import msgspec

    from adyton.client.keys import Keys
    from adyton.errors import NotFound
    from adyton.protocol.keys import NewKey, RotateBody, ValueBody
    from adyton.protocol.resource import ResourcePath

    path = ResourcePath.parse(uri)
    binding = binding_of(options)
    value = msgspec.convert({"format": form, "data": read_bytes(file, _MAX_VALUE)}, ValueBody)
    with open_admin(**options) as admin:
        keys = Keys(admin)
        try:
            keys.show(path)
        except NotFound:
            view = keys.create(path, NewKey("configuration", binding, value=value, secret=not shown))
        else:
            if not binding.is_empty or shown:
                raise click.UsageError(f"it is there already: change its binding with adyton resource bind {path.uri}")
            view = keys.rotate(path, RotateBody(value))
    said(view, as_json)


@configuration.command()
@click.argument("uri")
@click.option("--version", type=click.IntRange(min=1), help="[default: the newest]")
@broker_options
@json_option
def show(uri: str, version: int | None, as_json: bool, **options: Any) -> None:
    """Print a value that is no secret, as JSON. Versions: adyton key show, disable, destroy."""
    from msgspec import to_builtins

    from adyton.client.keys import Keys
    from adyton.protocol.resource import ResourcePath

    with open_admin(**options) as admin:
        view = Keys(admin).configuration(ResourcePath.parse(uri), version)
    print_json(to_builtins(view) if as_json else view.value)
