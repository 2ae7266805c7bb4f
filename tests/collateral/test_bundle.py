"""One file, the same bytes for the same content; a file that is anything else is refused, whatever it tries."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.collateral.conftest import NOW
from tests.collateral.endorser import pem
from tests.collateral.test_items import document, vcek_of

from adyton.collateral import bundle, directory
from adyton.collateral.gather import as_set
from adyton.collateral.items import Item
from adyton.collateral.layout import describe, lay_out
from adyton.collateral.wanted import AmdChain, AmdCrl, IntelTcbInfo
from adyton.devtee.forge import Forge
from adyton.errors import EndorsementMalformed
from adyton.tee.snp.product import Product


@pytest.fixture(scope="module")
def items(forge: Forge) -> list[Item]:
    (_, leaf), (_, middle), (_, root) = forge.certificates
    from adyton.crypto.x509 import Certificate

    known = [Certificate(middle), Certificate(root)]
    return [
        Item.read(vcek_of(forge), leaf, url="https://kds/vcek", fetched=NOW, known=known),
        Item.read(AmdChain(Product.GENOA), pem(middle, root), url="https://kds/chain", fetched=NOW),
        Item.read(AmdCrl(Product.GENOA), forge.crl(), url="https://kds/crl", fetched=NOW, known=known),
    ]


def test_round_trip(items: list[Item], tmp_path: Path) -> None:
    written = bundle.write(items)
    assert bundle.write(reversed(items)) == written
    assert bundle.write([*items, *items]) == written
    assert bundle.is_bundle(written)
    assert bundle.is_bundle(written[:512])
    found = bundle.read(written)
    assert sorted(found, key=lambda item: item.wanted.name) == sorted(items, key=lambda item: item.wanted.name)
    assert bundle.write(found) == written
    assert bundle.endorsements(written) == as_set(items)
    path = tmp_path / "any.name"
    path.write_bytes(written)
    assert directory.load([path]) == as_set(items)
    (tmp_path / "bundle.tar").write_bytes(written)
    assert directory.load([tmp_path]) == as_set(items)
    with tarfile.open(path) as archive:  # and any tar reads it
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)["format"] == "adyton-endorsements/1"
    laid = tmp_path / "laid"
    assert len(lay_out(items, laid)) == 3
    assert directory.load([laid]) == as_set(items)


def test_a_large_bundle_is_read_from_a_directory(forge: Forge, tmp_path: Path) -> None:
    from adyton.collateral.wanted import NvidiaRim

    large = [
        Item.read(NvidiaRim(f"R{n}"), b"<SoftwareIdentity>" + bytes((65 + n,)) * 3_000_000, url="x", fetched=NOW)
        for n in range(3)
    ]
    path = tmp_path / "large.tar"
    path.write_bytes(bundle.write(large))
    assert len(directory.load([path]).documents) == 3


@pytest.mark.vectors
def test_issuers_travel_with_what_they_issued(vectors: Path) -> None:
    recorded = json.loads((vectors / "dcap-synthetic/sgx-uptodate.collateral.json").read_text())
    item = Item.read(
        IntelTcbInfo("sgx", bytes.fromhex("aabbccddeeff")),
        document(recorded, "tcb_info", "tcbInfo"),
        recorded["tcb_info_issuer_chain"].encode(),
        url="https://pcs/tcb",
        fetched=NOW,
    )
    (found,) = bundle.read(bundle.write([item]))
    assert found == item
    assert len(found.endorsements().certificates) == 2
    assert found.endorsements().documents == (item.body,)
    assert describe(item)["number"] == 20


def tar(*members: tuple[tarfile.TarInfo, bytes], kind: Literal[0, 1, 2] = 0) -> bytes:
    out = io.BytesIO()
    for header, content in members:
        out.write(header.tobuf(kind, "utf-8", "surrogateescape") + content + bytes(-len(content) % 512))
    return out.getvalue() + bytes(1024)


def info(name: str, content: bytes = b"", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for attribute, value in changes.items():
        setattr(header, attribute, value)
    return header, content


EMPTY = b'{"format":"adyton-endorsements/1","items":[]}'
BOMBS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no tar": lambda: b"manifest.json\0" + bytes(1000),
    "no manifest": lambda: tar(info("blobs/" + hashlib.sha256(b"x").hexdigest(), b"x")),
    "manifest later": lambda: tar(info("blobs/" + hashlib.sha256(b"x").hexdigest(), b"x"), info("manifest.json", EMPTY)),
    "up": lambda: tar(info("manifest.json", EMPTY), info("../x", b"x")),
    "up in blobs": lambda: tar(info("manifest.json", EMPTY), info("blobs/../x", b"x")),
    "absolute": lambda: tar(info("manifest.json", EMPTY), info("/etc/passwd", b"x")),
    "symlink": lambda: tar(info("manifest.json", EMPTY), info("blobs/" + "0" * 64, type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "hard link": lambda: tar(info("manifest.json", EMPTY), info("blobs/" + "0" * 64, type=tarfile.LNKTYPE, linkname="x")),
    "device": lambda: tar(info("manifest.json", EMPTY), info("blobs/" + "0" * 64, type=tarfile.CHRTYPE)),
    "directory": lambda: tar(info("manifest.json", EMPTY), info("blobs", type=tarfile.DIRTYPE)),
    "manifest is a link": lambda: tar(info("manifest.json", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "sparse": lambda: tar(info("manifest.json", EMPTY), info("blobs/" + "0" * 64, type=tarfile.GNUTYPE_SPARSE)),
    "pax": lambda: tar(info("manifest.json", EMPTY), info("blobs/" + "0" * 64, b"x", pax_headers={"size": "9999999999"}), kind=2),
    "long name": lambda: tar(info("manifest.json", EMPTY), info("blobs/" + "0" * 300, b"x"), kind=1),
    "huge member": lambda: tar(info("manifest.json", EMPTY), info("blobs/" + "0" * 64, size=7 * 1024**3)),
    "huge manifest": lambda: tar(info("manifest.json", b" " * (5 * 1024**2))),
    "unsaid content": lambda: tar(info("manifest.json", EMPTY), info("blobs/" + hashlib.sha256(b"x").hexdigest(), b"x")),
    "wrong digest": lambda: tar(info("manifest.json", EMPTY), info("blobs/" + "0" * 64, b"x")),
    "twice": lambda: tar(info("manifest.json", EMPTY), info("manifest.json", EMPTY)),
    "other format": lambda: tar(info("manifest.json", EMPTY.replace(b"/1", b"/2"))),
    "no JSON": lambda: tar(info("manifest.json", b"{")),
    "duplicate member": lambda: tar(info("manifest.json", EMPTY.replace(b'"items"', b'"format":"adyton-endorsements/1","items"'))),
    "unknown member": lambda: tar(info("manifest.json", EMPTY.replace(b'"items"', b'"more":1,"items"'))),
    "deep": lambda: tar(info("manifest.json", b"[" * 100_000)),
    "something after": lambda: tar(info("manifest.json", EMPTY)) + b"x",
    "cut off": lambda: tar(info("manifest.json", EMPTY))[:600],
    "larger than any": lambda: tar(info("manifest.json", EMPTY)) + bytes(bundle.MAX_SIZE),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str, tmp_path: Path) -> None:
    content = BOMBS[name]()
    with pytest.raises(EndorsementMalformed) as caught:
        bundle.read(content)
    assert caught.value.code == "bundle_malformed"
    path = tmp_path / "b.tar"
    path.write_bytes(content)
    with pytest.raises(EndorsementMalformed):
        directory.load([path])
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.tar"]


def changed(items: list[Item], change: Callable[[list[dict[str, object]]], None]) -> bytes:
    written = bundle.write(items)
    with tarfile.open(fileobj=io.BytesIO(written)) as archive:
        contents = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]  # files
    manifest = json.loads(contents.pop("manifest.json"))
    change(manifest["items"])
    return tar(
        info("manifest.json", json.dumps(manifest).encode()), *(info(name, body) for name, body in contents.items())
    )


@pytest.mark.parametrize(
    ("member", "value", "code"),
    [
        ("expires", (NOW + timedelta(days=9999)).isoformat(), "bundle_malformed"), ("issued", None, "bundle_malformed"),
        ("name", "amd/crl/Milan/x", "bundle_malformed"), ("name", "../x", "bundle_malformed"),
        ("name", "amd/chain/Genoa/vlek", "endorsement_unusable"), ("fetched", "2026-01-01T00:00:00", "bundle_malformed"),
        ("body", "sha256:" + "0" * 64, "bundle_malformed"), ("fetched", 5, "bundle_malformed"),
    ],
)  # fmt: skip
def test_a_manifest_that_lies(items: list[Item], member: str, value: object, code: str) -> None:
    def change(listed: list[dict[str, object]]) -> None:
        assert listed[0]["name"] == "amd/chain/Genoa/vcek"
        listed[0][member] = value

    with pytest.raises(EndorsementMalformed) as caught:
        bundle.read(changed(items, change))
    assert caught.value.code == code


@given(data=st.data())
def test_any_changed_byte_is_refused_or_says_the_same(items: list[Item], data: st.DataObject) -> None:
    written = bytearray(bundle.write(items))
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))
    try:
        found = bundle.read(bytes(written))
    except EndorsementMalformed:
        return
    assert {(item.wanted, item.body, item.chain) for item in found} == {(i.wanted, i.body, i.chain) for i in items}


@given(st.binary(max_size=2000))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(EndorsementMalformed):
        bundle.read(content)
