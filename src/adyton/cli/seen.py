"""``adyton audit platforms`` and ``receivers``: what the record tells about machines, and about who had a secret."""

from __future__ import annotations

from typing import Any

import click

from adyton.cli.administering import broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_table


@click.command()
@broker_options
@json_option
def platforms(as_json: bool, **options: Any) -> None:
    """Machines that attested, with the age of their trusted computing base."""
    from msgspec import to_builtins

    with open_admin(**options) as admin:
        seen = admin.platforms()
    if as_json:
        print_json(to_builtins(seen))
        return
    rows = (
        (one.platform[:24], one.tee, one.root, one.status, _levels(one.tcb), one.tcb_since, one.last_seen)
        for one in seen.platforms
    )
    print_table(("platform", "TEE", "root", "status", "TCB", "since", "last seen"), rows)


@click.command()
@click.argument("uri", required=False, default="")
@broker_options
@json_option
def receivers(uri: str, as_json: bool, **options: Any) -> None:
    """Who asked for the secret at URI, or for any, and who got it."""
    from msgspec import to_builtins

    from adyton.protocol.resource import ResourcePath

    with open_admin(**options) as admin:
        seen = admin.receivers(ResourcePath.parse(uri).uri if uri else "")
    if as_json:
        print_json(to_builtins(seen))
        return
    rows = (
        (one.resource, one.tee, one.measurement[:16], one.host_data[:16], one.released, one.refused, one.last)
        for one in seen.receivers
    )
    print_table(("resource", "TEE", "measurement", "host data", "released", "refused", "last"), rows)


def _levels(tcb: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in tcb.items())
