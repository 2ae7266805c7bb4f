"""Merkle trees against a naive implementation of RFC 6962's definitions, and every way to change a proof."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.crypto import merkle
from adyton.crypto.merkle import Frontier
from adyton.errors import LogBroken

# The leaves of certificate-transparency's own tests, and the roots of the trees over the first n of them.
DATA = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    bytes(range(0x50, 0x58)),
    bytes(range(0x60, 0x70)),
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


# The definitions of RFC 6962 2.1, word for word and without any thought for speed.
def naive_root(data: Sequence[bytes]) -> bytes:
    if not data:
        return hashlib.sha256().digest()
    if len(data) == 1:
        return hashlib.sha256(b"\x00" + data[0]).digest()
    k = naive_split(len(data))
    return hashlib.sha256(b"\x01" + naive_root(data[:k]) + naive_root(data[k:])).digest()


def naive_split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def naive_path(m: int, data: Sequence[bytes]) -> list[bytes]:
    if len(data) == 1:
        return []
    k = naive_split(len(data))
    if m < k:
        return [*naive_path(m, data[:k]), naive_root(data[k:])]
    return [*naive_path(m - k, data[k:]), naive_root(data[:k])]


def naive_proof(m: int, data: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    if m == len(data):
        return [] if whole else [naive_root(data)]
    k = naive_split(len(data))
    if m <= k:
        return [*naive_proof(m, data[:k], whole=whole), naive_root(data[k:])]
    return [*naive_proof(m - k, data[k:], whole=False), naive_root(data[:k])]


class Tree:
    """Leaves, and nodes as the functions ask for them."""

    def __init__(self, data: Sequence[bytes]) -> None:
        self.data = data
        self.leaves = [merkle.leaf_hash(item) for item in data]

    def __call__(self, level: int, number: int) -> bytes:
        found = self.leaves[number << level : (number + 1) << level]
        assert len(found) == 1 << level  # only complete subtrees are asked for
        return merkle.perfect(found)


def numbered(size: int) -> Tree:
    return Tree([b"%d" % number for number in range(size)])


def flipped(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value) ^ 1 << bit % (8 * len(value))).to_bytes(len(value))


def changed(path: Sequence[bytes], draw: st.DataObject) -> list[bytes]:
    """Another path: a bit, an order, a part less, a part more, a part of another length."""
    ways = ["more", "long"] if not path else ["bit", "less", "more", "short"]
    if len(set(path)) > 1:
        ways.append("order")
    way, at = draw.draw(st.sampled_from(ways)), draw.draw(st.integers(0, max(len(path) - 1, 0)))
    copy = list(path)
    if way == "bit":
        copy[at] = flipped(copy[at], draw.draw(st.integers(0, 255)))
    elif way == "less":
        del copy[at]
    elif way == "more":
        copy.insert(at, draw.draw(st.sampled_from([bytes(32), *path])))
    elif way == "short":
        copy[at] = copy[at][:31]
    elif way == "long":
        copy.append(bytes(33))
    else:
        other = next(number for number, item in enumerate(copy) if item != copy[at])
        copy[at], copy[other] = copy[other], copy[at]
    return copy


sizes = st.integers(1, 70)


@settings(deadline=None)
@given(sizes, st.data())
def test_a_changed_inclusion_proof_never_verifies(size: int, draw: st.DataObject) -> None:
    tree = numbered(size)
    index = draw.draw(st.integers(0, size - 1))
    root, path = merkle.root(size, tree), merkle.inclusion(index, size, tree)
    merkle.verify_inclusion(tree.leaves[index], index, size, path, root)
    bit = draw.draw(st.integers(0, 255))
    with pytest.raises(LogBroken):
        merkle.verify_inclusion(flipped(tree.leaves[index], bit), index, size, path, root)
    with pytest.raises(LogBroken):
        merkle.verify_inclusion(tree.leaves[index], index, size, path, flipped(root, bit))
    with pytest.raises(LogBroken):
        merkle.verify_inclusion(tree.leaves[index], index, size, changed(path, draw), root)
    other = draw.draw(st.integers(-2, size + 2).filter(lambda number: number != index))
    with pytest.raises(LogBroken):
        merkle.verify_inclusion(tree.leaves[index], other, size, path, root)
    bigger = draw.draw(st.integers(0, 150).filter(lambda number: number != size))
    with pytest.raises(LogBroken):  # size and root come from one checkpoint
        merkle.verify_inclusion(tree.leaves[index], index, bigger, path, merkle.root(bigger, numbered(bigger)))


@settings(deadline=None)
@given(sizes, st.data())
def test_a_changed_consistency_proof_never_verifies(new: int, draw: st.DataObject) -> None:
    tree = numbered(new)
    old = draw.draw(st.integers(1, new))
    before, now = merkle.root(old, tree), merkle.root(new, tree)
    path = merkle.consistency(old, new, tree)
    merkle.verify_consistency(old, before, new, now, path)
    bit = draw.draw(st.integers(0, 255))
    for first, last in ((flipped(before, bit), now), (before, flipped(now, bit))):
        with pytest.raises(LogBroken):
            merkle.verify_consistency(old, first, new, last, path)
    with pytest.raises(LogBroken):
        merkle.verify_consistency(old, before, new, now, changed(path, draw))
    other = draw.draw(st.integers(0, new + 3).filter(lambda number: number != old))
    with pytest.raises(LogBroken):
        merkle.verify_consistency(other, before, new, now, path)
    with pytest.raises(LogBroken):
        merkle.verify_consistency(new, now, old, before, path if old != new else [bytes(32)])


@settings(deadline=None)
@given(st.integers(2, 70), st.data())
def test_a_tree_with_one_row_changed_is_not_consistent(new: int, draw: st.DataObject) -> None:
    tree = numbered(new)
    old = draw.draw(st.integers(1, new))
    before = merkle.root(old, tree)
    row = draw.draw(st.integers(0, old - 1))
    forged = Tree([b"forged" if number == row else item for number, item in enumerate(tree.data)])
    with pytest.raises(LogBroken):
        merkle.verify_consistency(old, before, new, merkle.root(new, forged), merkle.consistency(old, new, forged))


@pytest.mark.parametrize("path", [[b""], [bytes(31)], [bytes(33)]])
def test_what_is_no_hash_is_refused(path: list[bytes]) -> None:
    with pytest.raises(LogBroken, match="32 bytes"):
        merkle.verify_inclusion(bytes(32), 0, 2, path, bytes(32))
    with pytest.raises(LogBroken, match="32 bytes"):
        merkle.verify_consistency(1, bytes(32), 2, bytes(32), path)
    with pytest.raises(LogBroken):
        merkle.verify_inclusion(bytes(31), 0, 1, [], bytes(32))


def test_a_log_that_shrank_or_lost_its_beginning_is_refused() -> None:
    tree = numbered(5)
    with pytest.raises(LogBroken, match="shrunk"):
        merkle.verify_consistency(5, merkle.root(5, tree), 4, merkle.root(4, tree), [])
    with pytest.raises(LogBroken):
        merkle.verify_consistency(0, bytes(32), 5, merkle.root(5, tree), [])
    with pytest.raises(LogBroken):
        merkle.verify_consistency(3, merkle.root(3, tree), 5, merkle.root(5, tree), [])
    with pytest.raises(LogBroken):
        merkle.verify_consistency(5, merkle.root(5, tree), 5, bytes(32), [])


def test_a_node_never_passes_for_a_leaf() -> None:
    left, right = merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")
    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: merkle.inclusion(3, 3, numbered(3)),
        lambda: merkle.inclusion(-1, 3, numbered(3)),
        lambda: merkle.consistency(4, 3, numbered(3)),
        lambda: merkle.perfect([]),
        lambda: merkle.perfect([bytes(32)] * 3),
        lambda: Frontier(3, [bytes(32)]),
        lambda: Frontier(1, [bytes(31)]),
        lambda: Frontier(-1),
    ],
)
def test_a_programmers_misuse_is_a_value_error(misuse: object) -> None:
    with pytest.raises(ValueError):
        misuse()  # type: ignore[operator]


def test_the_roots_of_certificate_transparency() -> None:
    edge = Frontier()
    for size, expected in enumerate(ROOTS):
        assert naive_root(DATA[:size]).hex() == expected
        assert edge.root().hex() == expected == merkle.root(size, Tree(DATA)).hex()
        if size < len(DATA):
            edge.push(merkle.leaf_hash(DATA[size]))


def test_the_proofs_of_certificate_transparency() -> None:
    tree = Tree(DATA)
    assert [item.hex() for item in merkle.inclusion(0, 8, tree)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [item.hex() for item in merkle.consistency(6, 8, tree)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@pytest.mark.parametrize("size", [*range(20), 63, 64, 65])
def test_all_is_as_the_naive_definitions_have_it(size: int) -> None:
    tree = numbered(size)
    root = naive_root(tree.data)
    assert merkle.root(size, tree) == root
    edge = merkle.frontier(size, tree)
    assert edge.root() == root and edge.size == size
    for index in range(size):
        path = naive_path(index, tree.data)
        assert merkle.inclusion(index, size, tree) == path
        merkle.verify_inclusion(tree.leaves[index], index, size, path, root)
    for old in range(size + 1):
        proof = naive_proof(old, tree.data) if old else []
        assert merkle.consistency(old, size, tree) == proof
        merkle.verify_consistency(old, naive_root(tree.data[:old]), size, root, proof)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=80), st.integers(0, 80))
def test_growing_from_any_frontier_gives_the_root_of_the_whole(data: list[bytes], at: int) -> None:
    tree = Tree(data)
    kept = merkle.frontier(min(at, len(data)), tree)
    grown = Frontier(kept.size, kept.peaks)
    for leaf in tree.leaves[kept.size :]:
        grown.push(leaf)
    assert grown.root() == naive_root(data)
    assert len(grown.peaks) == len(data).bit_count()
