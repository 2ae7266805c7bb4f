"""Options that say who may have or use a secret or key, and how a binding is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adyton.cli.signers import fingerprints, signer_option
from adyton.errors import ConfigError, DocumentInvalid

if TYPE_CHECKING:
    from adyton.protocol.release import Binding
    from adyton.protocol.rules import Rule

_F = TypeVar("_F", bound=Callable[..., Any])

MAX_TEXT = 4 * 1024 * 1024
_BINDING = (
    click.option(
        "--workload",
        "workloads",
        multiple=True,
        metavar="DIGEST",
        help="A workload document's digest (adyton measure workload), or MEASUREMENT/DIGEST.",
    ),
    click.option("--image", "images", multiple=True, metavar="DIGEST", help="Any workload that runs this image."),
    signer_option,
    click.option("--policy", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Rego: policy.allow."),
    click.option(
        "--rules",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Release rules (JSON), any of which may match; also AECS's, unified attestation's and Verdictd's.",
    ),
    click.option("--any-workload-i-accept", is_flag=True, help="Whatever the attestation policy accepts."),
    click.option(
        "--policy-id", metavar="NAME[@VERSION]", help="A resource policy that is set: adyton policy set resource."
    ),
    click.option("--attestation", metavar="ID", help="Beside all that: policies ID_cpu, ID_gpu… accept, not default_…"),
    click.option(
        "--device", "devices", multiple=True, metavar="CLASS=N", help="Beside all that: so many must be there."
    ),
    click.option(
        "--allow",
        "operations",
        multiple=True,
        metavar="OPERATION",
        help="Limit what may be done with it: release, encrypt, decrypt, sign … [default: no limit].",
    ),
    click.option("--until", metavar="RFC3339", help="From then on nobody gets or uses it. [default: no end]"),
)


def binding_options(command: _F) -> _F:
    """All options that say so, from ``--workload`` to ``--until``."""
    for option in reversed(_BINDING):
        command = option(command)
    return command


def binding_of(options: dict[str, Any]) -> Binding:
    """The binding that these options say; takes them out of ``options``."""
    from adyton.protocol import release

    policy, rules, operations = options.pop("policy"), options.pop("rules"), options.pop("operations")
    return release.written(
        workloads=options.pop("workloads"),
        images=options.pop("images"),
        signers=fingerprints(options.pop("signers")),
        policy=read_text(policy) if policy else None,
        any_workload_i_accept=options.pop("any_workload_i_accept"),
        rules=_rules(rules) if rules else (),
        operations=operations or None,
        policy_id=options.pop("policy_id"),
        attestation=options.pop("attestation"),
        devices=dict(map(_device, options.pop("devices"))),
        until=options.pop("until"),
    )


def _device(text: str) -> tuple[str, int]:
    name, equals, count = text.partition("=")
    if not equals:
        return name, 1
    if not count.isascii() or not count.isdigit():
        raise click.UsageError(f"--device {text} is not CLASS=N, such as gpu=1")
    return name, int(count)


def _rules(path: Path) -> list[Rule]:
    """A list is in our own form; an object is somebody else's."""
    import msgspec

    from adyton.protocol import aecs
    from adyton.protocol.rules import Rule
    from adyton.wire import strict_json

    text = read_text(path).encode()
    if not text.lstrip().startswith(b"["):
        return aecs.read(text)
    try:
        strict_json.parse(text, max_size=aecs.MAX_DOCUMENT)
        return msgspec.json.decode(text, type=list[Rule])
    except strict_json.UNREADABLE as error:
        raise DocumentInvalid(
            f"not a list of release rules: {str(error)[:120]}", code="release_rules_malformed", field=str(path)
        ) from error


def read_text(path: Path) -> str:
    """A file's text, at most ``MAX_TEXT`` bytes of it; ``ConfigError``."""
    try:
        content = read_bytes(str(path), MAX_TEXT)
        if len(content) > MAX_TEXT:
            raise OSError("too large")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(str(path), error) from error


def read_bytes(file: str, most: int) -> bytes:
    """What is in a file or comes on standard input (``-``), up to one byte more than ``most``; ``ConfigError``."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(most + 1)
        with Path(file).open("rb") as opened:
            return opened.read(most + 1)
    except OSError as error:
        raise unreadable(file, error) from error


def unreadable(name: str, error: Exception) -> ConfigError:
    """The error for a file that cannot be read."""
    return ConfigError(f"cannot read {name}", code="file_unreadable", field=name, got=type(error).__name__)


def said_who(binding: Binding) -> str:
    """Who may have it, in words."""
    parts = [
        *(f"workload {entry}" for entry in binding.workloads),
        *(f"image {entry}" for entry in binding.images),
        *(f"signer {entry}" for entry in binding.signers),
        *(["by policy"] if binding.policy else []),
        *([f"by policy {binding.policy_id}"] if binding.policy_id else []),
        *([f"any of {len(binding.rules)} rule(s)"] if binding.rules else []),
        *(["any workload that is accepted"] if binding.any_workload_i_accept else []),
    ]
    demands = [f"{count} {name}" for name, count in sorted(binding.devices.items())]
    demands += [f"accepted by {binding.attestation}"] if binding.attestation else []
    who = (", ".join(parts) or "nobody") + (f"; only with {', '.join(demands)}" if demands else "")
    if binding.operations is not None:
        who += f" (only {', '.join(binding.operations) or 'nothing'})"
    return who if binding.until is None else f"{who}, until {binding.until}"
