"""What the broker says of its back ends and plug-ins to an owner."""

from __future__ import annotations

import msgspec


class BackendView(msgspec.Struct, frozen=True):
    """A back end or plug-in as it was found just now.

    ``says`` is what it calls itself; ``code``, ``error`` and ``hint`` why it does not work; ``breaker`` is ``closed``
    while calls go through, ``open`` while it is left alone, ``trying`` when the next call decides. ``waiting`` counts what is to be removed there,
    ``unfinished`` what may have been put there by a request that did not end, and is looked for.
    """

    name: str
    kind: str
    ok: bool
    says: str = ""
    code: str = ""
    error: str = ""
    hint: str = ""
    breaker: str = "closed"
    waiting: int = 0
    unfinished: int = 0
