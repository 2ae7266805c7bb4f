"""``adyton broker backends``: how the broker's back ends are."""

from __future__ import annotations

import sys
from typing import Any

import click

from adyton.cli.administering import broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_table


@click.command()
@broker_options
@json_option
def backends(as_json: bool, **options: Any) -> None:
    """Ask each back end that the tenant may use whether it works. Exit 1 if one does not."""
    from msgspec import to_builtins

    with open_admin(**options) as admin:
        views = admin.backends()
    if as_json:
        for view in views:
            print_json(to_builtins(view))
    else:
        rows = (
            (
                v.name,
                v.kind,
                "yes" if v.ok else "NO",
                v.waiting or "",
                v.unfinished or "",
                v.says or f"{v.error} [{v.code}] {v.hint}",
            )
            for v in views
        )
        print_table(("name", "kind", "works", "to remove", "unfinished", "says"), rows)
    if not all(view.ok for view in views):
        sys.exit(1)
