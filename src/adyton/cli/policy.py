"""``adyton policy``: the Rego that appraises evidence (``attestation``) and that rules over releases (``resource``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.errors import ConfigError

_KIND = click.Choice(["attestation", "resource", "requirements"])
_DEFAULTS = {"attestation": "default_cpu", "resource": "resource-policy", "requirements": "snp"}
_ID = click.option(
    "--id", "policy_id", help="[default: " + ", ".join(f"{name} for {kind}" for kind, name in _DEFAULTS.items()) + "]"
)


@click.group(cls=Noun)
def policy() -> None:
    """Set, list, show and delete policies. Until one is set, the built-in ones apply."""


@policy.command("set")
@click.argument("kind", type=_KIND)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_ID
@broker_options
@json_option
def set_(kind: str, file: Path, policy_id: str | None, as_json: bool, **options: Any) -> None:
    """Set the policy of KIND to the Rego in FILE (requirements: JSON, see policy snp). In force everywhere when this returns."""
    from msgspec import to_builtins

    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}", code="file_unreadable", field=str(file)) from error
    with open_admin(**options) as admin:
        view = admin.set_policy(kind, policy_id or _default(kind), text)
    if as_json:
        print_json(to_builtins(view))
    else:
        say(f"set {kind} policy {view.id}, sha256:{view.digest}")


@policy.command()
@click.option("--vmpl", "vmpls", type=click.IntRange(0, 3), multiple=True, help="Accept reports asked for at it.")
@click.option("--report-version", "versions", type=click.IntRange(2, 5), multiple=True, help="Accept reports of it.")
@broker_options
@json_option
def snp(vmpls: tuple[int, ...], versions: tuple[int, ...], as_json: bool, **options: Any) -> None:
    """Say which SEV-SNP reports are looked at at all, before any policy: all that is accepted, by name.

    Without this: VMPL 0 and report versions 3, 4 and 5. An option that is not given keeps that default; adyton policy
    delete requirements goes back to it.
    """
    from msgspec import to_builtins

    from adyton.appraisal import requirements
    from adyton.appraisal.requirements import DEFAULT, SnpRequirements

    if not vmpls and not versions:
        raise click.UsageError("give --vmpl, --report-version or both")
    accepted = SnpRequirements(frozenset(vmpls) or DEFAULT.vmpls, frozenset(versions) or DEFAULT.report_versions)
    with open_admin(**options) as admin:
        view = admin.set_policy("requirements", "snp", requirements.written(accepted))
    if as_json:
        print_json(to_builtins(view))
        return
    say(f"accepted: VMPL {_listed(accepted.vmpls)}; report versions {_listed(accepted.report_versions)}")
    if 0 not in accepted.vmpls:
        say("VMPL 0 is not among them: whoever asks at VMPL 0 is refused now")


def _listed(numbers: frozenset[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))


@policy.command("list")
@broker_options
@json_option
def list_(as_json: bool, **options: Any) -> None:
    """The policies that are set."""
    from msgspec import to_builtins

    with open_admin(**options) as admin:
        views = admin.list_policies()
    if as_json:
        for view in views:
            print_json(to_builtins(view))
    else:
        rows = ((v.kind, v.id, v.version, v.updated, f"sha256:{v.digest}") for v in views)
        print_table(("kind", "id", "version", "updated", "digest"), rows)


@policy.command()
@click.argument("kind", type=_KIND)
@_ID
@broker_options
@json_option
def show(kind: str, policy_id: str | None, as_json: bool, **options: Any) -> None:
    """The text of a policy."""
    from msgspec import to_builtins

    with open_admin(**options) as admin:
        view = admin.show_policy(kind, policy_id or _default(kind))
    if as_json:
        print_json(to_builtins(view))
    else:
        click.echo(view.text, nl=not view.text.endswith("\n"))


@policy.command()
@click.argument("kind", type=_KIND)
@_ID
@broker_options
@json_option
def delete(kind: str, policy_id: str | None, as_json: bool, **options: Any) -> None:
    """Withdraw a policy; the built-in one applies again."""
    with open_admin(**options) as admin:
        admin.delete_policy(kind, policy_id or _default(kind))
    if as_json:
        print_json({"deleted": f"{kind}/{policy_id or _default(kind)}"})
    else:
        say(f"deleted {kind} policy {policy_id or _default(kind)}")


def _default(kind: str) -> str:
    return _DEFAULTS[kind]
