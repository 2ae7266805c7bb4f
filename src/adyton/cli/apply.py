"""``adyton apply``, ``diff`` and ``export``: tenants as one document. What differs is printed before anything is done."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton.cli.administering import Verb, broker_options, open_admin
from adyton.cli.output import Exit, json_option, print_json, print_line, print_text, say
from adyton.errors import AdytonError, ConfigError, DocumentInvalid

if TYPE_CHECKING:
    from adyton.client.admin import Admin
    from adyton.client.declared import Change
    from adyton.protocol.declared import Declared

MAX_FILE = 64 * 1024 * 1024
_FILE = click.option(
    "-f", "--file", "path", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The document: TOML, or JSON if its name ends so.",
)  # fmt: skip
_PRUNE = click.option("--prune", is_flag=True, help="Delete what the document's tenants have and it does not name.")
_VALUES = click.option("--values", is_flag=True, help="Set values from files again, also of the same size.")


@click.command(cls=Verb)
@_FILE
@click.option("--diff", "--dry-run", "only_diff", is_flag=True, help="Print what differs, and do nothing.")
@_PRUNE
@_VALUES
@broker_options
@json_option
def apply(path: Path, only_diff: bool, prune: bool, values: bool, as_json: bool, **options: Any) -> None:
    """Bring tenants into the state that a document declares. Applied twice, it changes nothing the second time."""
    with _planned(path, prune, values, options) as changes:
        _show(changes, as_json)
        if not only_diff:
            for done, change in enumerate(changes):
                try:
                    change.do()
                except AdytonError:
                    say(f"{done} of {len(changes)} change(s) made; then this one failed: {change.kind} {change.name}")
                    raise
            if not as_json:
                say(f"{len(changes)} change(s) made" if changes else "nothing to change")


@click.command(cls=Verb)
@_FILE
@_PRUNE
@_VALUES
@broker_options
@json_option
def diff(path: Path, prune: bool, values: bool, as_json: bool, **options: Any) -> None:
    """Print how tenants differ from a document; exit status 1 if they do. Changes nothing."""
    with _planned(path, prune, values, options) as changes:
        _show(changes, as_json)
        if changes:
            raise Exit(1)


@click.command(cls=Verb)
@click.option("--all-tenants", is_flag=True, help="Every tenant that is yours.")
@broker_options
@json_option
def export(all_tenants: bool, as_json: bool, **options: Any) -> None:
    """Print a tenant as a document (JSON) that apply takes; with --json on one line. Never a value."""
    import json

    from msgspec import to_builtins

    from adyton.client import declared
    from adyton.client.people import People

    with ExitStack() as stack:
        first = stack.enter_context(open_admin(**options))
        names = [one.name for one in People(first).list_tenants()] if all_tenants else [options["tenant"]]
        admins = {name: stack.enter_context(open_admin(**{**options, "tenant": name})) for name in names}
        document = to_builtins(declared.export(admins))
    if as_json:
        print_json(document)
    else:
        print_text(json.dumps(document, indent=2, ensure_ascii=False))


@contextmanager
def _planned(path: Path, prune: bool, values: bool, options: dict[str, Any]) -> Iterator[list[Change]]:
    from adyton.client.declared import Planner

    document = _document(path)
    with ExitStack() as stack:

        def opened(tenant: str) -> Admin:
            return stack.enter_context(open_admin(**{**options, "tenant": tenant}))

        def read(name: str) -> bytes:
            file = path.parent / name
            if not file.resolve().is_relative_to(path.parent.resolve()):
                raise DocumentInvalid(
                    "a file that the document names is not beside it or below",
                    code="declared_file_outside",
                    field=name,
                    expected=f"a file under {path.parent.resolve()}",
                    got=str(file.resolve()),
                    hint="who writes a document must not choose which files of yours leave the machine: copy it there",
                )
            try:
                with file.open("rb") as opened:
                    content = opened.read(MAX_FILE + 1)
            except OSError as error:
                raise ConfigError(
                    f"cannot read a file that the document names: {error.strerror}", code="file_unreadable", field=name
                ) from error
            if len(content) > MAX_FILE:
                raise DocumentInvalid(
                    "a file that the document names is too large", code="declared_invalid", field=name
                )
            return content

        yield Planner(opened, read, prune=prune, values=values).plan(document)


def _document(path: Path) -> Declared:
    from adyton.protocol import declared
    from adyton.wire import strict_json

    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise ValueError(f"larger than {MAX_FILE} bytes")
        if path.suffix == ".json":
            found = strict_json.parse(content, max_size=MAX_FILE)
        else:
            found = tomllib.loads(content.decode("utf-8"))
    except (OSError, *strict_json.UNREADABLE) as error:
        raise DocumentInvalid(
            f"the document cannot be read: {error}", code="declared_invalid", field=str(path)
        ) from error
    if not isinstance(found, dict):
        raise DocumentInvalid("the document is not an object", code="declared_invalid", field=str(path))
    return declared.read(found)


def _show(changes: list[Change], as_json: bool) -> None:
    sign = {"create": "+", "change": "~", "delete": "-"}
    for change in changes:
        if as_json:
            print_json(change.shown())
            continue
        print_line(f"{sign[change.verb]} {change.tenant}: {change.kind} {change.name}".rstrip())
        if change.kind != "policy" and change.verb == "change":
            shown = change.shown()
            print_line(f"    was     {_short(shown['before'])}")
            print_line(f"    becomes {_short(shown['after'])}")


def _short(value: object) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 300 else text[:297] + "..."
