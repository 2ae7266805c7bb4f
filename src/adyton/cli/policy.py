"""``adyton policy``: the Rego that appraises evidence (``attestation``) and that rules over releases (``resource``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adyton.cli import policy_names, policy_test, policy_versions
from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_table, print_text, say

_KIND = policy_names.KIND
_DEFAULTS = policy_names.DEFAULTS
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
@click.option("--no-activate", is_flag=True, help="Keep it as a candidate, which decides nothing.")
@click.option("--note", default="", help="Why, for whoever reads its history.")
@broker_options
@json_option
def set_(kind: str, file: Path, policy_id: str | None, as_json: bool, **options: Any) -> None:
    """Set the policy of KIND to the Rego in FILE: a new version, in force everywhere when this returns.

    Kind requirements takes JSON: see policy snp, policy record and docs/policies.md.
    """
    from msgspec import to_builtins

    text, no_activate, note = policy_names.read(file), options.pop("no_activate"), options.pop("note")
    with open_admin(**options) as admin:
        view = admin.set_policy(kind, policy_id or _default(kind), text, note=note, activate=not no_activate)
    if as_json:
        print_json(to_builtins(view))
    else:
        say(f"set {kind} policy {view.id}, version {view.version}, sha256:{view.digest}")
        if no_activate:
            say(f"it decides nothing until: adyton policy activate {kind}/{view.id} {view.version}")


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


@policy.command()
@click.option("--keep", type=click.IntRange(0, 100_000), required=True, help="How many decisions; 0 keeps none.")
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="For how long.")
@broker_options
@json_option
def record(keep: int, days: int, as_json: bool, **options: Any) -> None:
    """Keep what policies read of the decisions to come, sealed, so that policies can be tried on it (policy test)."""
    from msgspec import to_builtins

    from adyton.protocol import recording
    from adyton.protocol.recording import RecordRules

    with open_admin(**options) as admin:
        view = admin.set_policy("requirements", "record", recording.written(RecordRules(keep, days)))
        if not keep:
            admin.forget_recordings()
    if as_json:
        print_json(to_builtins(view))
    else:
        say(f"the last {keep} decisions are kept for {days} days" if keep else "nothing is recorded, and nothing kept")


@policy.command("list")
@click.option("--all", "every", is_flag=True, help="Candidates and deleted ones too.")
@broker_options
@json_option
def list_(every: bool, as_json: bool, **options: Any) -> None:
    """The policies that are in force."""
    from msgspec import to_builtins

    with open_admin(**options) as admin:
        views = admin.list_policies(every=every)
    if as_json:
        for view in views:
            print_json(to_builtins(view))
    else:
        rows = ((v.kind, v.id, v.version, v.state, v.updated, f"sha256:{v.digest}") for v in views)
        print_table(("kind", "id", "version", "state", "updated", "digest"), rows)


@policy.command()
@click.argument("kind", type=_KIND)
@_ID
@click.option("--version", type=click.IntRange(1), help="This version, instead of the one in force.")
@broker_options
@json_option
def show(kind: str, policy_id: str | None, version: int | None, as_json: bool, **options: Any) -> None:
    """The text of a policy."""
    from msgspec import to_builtins

    with open_admin(**options) as admin:
        view = admin.show_policy(kind, policy_id or _default(kind), version)
    if as_json:
        print_json(to_builtins(view))
    else:
        print_text(view.text)


@policy.command()
@click.argument("kind", type=_KIND)
@_ID
@broker_options
@json_option
def delete(kind: str, policy_id: str | None, as_json: bool, **options: Any) -> None:
    """Withdraw a policy; the built-in one applies again. Its versions stay, and adyton policy rollback brings it back."""
    with open_admin(**options) as admin:
        admin.delete_policy(kind, policy_id or _default(kind))
    if as_json:
        print_json({"deleted": f"{kind}/{policy_id or _default(kind)}"})
    else:
        say(f"deleted {kind} policy {policy_id or _default(kind)}")


def _default(kind: str) -> str:
    return _DEFAULTS[kind]


for _command in (
    policy_versions.versions,
    policy_versions.activate,
    policy_versions.rollback,
    policy_versions.diff,
    policy_versions.dry_run,
    policy_test.test,
    policy_test.recordings,
):
    policy.add_command(_command)
