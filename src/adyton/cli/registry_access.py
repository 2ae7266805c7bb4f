"""Options of every noun that reads or writes images: credentials, certificates, platform. Files are read here."""

from __future__ import annotations

import os
import platform as machine
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adyton.cli.files import read_text
from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.image.manifest import Platform
    from adyton.image.reference import ImageReference
    from adyton.image.registry_options import RegistryOptions

_F = TypeVar("_F", bound=Callable[..., Any])
_File = click.Path(exists=True, dir_okay=False, path_type=Path)

_OPTIONS = (
    click.option("--authfile", type=_File, help="Registry credentials [default: where podman and docker keep them]."),
    click.option(
        "--tls-verify",
        type=bool,
        default=True,
        show_default=True,
        help="false: any certificate, or none. Names and credentials are then unprotected.",
    ),
    click.option("--plain-http", is_flag=True, help="Speak plain http to the registries named here."),
    click.option("--registry-ca", type=_File, help="PEM of an authority to trust beside the system's."),
)


REGISTRY_OPTIONS = ("authfile", "tls_verify", "plain_http", "registry_ca")


def registry_options(command: _F) -> _F:
    """``--authfile``, ``--tls-verify``, ``--plain-http``, ``--registry-ca``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


platform_option = click.option(
    "--platform", "platform", metavar="OS/ARCH[/VARIANT]", help="Which image of an index [default: this machine's]."
)


def access(
    references: Iterable[ImageReference],
    authfile: Path | None,
    tls_verify: bool,
    plain_http: bool,
    registry_ca: Path | None,
) -> RegistryOptions:
    """How to reach the registries of ``references``; nothing is read for images on disk."""
    from adyton.image.registry_options import RegistryOptions

    hosts = frozenset(reference.host for reference in references if reference.registry)
    if not hosts:
        return RegistryOptions()
    found = authfile or credentials_file()
    return RegistryOptions(
        auth_json=read_text(found) if found is not None else "",
        plain_http=hosts if plain_http else frozenset(),
        ca_pem=read_text(registry_ca) if registry_ca is not None else "",
        unverified_tls=frozenset() if tls_verify else hosts,
    )


def chosen_platform(text: str | None) -> Platform:
    """``os/architecture[/variant]``, or this machine's; ``ConfigError``."""
    from adyton.image.manifest import Platform, go_architecture

    if text is None:
        return Platform(go_architecture(machine.machine()), "linux")
    parts = text.split("/")
    if len(parts) not in {2, 3} or not all(parts):
        raise ConfigError(
            "not a platform", code="platform_invalid", field="platform", expected="os/architecture[/variant]", got=text
        )
    return Platform(parts[1], parts[0], parts[2] if len(parts) == 3 else None)


def credentials_file() -> Path | None:
    """As skopeo looks for it: ``REGISTRY_AUTH_FILE``, the runtime directory, the user's configuration, Docker's."""
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        return Path(named)
    places = [Path.home() / ".config" / "containers" / "auth.json", Path.home() / ".docker" / "config.json"]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        places.insert(0, Path(runtime) / "containers" / "auth.json")
    return next((path for path in places if path.is_file()), None)
