"""``adyton reference``: what evidence is compared with. A missing or expired value matches nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.attestation_service import reference_serve
from adyton.cli.binding import read_bytes
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.cli.reference_providers import provider
from adyton.errors import ConfigError, TooLarge

if TYPE_CHECKING:
    from adyton.protocol.admin import ReferenceView
    from adyton.rats.types import JsonValue


_MAX_FILE = 16 * 1024 * 1024
STATES = ("candidate", "stable", "deprecated")


@click.group(cls=Noun)
def reference() -> None:
    """Set, publish, list, show, revoke and delete reference values."""


reference.add_command(provider)
reference.add_command(reference_serve)


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
    """All of them, with their providers; those that do not count (candidates, expired, revoked) included."""
    with open_admin(**options) as admin:
        views = admin.list_references()
    if as_json:
        for view in views:
            print_json(_built(view))
    else:
        rows = ((v.name, json.dumps(v.value), v.provider or "by hand", v.state, _until(v)) for v in views)
        print_table(("name", "value", "provider", "state", "expires"), rows)


@reference.command()
@click.argument("name")
@broker_options
@json_option
def show(name: str, as_json: bool, **options: Any) -> None:
    """The value under NAME, as JSON; with --json everything that is known of it: provider, proof, validity, state."""
    with open_admin(**options) as admin:
        view = admin.show_reference(name)
    print_json(_built(view) if as_json else view.value)
    if view.provider:
        say(f"{view.state}, issue {view.issue} of {view.series}, published by {view.provider}; proof {view.proof}")
    if view.expired:
        say(f"expired on {view.expires}: it matches nothing")
    elif not view.counts:
        say(f"{_why_not(view)}: it matches nothing")


@reference.command()
@click.argument(
    "documents", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="DOCUMENT..."
)
@click.option("--provider", "provider_name", required=True, metavar="NAME", help="Whose document it is.")
@click.option(
    "--state", type=click.Choice(STATES), default="stable", show_default=True, help="What it is published as."
)
@broker_options
@json_option
def publish(documents: tuple[Path, ...], provider_name: str, state: str, as_json: bool, **options: Any) -> None:
    """Publish what a provider's signed DOCUMENT states, all of it or nothing.

    Its kind is told by its content: reference values in JSON or SLSA provenance, both in DSSE envelopes; CoRIM; SWID or
    RIM in XML; an in-toto layout with its links. These are several files: name them all, or the folder that they are in.
    A candidate stands beside the value in force and matches nothing until the same document is published as stable.
    """
    document = _document(documents)
    with open_admin(**options) as admin:
        view = admin.publish(provider_name, document, state)
    if as_json:
        print_json(_built(view))
        return
    for one in view.values:
        say(f"published {one.name} = {json.dumps(one.value)} ({one.state}) until {one.expires}")
        if one.state != "candidate" and not one.counts:
            say(f"  {_why_not(one)}: it matches nothing yet")
    for warning in view.warnings:
        say(f"warning: {warning}")
    _advise({one.name: cast("JsonValue", one.value) for one in view.values})


@reference.command()
@click.argument("names", nargs=-1)
@click.option("--proof", default="", metavar="HEX", help="Everything that one document stated; reference show has it.")
@click.option("--provider", "provider_name", default="", metavar="NAME", help="Everything that a provider published.")
@click.option("--reason", default="", help="Why; kept with the values and in the audit log.")
@broker_options
@json_option
def revoke(names: tuple[str, ...], proof: str, provider_name: str, reason: str, as_json: bool, **options: Any) -> None:
    """Let values count no more, at once and for everybody. The same document cannot be published again."""
    from adyton.protocol.providers import RevocationBody

    if sum(map(bool, (names, proof, provider_name))) != 1:
        raise click.UsageError("give NAMES, --proof or --provider")
    with open_admin(**options) as admin:
        views = admin.revoke(RevocationBody(list(names), proof, provider_name, reason))
    for view in views:
        if as_json:
            print_json(_built(view))
        else:
            say(f"revoked {view.name}")


@reference.command()
@click.argument("name")
@broker_options
@json_option
def delete(name: str, as_json: bool, **options: Any) -> None:
    """Forget the value under NAME and its history: an older document could be published again. See revoke."""
    with open_admin(**options) as admin:
        admin.delete_reference(name)
    if as_json:
        print_json({"deleted": name})
    else:
        say(f"deleted {name}")


def _until(view: ReferenceView) -> str | None:
    return f"{view.expires} ({_why_not(view)})" if not view.counts and view.state != "candidate" else view.expires


def _why_not(view: ReferenceView) -> str:
    """Why a value matches nothing."""
    if view.state in {"revoked", "candidate"}:
        return view.state + (f" ({view.reason})" if view.reason else "")
    return "expired" if view.expired else f"begins {view.not_before}"


def _document(paths: tuple[Path, ...]) -> bytes:
    """One file as it is; several, or a folder, as the one document that layouts and their links travel in."""
    import base64

    try:
        files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    except OSError as error:
        raise ConfigError(f"a document cannot be read: {error}", code="file_unreadable", field=str(paths[0])) from error
    if len(files) == 1 and not paths[0].is_dir():
        return _content(files[0])
    wanted = [file for file in files if file.suffix in {".layout", ".link"}]
    encoded = {file.name: base64.b64encode(_content(file)).decode("ascii") for file in wanted}
    if len(encoded) != len(wanted) or not any(name.endswith(".layout") for name in encoded):
        raise ConfigError(
            "several files are a layout and its links: one ends in .layout, the others in .link, each name once",
            code="file_unreadable",
            field=str(paths[0]),
        )
    return json.dumps({"version": "0.9", "line_normalization": False, "files": encoded}).encode()


def _content(file: Path) -> bytes:
    from adyton.provenance.values import MAX_DOCUMENT

    content = read_bytes(str(file), MAX_DOCUMENT)
    if len(content) > MAX_DOCUMENT:
        raise TooLarge(f"{file} is larger than a document may be", code="document_too_large", expected=MAX_DOCUMENT)
    return content


def _read(file: Path) -> dict[str, JsonValue]:
    from adyton.wire import strict_json

    try:
        read = strict_json.parse(read_bytes(str(file), _MAX_FILE), max_size=_MAX_FILE)
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
    from adyton.wire import strict_json

    if len(values) != 1:
        raise click.UsageError("--json-value takes exactly one VALUE")
    try:
        return strict_json.parse(values[0], max_size=_MAX_FILE)
    except ValueError as error:
        raise click.UsageError(f"VALUE is not JSON: {error}") from error


def _built(view: object) -> object:
    from msgspec import to_builtins

    return to_builtins(view)
