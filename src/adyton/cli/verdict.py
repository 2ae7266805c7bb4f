"""A verdict as a person reads it: what was checked, in a tree; what was not; what the evidence says; until when it holds.

One model for the terminal and for the page: both show the same, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import click

from adyton.errors import AdytonError
from adyton.rats.types import Check, JsonValue, RootKind, VerifiedEvidence

UNGROUPED = "evidence"
_MAX = 96  # characters of a value on the terminal; the page and --json have all of it
_ALWAYS = ("measurement", "report_data", "init_data", "debug", "tcb_status", "platform_id", "product")

# What a reader must know about each thing that was not checked.
UNCHECKED = {
    "revocation": "whether the endorser has revoked a certificate: you asked not to look",
    "revocation_lists": "whether the endorser has revoked a certificate: it asks for no list, and none was given",
    "signature": "anything at all: this evidence is not signed, anybody can write it",
    "report_data": "for which nonce and key it was made: no expectation was given, so it may be a replay",
    "init_data": "with what it was started: no expectation was given",
    "chip_id": "which chip it is: the evidence does not say",
    "csp_id": "which cloud provider's key signed it: compare csp_id with your list",
    "ak": "whose attestation key signed it: nothing but the evidence vouches for the key",
    "measurements": "whether the device's firmware is the vendor's: no reference manifest was given",
    "tcb": "whether the platform's TCB is up to date: no TCB info was given",
    "anonce": "what it says at all: the mask over its fields is not signed, and only an expected report data proves it",
    "chip_serial": "the chip's serial number, which nobody signs: platform_id is the chip's key",
    "oca": "the platform owner's signature of the chip's key",
    "signer_mac": "the code that guards the signer block against accidents: this form of evidence lost it",
    "event_log": "the event log: this kind of report has no registers that it could lead to",
    "image_hdr_tags": "whether the image is one of yours: compare tag with your list",
    "firmware_state": "whether the firmware's state is a good one: only the vendor's service can tell",
    "fwid": "whether the firmware that reports is the one the certificate was issued for: one of them does not name it",
    "uuid": "the device's UUID, which is the host's word",
    "ak_attributes": "whether the key signs only what its TPM made: no certificate says so, and nothing signs its public area",
    "qe_identity": "whether the quoting enclave is Intel's current one: no identity was given",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verification gave: ``verified``, or the ``error`` that ended it. ``trail``: every check as it was done."""

    file: str
    tee: str
    now: datetime
    trail: tuple[Check, ...]
    verified: VerifiedEvidence | None = None
    error: AdytonError | None = None
    unchecked: tuple[str, ...] = ()

    @property
    def headline(self) -> tuple[str, str]:
        """A word, and what it means."""
        if self.verified is not None:
            return "VERIFIED", f"{text(self.file)} is authentic evidence of {self.tee}"
        return "NOT VERIFIED", f"{text(self.file)} is not to be believed"

    def groups(self) -> list[tuple[str, list[Check]]]:
        """The checks by the part of the evidence that they belong to, in the order in which the parts were reached."""
        found: dict[str, list[Check]] = {}
        for check in self.trail:
            found.setdefault(check.group or UNGROUPED, []).append(check)
        return list(found.items())

    def left_out(self) -> list[tuple[str, str]]:
        """What was not checked, and what that means."""
        names = self.verified.unchecked if self.verified is not None else self.unchecked
        return [(name, meaning(name)) for name in names]

    def facts(self) -> list[tuple[str, str]]:
        """What stands beside the checks: root, time, and how long the verdict holds."""
        rows = [("as of", self.now.isoformat(timespec="seconds"))]
        verified = self.verified
        if verified is not None:
            rows.append(("root", f"{verified.root.value}, SHA-256 of its key {verified.root_fingerprint}"))
            until = verified.expires.isoformat(timespec="seconds")
            ends = f"{until}, when {verified.expires_first} expires first"
            rows.append(("good until", ends if verified.expires_first else "no endorsement of this kind expires"))
        return rows

    def claims(self, *, whole: bool) -> list[tuple[str, str]]:
        """What the verified evidence says: the few that matter most, or the ``whole`` of it."""
        if self.verified is None:
            return []
        claims = self.verified.claims
        names: Iterable[str] = claims if whole else [name for name in _ALWAYS if claims.get(name) not in {None, ""}]
        return [(name, text(claims[name])) for name in names]

    def warnings(self) -> list[str]:
        """What must not be overlooked in a good verdict."""
        verified = self.verified
        if verified is None:
            return []
        found = []
        if verified.claims.get("debug"):
            found.append("debugging is allowed: the host can read this guest's memory")
        if verified.claims.get("fields_bound") is False:
            found.append(
                "NOTHING it says is proved, only that some such report exists: give the report data it must have"
            )
        status = verified.claims.get("tcb_status")
        if status is not None and status != "UpToDate":
            found.append(f"the platform's TCB is {status}")
        if verified.root is RootKind.CUSTOM:
            found.append("a root of your choice, not the vendor's: it proves what that root's owner says")
        return found


def meaning(name: str) -> str:
    """What nobody looked at where ``name`` stands in ``unchecked``; empty where the name says it itself."""
    if name.startswith(("tcb_info.", "qe_identity.")):
        return "a member that Intel signed and that is unknown here"
    return UNCHECKED.get(name, "")


def text(value: JsonValue) -> str:
    """A value in one line, whoever wrote it: what could move a terminal's cursor or begin a line becomes a question mark."""
    if not isinstance(value, str):
        return json.dumps(value)
    return value if value.isprintable() else "".join(one if one.isprintable() else "?" for one in value)


def difference(check: Check) -> list[tuple[str, str]]:
    """What was expected and what came, where the check says so; one line where both are the same."""
    if check.expected is None and check.got is None:
        return []
    expected, got = text(check.expected), text(check.got)
    if check.expected is None:
        return [("got", got)]
    if check.got is None or expected == got:
        return [("expected", expected)] if not check.ok else [("is", expected)]
    return [("expected", expected), ("got", got)]


def show(verdict: Verdict) -> None:
    """Print it to standard output."""
    word, meaning = verdict.headline
    good = verdict.verified is not None
    click.echo(click.style(word, fg="green" if good else "red", bold=True) + f": {meaning}")
    groups = verdict.groups()
    for number, (group, checks) in enumerate(groups):
        last = number == len(groups) - 1
        click.echo(f"{'└' if last else '├'}─ {click.style(group, bold=True)}")
        _show_checks(checks, "   " if last else "│  ")
    left_out = verdict.left_out()
    if left_out:
        click.echo(click.style("not checked: ", fg="yellow") + ", ".join(name for name, _ in left_out))
        _show_rows([(name, meaning) for name, meaning in left_out if meaning])
    _show_rows(verdict.claims(whole=False))
    _show_rows(verdict.facts())
    for warning in verdict.warnings():
        click.echo(click.style(f"  {warning}", fg="yellow"))
    if good:
        click.echo("  Authentic is not acceptable: compare measurement, debug and TCB with what you expect.")


def _show_checks(checks: Sequence[Check], indent: str) -> None:
    width = max(len(check.id) for check in checks)
    for number, check in enumerate(checks):
        last = number == len(checks) - 1
        mark = click.style("✓", fg="green") if check.ok else click.style("✗", fg="red", bold=True)
        spec = click.style(check.spec, dim=True)
        click.echo(f"{indent}{'└' if last else '├'}─ {mark} {check.id:{width}}  {spec}")
        for name, value in difference(check):
            shown = value if len(value) <= _MAX or not check.ok else value[: _MAX - 1] + "…"
            click.echo(f"{indent}{' ' if last else '│'}      {name:8} {shown}")


def _show_rows(rows: Sequence[tuple[str, str]]) -> None:
    for name, value in rows:
        click.echo(f"  {name:12} {value}")
