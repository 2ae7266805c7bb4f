"""Items as plain files, for ``--endorsements DIR``, and what can be said of one to a reader."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from adyton.collateral.items import Item
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import ConfigError
from adyton.rats.types import JsonValue

_NAME = 80


def lay_out(items: Iterable[Item], directory: Path) -> list[Path]:
    """Write each body, and each issuer chain beside it. ``ConfigError`` if the directory cannot be written."""
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for item in items:
            for suffix, content in ((_suffix(item.body), item.body), (".issuers.pem", item.chain)):
                if content:
                    path = directory / (_stem(item) + suffix)
                    path.write_bytes(content)
                    written.append(path)
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be written: {error.strerror}", code="output_unwritable", field=str(directory)
        ) from error
    return written


def _stem(item: Item) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", item.wanted.name)[:_NAME]
    return f"{readable}-{hashlib.sha256(item.wanted.name.encode() + item.body).hexdigest()[:12]}"


def _suffix(body: bytes) -> str:
    for begin, suffix in ((b"{", ".json"), (b"<", ".xml"), (b"-----BEGIN", ".pem")):
        if body.lstrip().startswith(begin):
            return suffix
    return ".der"


def describe(item: Item) -> dict[str, JsonValue]:
    """Digests, certificates, CRLs and the key that signed it, all for reading."""
    found = EndorsementSet.parse([item.body])
    issuers = EndorsementSet.parse([item.chain]).certificates if item.chain else ()
    described: dict[str, JsonValue] = {
        "size": len(item.body),
        "sha256": hashlib.sha256(item.body).hexdigest(),
        "signed by": item.facts.signer.hex() if item.facts.signer else None,
    }
    certificates: list[JsonValue] = [
        {"name": one.common_name, "sha256": one.digest.hex(), "expires": one.not_after.isoformat()}
        for one in (*found.certificates, *issuers)
    ]
    if certificates:
        described["certificates"] = certificates
    if found.crls:
        revoked: list[JsonValue] = [f"{entry.serial_number:x}" for crl in found.crls for entry in crl.parsed]
        described["revoked"] = revoked[:1000]
    if item.facts.order is not None:
        described["number"] = item.facts.order[0]
    return described
