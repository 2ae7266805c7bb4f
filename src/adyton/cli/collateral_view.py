"""Endorsements as rows of a table: what expires first above, and what is stale marked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from adyton.cli.output import print_json, print_table

if TYPE_CHECKING:
    from adyton.collateral.items import Item


def row(item: Item, at: datetime) -> dict[str, Any]:
    """One item as ``--json`` prints it."""
    facts = item.facts
    return {
        "name": item.wanted.name,
        "state": _state(item, at),
        "issued": facts.issued.isoformat() if facts.issued else None,
        "expires": facts.expires.isoformat() if facts.expires else None,
        "subject": facts.subject,
        "from": item.url,
        "fetched": item.fetched.isoformat(timespec="seconds"),
    }


def _state(item: Item, at: datetime) -> str:
    from adyton.collateral.cache import Stored
    from adyton.collateral.collector import fresh_until

    facts = item.facts
    if facts.expires is not None and facts.expires < at:
        return "expired"
    if facts.issued is not None and facts.issued > at:
        return "not yet valid"
    return "valid" if fresh_until(Stored(item, None)) > at else "stale"


def print_items(found: Sequence[Item], at: datetime, *, as_json: bool) -> None:
    """All of them, as a table or as one JSON object a line."""
    ordered = sorted(found, key=lambda item: (item.facts.expires is None, item.facts.expires or at, item.wanted.name))
    rows = [row(item, at) for item in ordered]
    if as_json:
        for each in rows:
            print_json(each)
        return
    print_table(
        ("name", "state", "expires", "subject"),
        ((_short(each["name"]), each["state"], each["expires"], each["subject"]) for each in rows),
    )


def _short(name: str) -> str:
    """A name for a table: what is longer than a digest is cut in its middle."""
    return "/".join(part if len(part) <= 40 else f"{part[:8]}…{part[-8:]}" for part in name.split("/"))
