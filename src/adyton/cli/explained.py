"""``adyton broker explain``: one decision as its owner reads it. What was wrong, who says so, how to cure it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from adyton.cli.administering import broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_line
from adyton.cli.verdict import text

if TYPE_CHECKING:
    from adyton.protocol.admin import Decision, Explained, Explanation

_WIDTH = 10
_RELEASE, _EVIDENCE = "the release", "the evidence"


@click.command()
@click.argument("decision", metavar="ID")
@broker_options
@json_option
def explain(decision: str, as_json: bool, **options: Any) -> None:
    """Explain a decision, by the ID that whoever was refused was given, or by its number in `adyton audit list`."""
    with open_admin(**options) as admin:
        found = admin.explain(decision)
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        show(found)


def show(found: Explanation) -> None:
    """Print it to standard output."""
    decision, row = found.decision, found.decision.row
    good = row.decision == "allowed"
    what = f"{row.action} {row.resource}".strip()
    at = decision.time.isoformat(timespec="seconds")
    click.echo(click.style(row.decision.upper(), fg="green" if good else "red", bold=True), nl=False)
    print_line(f": {what}, decision {decision.sequence} of {at}")
    groups = _groups(found.findings)
    for number, (name, findings) in enumerate(groups):
        last = number == len(groups) - 1
        click.echo(f"{'└' if last else '├'}─ {click.style(name, bold=True)}")
        _show_findings(findings, "   " if last else "│  ")
    if not groups:
        click.echo("  nothing was wrong" if good else "  no reason was written down")
    for name, value in _facts(found):
        print_line(f"  {name:{_WIDTH}} {value}")
    for other in found.others:
        print_line(f"  {'see also':{_WIDTH}} {_line(other)}")


def _groups(findings: Sequence[Explained]) -> list[tuple[str, list[Explained]]]:
    """What stood against the release itself, then what about the evidence, by AR4SI's element."""
    found: dict[str, list[Explained]] = {}
    for one in findings:
        element = one.finding.element
        name = f"{_EVIDENCE}: {element}" if element else _EVIDENCE if one.finding.claim else _RELEASE
        found.setdefault(name, []).append(one)
    return list(found.items())


def _show_findings(findings: Sequence[Explained], indent: str) -> None:
    for number, one in enumerate(findings):
        last = number == len(findings) - 1
        finding = one.finding
        mark = click.style("✗", fg="red", bold=True)
        title = finding.claim or finding.code
        note = f"  [{finding.code}]" if finding.claim else ""
        click.echo(f"{indent}{'└' if last else '├'}─ {mark} ", nl=False)
        print_line(f"{title}{note}")
        below = f"{indent}{' ' if last else '│'}    "
        for name, value in _parts(one):
            print_line(f"{below}{name:{_WIDTH}} {value}")


def _parts(one: Explained) -> list[tuple[str, str]]:
    finding = one.finding
    rows = [("because", finding.text)] if finding.text else []
    compared = finding.expected is not None or finding.got is not None
    if compared or finding.reference:
        nothing = "a reference value, and there was none" if finding.reference else "-"
        rows.append(("expected", nothing if finding.expected is None else text(finding.expected)))  # type: ignore[arg-type]
        rows.append(("got", "-" if finding.got is None else text(finding.got)))  # type: ignore[arg-type]
    rows += [(name, value) for name, value in (("said by", one.provider), ("cure", _cure(one))) if value]
    if one.holds_now is not None:
        rows.append(("today", "accepted: it was set since" if one.holds_now else "still not accepted"))
    return rows


def _cure(one: Explained) -> str:
    if one.holds_now:
        return "attest again"
    return f"({one.actor}) {one.cure}" if one.actor and one.cure else one.cure


def _facts(found: Explanation) -> list[tuple[str, str]]:
    from adyton.rats.result import ELEMENTS

    decision, row = found.decision, found.decision.row
    rows = [("id", decision.id)]
    if row.tee:
        rows.append(("attester", f"{row.tee}, measurement {row.measurement or '-'}"))
        rows.append(("workload", f"sha256:{row.host_data}" if row.host_data else "-"))
    if row.root:
        rows.append(("root", f"{row.root} {row.root_fingerprint}".strip()))
    if row.status:
        stated = [f"{name} {value}" for name, value in zip(ELEMENTS, row.vector, strict=False) if value]
        rows.append(("status", row.status + (f" ({', '.join(stated)})" if stated else "")))
    if row.policy_digest:
        rows.append(("policy", f"sha256:{row.policy_digest}{_since(found.policy_changed)}"))
    if row.reference_generation is not None:
        rows.append(("references", f"generation {row.reference_generation}{_since(found.references_changed)}"))
    if row.claims:
        rows.append(("claims", f"sha256:{row.claims}"))
    if row.version is not None:
        rows.append(("released", f"version {row.version}"))
    if row.decision == "allowed" and row.action == "release" and row.reasons:
        rows.append(("bound", row.reasons[0]))
    rows += [
        (name, value) for name, value in (("session", row.request_id), ("peer", row.peer), ("by", row.actor)) if value
    ]
    return rows


def _since(changed: bool | None) -> str:
    return "" if changed is None else ", changed since" if changed else ", still in force"


def _line(other: Decision) -> str:
    row = other.row
    return f"{other.sequence} {row.action} {row.decision} {row.status or row.resource}".rstrip() + f"  {other.id}"
