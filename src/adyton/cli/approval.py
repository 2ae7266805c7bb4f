"""``adyton approval``: changes that wait until several people agree."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.cli.verdict import text
from adyton.client.people import People
from adyton.protocol.people import ProposalView


@click.group(cls=Noun)
def approval() -> None:
    """List, show, approve and reject what waits for several people."""


@approval.command("list")
@click.option("--all", "all_", is_flag=True, help="Also what is decided.")
@broker_options
@json_option
def list_(all_: bool, as_json: bool, **options: Any) -> None:
    """List what waits."""
    with open_admin(**options) as admin:
        found = People(admin).list_proposals(decided=all_)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    print_table(
        ("id", "action", "path", "by", "state", "agreed", "until"),
        [
            (one.id, one.action, one.path, one.by, one.state, f"{one.agreed} of {one.needed}", one.expires)
            for one in found
        ],
    )


@approval.command()
@click.argument("number", metavar="ID")
@broker_options
@json_option
def show(number: str, as_json: bool, **options: Any) -> None:
    """Show the exact request that waits, and who said what."""
    with open_admin(**options) as admin:
        _said(People(admin).show_proposal(number), as_json)


@approval.command()
@click.argument("number", metavar="ID")
@click.argument("digest", metavar="SHA256")
@broker_options
@json_option
def approve(number: str, digest: str, as_json: bool, **options: Any) -> None:
    """Approve the request with this digest (see show). It is carried out when enough have."""
    with open_admin(**options) as admin:
        _said(People(admin).vote(number, digest.removeprefix("sha256:"), "approve"), as_json)


@approval.command()
@click.argument("number", metavar="ID")
@click.argument("digest", metavar="SHA256")
@broker_options
@json_option
def reject(number: str, digest: str, as_json: bool, **options: Any) -> None:
    """Reject the request with this digest. One rejection ends it."""
    with open_admin(**options) as admin:
        _said(People(admin).vote(number, digest.removeprefix("sha256:"), "reject"), as_json)


def _said(view: ProposalView, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(view))
        return
    lines = [
        f"{view.id}  {view.action}, by {view.by}, {view.state}: {view.agreed} of {view.needed} agree, until {view.expires}",
        f"request   {view.method} {view.path}",
        *([f"body      {view.shown}"] if view.shown else []),
        *(f"{one.choice:9} {one.who} at {one.time}" for one in view.votes),
        *([f"outcome   {view.outcome}"] if view.outcome else []),
        f"digest    sha256:{view.digest}",
    ]
    for line in lines:  # a line each, whatever the proposer put into them: none of theirs may pass for one of ours
        say(text(line))
