"""How policies are named on the command line: ``KIND/ID``, or ``ID`` alone where that says which is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adyton.cli.binding import read_text

if TYPE_CHECKING:
    from adyton.client.admin import Admin

KINDS = ("attestation", "resource", "requirements")
DEFAULTS = {"attestation": "default_cpu", "resource": "resource-policy", "requirements": "snp"}
_REQUIREMENTS = frozenset({"snp", "release", "record"})
_CLASSES = ("_cpu", "_gpu", "_switch", "_ppcie")
NAME = click.argument("name", metavar="[KIND/]ID")
KIND = click.Choice(KINDS)


def kind_of(name: str) -> tuple[str, str] | None:
    """Kind and id, where the name says so itself."""
    kind, slash, rest = name.partition("/")
    if slash:
        if kind not in KINDS or not rest:
            raise click.UsageError(f"{name} is not KIND/ID; kinds: {', '.join(KINDS)}")
        return kind, rest
    if name == DEFAULTS["resource"]:
        return "resource", name
    if name in _REQUIREMENTS:
        return "requirements", name
    return ("attestation", name) if name.endswith(_CLASSES) else None


def found(admin: Admin, name: str) -> tuple[str, str]:
    """Kind and id; where the name alone does not say, the one policy that has it."""
    known = kind_of(name)
    if known is not None:
        return known
    kinds = [view.kind for view in admin.list_policies(every=True) if view.id == name]
    if len(kinds) != 1:
        raise click.UsageError(f"{'several kinds' if kinds else 'no'} policy {name!r}: give it as KIND/ID")
    return kinds[0], name


read = read_text
"""A policy's text; ``ConfigError`` ``file_unreadable``."""
