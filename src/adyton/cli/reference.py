"""``adyton reference``: what evidence is compared with. A missing or expired value matches nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.protocol.admin import ReferenceView
    from adyton.rats.types import JsonValue


@click.group(cls=Noun)
def reference() -> None:
    """Publish, list, show and delete reference values."""


@reference.command("set")
@click.argument("name", required=False)
@click.argument("values", nargs=-1)
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSON object: name to value."
)
@click.option("--json-value", is_flag=True, help="VALUE is JSON and is published as it is.")
@click.option("--expires", metavar="RFC3339", help="When it stops matching, such as 2027-01-31T00:00:00Z.")
@broker_options
@json_option
def set_(
    name: str | None, values: tuple[str, ...], file: Path | None, json_value: bool, expires: str | None, **options: Any
) -> None:
    """Publish VALUES under NAME, replacing what was there; or everything in a file.

    Plain VALUES of names that the built-in policies ask for get the form that these compare with: snp_bootloader 10 11
    is published as [10, 11], snp_smt_enabled true as true. Under other names they are a list of texts. With
    --json-value one VALUE says exactly what, such as '[3,4]' or 'true'. A file (as adyton measure guest
    --reference-values prints) is a JSON object and says exactly what too.
    """
    as_json = options.pop("as_json")
    if (file is None) is (name is None or not values):
        raise click.UsageError("give NAME and VALUE, or --file")
    if file is not None:
        published = _read(file)
    else:
        published = {str(name): cast("JsonValue", _json(values)) if json_value else _plain(str(name), values)}
    _advise(published)
    with open_admin(**options) as admin:
        for one, value in published.items():
            view = admin.set_reference(one, value, expires)
            if as_json:
                print_json(_built(view))
            else:
                say(f"published {one} = {json.dumps(view.value)}" + (f" until {view.expires}" if view.expires else ""))


@reference.command("list")
@broker_options
@json_option
def list_(as_json: bool, **options: Any) -> None:
    """All of them, expired ones included."""
    with open_admin(**options) as admin:
        views = admin.list_references()
    if as_json:
        for view in views:
            print_json(_built(view))
    else:
        rows = ((v.name, json.dumps(v.value), f"{v.expires} (expired)" if v.expired else v.expires) for v in views)
        print_table(("name", "value", "expires"), rows)


@reference.command()
@click.argument("name")
@broker_options
@json_option
def show(name: str, as_json: bool, **options: Any) -> None:
    """The value under NAME, as JSON."""
    with open_admin(**options) as admin:
        view = admin.show_reference(name)
    print_json(_built(view) if as_json else view.value)
    if view.expired:
        say(f"expired on {view.expires}: it matches nothing")


@reference.command()
@click.argument("name")
@broker_options
@json_option
def delete(name: str, as_json: bool, **options: Any) -> None:
    """Withdraw the value under NAME."""
    with open_admin(**options) as admin:
        admin.delete_reference(name)
    if as_json:
        print_json({"deleted": name})
    else:
        say(f"deleted {name}")


def _read(file: Path) -> dict[str, JsonValue]:
    from adyton.wire import strict_json

    try:
        read = strict_json.parse(file.read_bytes(), max_size=16 * 1024 * 1024)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as JSON: {error}", code="file_unreadable", field=str(file)) from error
    if not isinstance(read, dict) or not read:
        raise ConfigError(f"{file} is not a JSON object of reference values", code="file_unreadable", field=str(file))
    return read


def _plain(name: str, values: tuple[str, ...]) -> JsonValue:
    from adyton.appraisal.shapes import SHAPES

    shape = SHAPES.get(name)
    if shape is None:
        return list(values)
    try:
        return shape.read(values)
    except ValueError:
        raise click.UsageError(
            f"{name} is {shape.text}; if a policy of your own has it otherwise, say so with --json-value"
        ) from None


def _advise(published: dict[str, JsonValue]) -> None:
    from adyton.appraisal.shapes import SHAPES

    for name, value in published.items():
        shape = SHAPES.get(name)
        if shape is not None and not shape.fits(value):
            say(f"warning: {name} should be {shape.text}: the built-in policy never matches {json.dumps(value)[:80]}")


def _json(values: tuple[str, ...]) -> object:
    if len(values) != 1:
        raise click.UsageError("--json-value takes exactly one VALUE")
    try:
        return json.loads(values[0])
    except ValueError as error:
        raise click.UsageError(f"VALUE is not JSON: {error}") from error


def _built(view: ReferenceView) -> object:
    from msgspec import to_builtins

    return to_builtins(view)
