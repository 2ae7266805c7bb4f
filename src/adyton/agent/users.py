"""Names of users in the image: ``/etc/passwd`` and ``/etc/group`` read as a chrooted process would read them.

The image's owner may be hostile to other images' owners, never to this agent: links that lead out of the root do not,
files are read to a limit, and what cannot be parsed is passed over as libc does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from adyton.agent import kernel
from adyton.errors import DocumentInvalid

MAX_FILE = 4 * 1024 * 1024
_MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class User:
    """Who the workload runs as. ``groups`` are the supplementary ones, ``home`` what HOME defaults to."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve(root: int, text: str) -> User:
    """``user[:group]``, each a name or a number, as ``podman run --user`` reads it; ``root`` is a directory's descriptor.

    A number need not exist in the image; without ``:group`` the user's own group is taken, or 0 for an unknown number.
    Supplementary groups are those that list the user, unless a group was given. ``DocumentInvalid`` for unknown names.
    """
    wanted, colon, wanted_group = text.partition(":")
    users = [entry for entry in _entries(root, "/etc/passwd", 7) if _is_number(entry[2]) and _is_number(entry[3])]
    groups = [entry for entry in _entries(root, "/etc/group", 4) if _is_number(entry[2])]
    wanted = wanted or "0"
    entry = next((user for user in users if user[0] == wanted), None)
    if entry is None and _is_number(wanted):
        entry = next((user for user in users if int(user[2]) == int(wanted)), None)
    if entry is None and not _is_number(wanted):
        raise _unknown("user", wanted)
    uid = int(entry[2]) if entry is not None else int(wanted)
    gid = int(entry[3]) if entry is not None else 0
    extra: tuple[int, ...] = ()
    if colon and wanted_group:
        gid = _group(groups, wanted_group)
    elif entry is not None:
        extra = tuple(sorted({int(group[2]) for group in groups if entry[0] in group[3].split(",")} - {gid}))
    if not (0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID and all(0 <= group <= _MAX_ID for group in extra)):
        raise _unknown("user", text)
    return User(uid, gid, extra, (entry[5] if entry is not None else "") or "/")


def _group(groups: list[list[str]], wanted: str) -> int:
    named = next((group for group in groups if group[0] == wanted), None)
    if named is not None:
        return int(named[2])
    if _is_number(wanted):
        return int(wanted)
    raise _unknown("group", wanted)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 11


def _entries(root: int, path: str, fields: int) -> Iterator[list[str]]:
    try:
        descriptor = kernel.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        data = bytearray()
        while len(data) < MAX_FILE and (piece := os.read(descriptor, 65536)):
            data += piece
    except OSError:
        return
    finally:
        os.close(descriptor)
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        parts = line.split(":")
        if len(parts) == fields and not line.startswith("#"):
            yield parts


def _unknown(what: str, name: str) -> DocumentInvalid:
    return DocumentInvalid(
        f"the image has no such {what}",
        code=f"{what}_unknown",
        field="user",
        expected=f"a name in the image's /etc/{'passwd' if what == 'user' else 'group'}, or a number",
        got=name[:80],
    )
