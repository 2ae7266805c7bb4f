"""Merkle trees as RFC 6962 and RFC 9162 (2.1) have them: an append-only list under one hash of 32 bytes.

A leaf's hash is SHA-256 of 0x00 and its data, a node's SHA-256 of 0x01 and its two children, so neither can pass for the
other. The hash of no leaves is SHA-256 of nothing. A *node* (level, number) is the complete subtree over the leaves
``number << level`` to ``(number + 1) << level``, the end not included; complete subtrees never change once the tree has
grown past them, and every hash that this module asks for is one of them.

The root does not bind the size: the same root can be shown with proofs of the same shape for another size. Size and root
belong together, and come from one signed checkpoint.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeAlias

from adyton.errors import LogBroken

HASH_SIZE = 32
EMPTY = hashlib.sha256(b"").digest()
_SPEC = "RFC 9162 2.1"
_sha256 = hashlib.sha256

Nodes: TypeAlias = Callable[[int, int], bytes]
"""Gives the hash of a complete subtree by its level and number."""


def leaf_hash(data: bytes) -> bytes:
    """What stands for ``data`` in a tree."""
    return _sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """What stands for two neighbours."""
    return _sha256(b"\1" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: the complete subtrees that it is made of, the largest first.

    All that is needed to append and to know the root; ``size.bit_count()`` hashes.
    """

    __slots__ = ("_peaks", "_size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if size < 0 or len(peaks) != size.bit_count() or any(len(peak) != HASH_SIZE for peak in peaks):
            raise ValueError("a frontier has one hash for each bit of its size")
        self._size = size
        self._peaks = list(peaks)

    @property
    def size(self) -> int:
        """How many leaves."""
        return self._size

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The hashes, from left to right."""
        return tuple(self._peaks)

    def push(self, leaf: bytes) -> None:
        """Append one leaf, given its hash; one hash is computed on average, ``log2(size)`` at most."""
        peaks, rest = self._peaks, self._size
        while rest & 1:
            leaf = _sha256(b"\1" + peaks.pop() + leaf).digest()
            rest >>= 1
        peaks.append(leaf)
        self._size += 1

    def root(self) -> bytes:
        """The hash of the whole tree as it is now."""
        return _fold(self._peaks)


def perfect(hashes: Sequence[bytes]) -> bytes:
    """The node over a power of two of neighbouring nodes of one level; ``ValueError`` for another number."""
    if not hashes or len(hashes) & (len(hashes) - 1):
        raise ValueError("not a power of two")
    row = list(hashes)
    while len(row) > 1:
        row = [_sha256(b"\1" + row[at] + row[at + 1]).digest() for at in range(0, len(row), 2)]
    return row[0]


def root(size: int, nodes: Nodes) -> bytes:
    """The hash of the first ``size`` leaves."""
    return _range(0, size, nodes)


def frontier(size: int, nodes: Nodes) -> Frontier:
    """The right edge of the first ``size`` leaves."""
    return Frontier(size, [nodes(level, number) for level, number in _cover(0, size)])


def inclusion(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """The path that proves leaf ``index`` (from 0) to be in the tree of ``size``; RFC 9162 2.1.3.1."""
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    start, end, beside = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            beside.append((middle, end))
            end = middle
        else:
            beside.append((start, middle))
            start = middle
    return [_range(*part, nodes) for part in reversed(beside)]


def consistency(old: int, new: int, nodes: Nodes) -> list[bytes]:
    """The path that proves the tree of ``old`` leaves to be the beginning of that of ``new``; RFC 9162 2.1.4.1.

    Empty where nothing need be proved: equal sizes, or ``old`` 0.
    """
    if not 0 <= old <= new:
        raise ValueError("a tree does not shrink")
    if old in {0, new}:
        return []
    start, end, beside = 0, new, []
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            beside.append((middle, end))
            end = middle
        else:
            beside.append((start, middle))
            start = middle
    if start:  # else the verifier has this node: it is the old root
        beside.append((start, end))
    return [_range(*part, nodes) for part in reversed(beside)]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected: bytes) -> None:
    """Leaf number ``index`` (from 0) of the tree of ``size`` with this root has this hash, or ``LogBroken``."""
    _check(path, leaf, expected)
    if not 0 <= index < size:
        raise _broken("the leaf is not within the tree", "index", f"below {size}", index)
    number, last = index, size - 1
    found = leaf
    for beside in path:
        if not last:
            raise _broken("the path is too long", "path", None, len(path))
        if number & 1 or number == last:
            found = node_hash(beside, found)
            while not number & 1 and number:
                number >>= 1
                last >>= 1
        else:
            found = node_hash(found, beside)
        number >>= 1
        last >>= 1
    if last:
        raise _broken("the path is too short", "path", None, len(path))
    _same(found, expected, "the row is not in the log")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """The first ``old`` leaves of the new tree are the old tree, or ``LogBroken``."""
    _check(path, old_root, new_root)
    if not 0 <= old <= new:
        raise _broken("the log has shrunk", "size", f"at least {old}", new)
    if old in {0, new}:
        if path:
            raise _broken("the path is too long", "path", 0, len(path))
        _same(old_root, EMPTY if old == 0 else new_root, "two logs of one size differ")
        return
    steps = [old_root, *path] if not old & (old - 1) else list(path)
    if not steps:
        raise _broken("the path is too short", "path", None, 0)
    number, last = old - 1, new - 1
    while number & 1:
        number >>= 1
        last >>= 1
    first = second = steps[0]
    for beside in steps[1:]:
        if not last:
            raise _broken("the path is too long", "path", None, len(path))
        if number & 1 or number == last:
            first, second = node_hash(beside, first), node_hash(beside, second)
            while not number & 1 and number:
                number >>= 1
                last >>= 1
        else:
            second = node_hash(second, beside)
        number >>= 1
        last >>= 1
    if last:
        raise _broken("the path is too short", "path", None, len(path))
    _same(first, old_root, "what was the log before is not its beginning now")
    _same(second, new_root, "the log is not what its checkpoint says")


def _split(size: int) -> int:
    """The largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def _cover(start: int, end: int) -> list[tuple[int, int]]:
    """The nodes that a range is made of, the largest first; ``start`` is a multiple of the largest."""
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def _range(start: int, end: int, nodes: Nodes) -> bytes:
    return _fold([nodes(level, number) for level, number in _cover(start, end)])


def _fold(peaks: Sequence[bytes]) -> bytes:
    if not peaks:
        return EMPTY
    return reduce(lambda right, left: node_hash(left, right), reversed(peaks[:-1]), peaks[-1])


def _check(path: Sequence[bytes], *hashes: bytes) -> None:
    if any(len(item) != HASH_SIZE for item in (*path, *hashes)):
        raise _broken("a hash has 32 bytes", "path", HASH_SIZE, None)


def _same(found: bytes, expected: bytes, message: str) -> None:
    if not hmac.compare_digest(found, expected):
        raise _broken(message, "root", expected, found)


def _broken(message: str, field: str, expected: object, got: object) -> LogBroken:
    return LogBroken(message, code="proof_broken", field=field, expected=expected, got=got, spec=_SPEC)
