"""``adyton resource``: secrets and who may have them. A value goes in; it never comes out here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.errors import ConfigError, TooLarge

if TYPE_CHECKING:
    from adyton.protocol.admin import ResourceView
    from adyton.protocol.release import Binding

_MAX_VALUE = 1_490_000  # what fits into a request of 2 MB as base64, with its binding
_F = TypeVar("_F", bound=Callable[..., Any])

_BINDING = (
    click.option(
        "--workload",
        "workloads",
        multiple=True,
        metavar="DIGEST",
        help="A workload document's digest (adyton measure workload), or MEASUREMENT/DIGEST.",
    ),
    click.option("--image", "images", multiple=True, metavar="DIGEST", help="Any workload that runs this image."),
    click.option("--signer", "signers", multiple=True, metavar="KEY", help="sha256:<hex> of a signer's SPKI."),
    click.option("--policy", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Rego: policy.allow."),
    click.option("--any-workload-i-accept", is_flag=True, help="Whatever the attestation policy accepts."),
)


def _binding_options(command: _F) -> _F:
    for option in reversed(_BINDING):
        command = option(command)
    return command


def _binding(
    workloads: tuple[str, ...],
    images: tuple[str, ...],
    signers: tuple[str, ...],
    policy: Path | None,
    any_workload_i_accept: bool,
) -> Binding:
    from adyton.protocol import release

    return release.written(
        workloads=workloads,
        images=images,
        signers=signers,
        policy=_text(policy) if policy else None,
        any_workload_i_accept=any_workload_i_accept,
    )


@click.group(cls=Noun)
def resource() -> None:
    """Register, bind, list, show and delete secrets (kbs:///repository/type/tag)."""


@resource.command("set")
@click.argument("uri")
@click.option("--file", "-f", "file", required=True, type=click.Path(allow_dash=True), help="The value; - reads stdin.")
@_binding_options
@broker_options
@json_option
def set_(uri: str, file: str, as_json: bool, **options: Any) -> None:
    """Register or replace the secret at URI. Without a binding nobody gets it until one is given."""
    from adyton.protocol.resource import ResourcePath

    path = ResourcePath.parse(uri)
    binding = _binding(*_taken(options))
    value = _value(file)
    with open_admin(**options) as admin:
        view = admin.set_resource(path, value, binding)
    _said(view, as_json, "registered")


@resource.command()
@click.argument("uri")
@_binding_options
@click.option("--nobody", is_flag=True, help="Take every binding away.")
@broker_options
@json_option
def bind(uri: str, nobody: bool, as_json: bool, **options: Any) -> None:
    """Replace who may have the secret at URI, without its value."""
    from adyton.protocol.resource import ResourcePath

    path = ResourcePath.parse(uri)
    binding = _binding(*_taken(options))
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
        print_table(("uri", "bytes", "updated", "released to"), ((v.uri, v.size, v.updated, _who(v)) for v in views))


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


def _taken(options: dict[str, Any]) -> list[Any]:
    return [options.pop(name) for name in ("workloads", "images", "signers", "policy", "any_workload_i_accept")]


def _value(file: str) -> bytes:
    try:
        if file == "-":
            value = sys.stdin.buffer.read(_MAX_VALUE + 1)
        else:
            with Path(file).open("rb") as opened:
                value = opened.read(_MAX_VALUE + 1)
    except OSError as error:
        raise _unreadable(file, error) from error
    if len(value) > _MAX_VALUE:
        raise TooLarge(
            f"{file} is larger than a secret may be",
            code="resource_too_large",
            hint=f"at most {_MAX_VALUE} bytes: encrypt what is large with a key, and register the key",
        )
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(str(path), error) from error


def _unreadable(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"cannot read {name}", code="file_unreadable", field=name, got=type(error).__name__)


def _said(view: ResourceView, as_json: bool, done: str) -> None:
    if as_json:
        from msgspec import to_builtins

        print_json(to_builtins(view))
        return
    print_table(("uri", "bytes", "version", "updated", "released to"), [
        (view.uri, view.size, view.version, view.updated, _who(view))
    ])  # fmt: skip
    if done and view.binding.signers:
        say("workload documents carry no signatures yet: the signers named release it to nobody")
    if done and view.binding.is_empty:
        say(f"{done}, and released to nobody: give a binding with adyton resource bind {view.uri} --workload DIGEST")


def _who(view: ResourceView) -> str:
    binding = view.binding
    parts = [
        *(f"workload {entry}" for entry in binding.workloads),
        *(f"image {entry}" for entry in binding.images),
        *(f"signer {entry}" for entry in binding.signers),
        *(["by policy"] if binding.policy else []),
        *(["any workload that is accepted"] if binding.any_workload_i_accept else []),
    ]
    return ", ".join(parts) or "nobody"
