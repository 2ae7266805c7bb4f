"""``adyton-endorsements/1``: endorsements in one file, for where there is no network. A tar, the same bytes for the same content.

::

    manifest.json      {"format": "adyton-endorsements/1", "items": [{"name", "subject", "url", "fetched", "issued",
                        "expires", "body": "sha256:...", "chain": "sha256:..."|null}...]}, sorted by name, then issued
    blobs/<sha256>     each body and each issuer chain once, sorted

Plain ustar: regular files only, owner and times zero, mode 0644. Reading takes exactly this: another kind of member, another
name, a size or a digest that is not the manifest's, and the whole file is refused. Nothing is unpacked to disk.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import tarfile
from collections.abc import Iterable
from datetime import datetime
from io import BytesIO
from typing import Any

import msgspec

from adyton.collateral import wanted as names
from adyton.collateral.gather import as_set
from adyton.collateral.items import Item
from adyton.crypto.x509 import MAX_SIZE as MAX_MEMBER
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import AdytonError, EndorsementMalformed
from adyton.wire import strict_json

FORMAT = "adyton-endorsements/1"
MAX_SIZE = 64 * 1024 * 1024
MAX_ITEMS = 10_000
_MANIFEST = "manifest.json"
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_NAME = re.compile(r"blobs/([0-9a-f]{64})\Z")


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    subject: str
    url: str
    fetched: datetime
    issued: datetime | None
    expires: datetime | None
    body: str
    chain: str | None


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    items: list[_Entry]


def is_bundle(content: bytes) -> bool:
    """Whether these bytes, or the first 512 of them, begin as a bundle does."""
    return content[: len(_MANIFEST) + 1] == _MANIFEST.encode() + b"\0" and content[257:262] == b"ustar"


def write(items: Iterable[Item]) -> bytes:
    """The bundle of these items."""
    unique = {(item.wanted.name, item.body): item for item in items}
    ordered = sorted(unique.values(), key=lambda item: (item.wanted.name, item.facts.issued or item.fetched, item.body))
    blobs: dict[str, bytes] = {}
    listed = [_listed(item, blobs) for item in ordered]
    manifest = json.dumps({"format": FORMAT, "items": listed}, indent=1, ensure_ascii=False).encode("utf-8") + b"\n"
    out = BytesIO()
    for name, content in [(_MANIFEST, manifest), *((f"blobs/{digest}", blobs[digest]) for digest in sorted(blobs))]:
        header = tarfile.TarInfo(name)
        header.size, header.mode = len(content), 0o644
        out.write(header.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict") + content + bytes(-len(content) % _BLOCK))
    out.write(_END)
    return out.getvalue()


def _listed(item: Item, blobs: dict[str, bytes]) -> dict[str, Any]:
    def kept(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return f"sha256:{digest}"

    return {
        "name": item.wanted.name,
        "subject": item.facts.subject,
        "url": item.url,
        "fetched": item.fetched.isoformat(),
        "issued": item.facts.issued.isoformat() if item.facts.issued else None,
        "expires": item.facts.expires.isoformat() if item.facts.expires else None,
        "body": kept(item.body),
        "chain": kept(item.chain) if item.chain else None,
    }


def read(content: bytes) -> list[Item]:
    """The items of a bundle, each read as if it had just been fetched. ``EndorsementMalformed`` if anything is not as it must be."""
    if len(content) > MAX_SIZE:
        raise _malformed(f"larger than {MAX_SIZE} bytes")
    members = _members(content)
    try:
        strict_json.parse(members.get(_MANIFEST, b""), max_size=MAX_MEMBER)  # no member twice
        manifest = msgspec.json.decode(members.pop(_MANIFEST), type=_Manifest)
    except (*strict_json.UNREADABLE, KeyError) as error:
        raise _malformed("its manifest cannot be read") from error
    if manifest.format != FORMAT or len(manifest.items) > MAX_ITEMS:
        raise _malformed("it is of another format, or has too many items", got=manifest.format[:60], expected=FORMAT)
    used = {digest for entry in manifest.items for digest in (entry.body, entry.chain) if digest}
    if used != {f"sha256:{name.removeprefix('blobs/')}" for name in members}:
        raise _malformed("its manifest speaks of other contents than there are")
    chains = [entry for entry in manifest.items if entry.name.startswith("amd/chain/") or entry.chain]
    known = _certificates(members[_path(entry.chain or entry.body)] for entry in chains)
    return [_item(entry, members, known) for entry in manifest.items]


def _item(entry: _Entry, members: dict[str, bytes], known: EndorsementSet) -> Item:
    if entry.fetched.tzinfo is None:
        raise _malformed("a time has no time zone")
    try:
        wanted = names.parse(entry.name)
    except ValueError as error:
        raise _malformed(f"it holds what nobody can ask for: {entry.name[:80]}") from error
    body = members[_path(entry.body)]
    chain = members[_path(entry.chain)] if entry.chain else b""
    item = Item.read(wanted, body, chain, url=entry.url[:2000], fetched=entry.fetched, known=known.certificates)
    if (item.facts.issued, item.facts.expires) != (entry.issued, entry.expires):
        raise _malformed(f"its manifest gives {entry.name[:80]} another validity than the thing itself")
    return item


def _certificates(chains: Iterable[bytes]) -> EndorsementSet:
    try:
        return EndorsementSet.parse(chains)
    except AdytonError as error:
        raise _malformed(f"a chain cannot be read: {error.message}") from error


def _path(digest: str) -> str:
    return f"blobs/{digest.removeprefix('sha256:')}"


def endorsements(content: bytes) -> EndorsementSet:
    """Everything in a bundle as verification takes it."""
    return as_set(read(content))


def _members(content: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    offset = 0
    while True:
        block = content[offset : offset + _BLOCK]
        if block == bytes(_BLOCK):
            break
        try:
            header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise _malformed("it is cut off, or not a tar") from error
        name, size = header.name, header.size
        expected = _MANIFEST if not found else name
        if header.type != tarfile.REGTYPE or block[257:265] != b"ustar\x0000" or name != expected or name in found:
            raise _malformed("it has a member that is none of ours", got=name[:100])
        match = _NAME.match(name)
        if (match is None and name != _MANIFEST) or not 0 <= size <= MAX_MEMBER or len(found) > 2 * MAX_ITEMS:
            raise _malformed("it has a member that is none of ours", got=name[:100])
        begin = offset + _BLOCK
        data = content[begin : begin + size]
        if len(data) != size:
            raise _malformed("it is cut off")
        if match is not None and not hmac.compare_digest(hashlib.sha256(data).hexdigest(), match[1]):
            raise _malformed("a content is not what its digest says", got=name[:100])
        found[name] = data
        offset = begin + size + -size % _BLOCK
    if any(content[offset:]):
        raise _malformed("something follows its end")
    return found


def _malformed(why: str, *, expected: object = None, got: object = None) -> EndorsementMalformed:
    return EndorsementMalformed(
        f"not a bundle of endorsements: {why}",
        code="bundle_malformed",
        field="bundle",
        expected=expected,
        got=got,
        spec=FORMAT,
        hint="get it again from whoever made it: adyton collateral bundle -o FILE",
    )
