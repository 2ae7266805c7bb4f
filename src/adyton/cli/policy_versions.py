"""``adyton policy versions|activate|rollback|diff|dry-run``: what was set, what decides, what is on trial."""

from __future__ import annotations

import difflib
from typing import Any

import click

from adyton.cli.administering import broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_table, print_text, say
from adyton.cli.policy_names import NAME, found


@click.command()
@NAME
@click.option("--activations", is_flag=True, help="What was put into force and taken out of it, instead.")
@broker_options
@json_option
def versions(name: str, activations: bool, as_json: bool, **options: Any) -> None:
    """Every version of a policy that is kept, the newest first: who set it, when and why, and which one decides."""
    from msgspec import to_builtins

    with open_admin(**options) as admin:
        kind, policy_id = found(admin, name)
        if activations:
            changes = admin.policy_activations(kind, policy_id)
            rows: list[tuple[object, ...]] = [
                (one.number, one.action, one.version or "none", one.time, one.actor) for one in changes
            ]
            head: tuple[str, ...] = ("number", "action", "version", "when", "who")
            said: list[Any] = [to_builtins(one) for one in changes]
        else:
            views = admin.policy_versions(kind, policy_id)
            rows = [
                (one.version, one.state or "-", one.created, one.actor, f"sha256:{one.digest}", one.note)
                for one in views
            ]
            head = ("version", "state", "set", "by", "digest", "note")
            said = [to_builtins(one) for one in views]
    if as_json:
        for one in said:
            print_json(one)
    else:
        print_table(head, rows)


@click.command()
@NAME
@click.argument("version", type=click.IntRange(1))
@broker_options
@json_option
def activate(name: str, version: int, as_json: bool, **options: Any) -> None:
    """Let VERSION of a policy decide. In force everywhere when this returns; compiled before."""
    from msgspec import to_builtins

    with open_admin(**options) as admin:
        view = admin.activate_policy(*found(admin, name), version)
    if as_json:
        print_json(to_builtins(view))
    else:
        say(f"{view.kind} policy {view.id}: version {view.version} decides, sha256:{view.digest}")


@click.command()
@NAME
@broker_options
@json_option
def rollback(name: str, as_json: bool, **options: Any) -> None:
    """Let the version decide that did before; once more goes one further back. Undoes a deletion too."""
    from msgspec import to_builtins

    with open_admin(**options) as admin:
        view = admin.rollback_policy(*found(admin, name))
    if as_json:
        print_json(to_builtins(view))
    else:
        say(f"{view.kind} policy {view.id}: back at version {view.version}, sha256:{view.digest}")


@click.command()
@NAME
@click.argument("old", type=click.IntRange(1))
@click.argument("new", type=click.IntRange(1))
@broker_options
@json_option
def diff(name: str, old: int, new: int, as_json: bool, **options: Any) -> None:
    """What version NEW changes in version OLD, line by line. Exit 0: nothing, 1: something."""
    with open_admin(**options) as admin:
        kind, policy_id = found(admin, name)
        before, after = (admin.show_policy(kind, policy_id, number) for number in (old, new))
    lines = list(
        difflib.unified_diff(
            before.text.splitlines(), after.text.splitlines(), f"{policy_id}@{old}", f"{policy_id}@{new}", lineterm=""
        )
    )
    if as_json:
        print_json({"id": policy_id, "old": before.digest, "new": after.digest, "diff": lines})
    else:
        for line in lines:
            print_text(line)
    raise SystemExit(int(before.digest != after.digest))


@click.command("dry-run")
@NAME
@click.argument("version", type=click.IntRange(1), required=False)
@click.option("--end", is_flag=True, help="Try it no longer.")
@broker_options
@json_option
def dry_run(name: str, version: int | None, end: bool, as_json: bool, **options: Any) -> None:
    """Evaluate VERSION beside the one that decides: counted and written down, and without any say.

    Without VERSION: what came of it so far.
    """
    from msgspec import to_builtins

    if end and version is not None:
        raise click.UsageError("give VERSION or --end")
    with open_admin(**options) as admin:
        kind, policy_id = found(admin, name)
        if end:
            admin.end_dry_run(kind, policy_id)
            views = []
        else:
            views = admin.dry_runs(kind, policy_id)
            if version is not None:
                views = [admin.dry_run_policy(kind, policy_id, version)]
    if as_json:
        print_json({"dry_run": to_builtins(views[0]) if views else None})
    elif not views:
        say(f"no version of {kind} policy {policy_id} is in a dry run")
    else:
        print_table(
            ("version", "since", "by", "same", "differ", "failed", "skipped"),
            ((v.version, v.since, v.actor, v.same, v.differ, v.failed, v.skipped) for v in views),
        )
