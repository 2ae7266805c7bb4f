"""SWID tags and TCG reference integrity manifests: XML under one enveloped signature (ISO 19770-2, TCG RIM 1.01).

The signature is of the one form that ``crypto.xmldsig`` reads (ECDSA P-384, SHA-384), by one of the provider's keys; the
certificates inside are nobody's word. Two kinds of payload become values:

* ``Resource`` of type ``Measurement`` (NVIDIA's manifests): ``<manufacturer>.<edition>.measurement_<index>``, spaces and
  dashes as ``_``, a list of the alternatives that are not all zeros. These are the names that CoCo's service gives.
* ``File`` with a hash of SHA-256, SHA-384 or SHA-512 below ``Directory`` elements: the path, joined by slashes.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.errors import EndorsementMalformed
from adyton.provenance import digests, dsse
from adyton.provenance.provider import Provider
from adyton.provenance.values import MAX_VALUES, Stated, Statement, refused
from adyton.rats.types import JsonValue

KIND = "swid"
SPEC = "ISO/IEC 19770-2, TCG RIM information model 1.01"
_SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_RIM = "{https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
_ALGORITHMS = {
    "{http://www.w3.org/2001/04/xmlenc#sha256}": "sha256",
    "{http://www.w3.org/2001/04/xmlenc#sha384}": "sha384",
    "{http://www.w3.org/2001/04/xmldsig-more#sha384}": "sha384",
    "{http://www.w3.org/2001/04/xmlenc#sha512}": "sha512",
}
_INDEX = re.compile(r"\d{1,5}\Z")
_VERSION = re.compile(r"\d{1,9}\Z")
_FALSE = frozenset({"False", "false", "0"})


class Swid:
    """Reads signed SWID tags."""

    kind = KIND

    def recognises(self, parsed: object, document: bytes) -> bool:
        """XML that speaks of a software identity."""
        head = document[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
        return parsed is None and head.startswith(b"<") and b"SoftwareIdentity" in head

    def extract(self, parsed: Any, document: bytes, provider: Provider, now: datetime) -> Statement:
        """Verify, then read what was signed and nothing else."""
        from adyton.crypto import xmldsig  # libxml2 is loaded when the first tag comes

        try:
            signed = xmldsig.parse(document)
            root = xmldsig.read(signed.content)
        except EndorsementMalformed as error:
            raise _malformed("document", "one enveloped signature, ECDSA P-384 with SHA-384", error.message) from error
        signers = [
            key.id
            for key in provider.keys
            if isinstance(key.public, ec.EllipticCurvePublicKey)
            and key.public.curve.name == "secp384r1"
            and signed.is_signed_by(key.public)
        ]
        found = dsse.enough(signers, provider.threshold)
        if not signed.digest_matches():
            raise refused(
                "the document was changed after it was signed",
                "swid_digest",
                field="DigestValue",
                expected=signed.digest,
                got=hashlib.sha384(signed.content).digest(),
                spec=SPEC,
            )
        return _read(root, hashlib.sha256(b"swid\0" + signed.content).digest(), found)


def _read(root: Any, proof: bytes, signers: frozenset[str]) -> Statement:
    if root.tag != _SWID + "SoftwareIdentity":
        raise _malformed("root", "SoftwareIdentity", root.tag)
    tag_id, version = root.get("tagId", ""), root.get("tagVersion", "0")
    if not tag_id or not _VERSION.match(version):
        raise _malformed("tagId, tagVersion", "an id and a whole number", f"{tag_id[:60]}, {version[:20]}")
    if any(root.get(name, "false") not in _FALSE for name in ("patch", "supplemental")):
        raise _malformed("root", "a tag of its own", "a patch or a supplement")
    payloads = root.findall(_SWID + "Payload")
    if len(payloads) != 1:
        raise _malformed("Payload", "exactly one", len(payloads))
    values: dict[str, JsonValue] = {}
    prefix = _prefix(root)
    for element in _elements(payloads[0]):
        _collect(element, (), prefix, values)
    if not values:
        raise _malformed("Payload", "measurements or files", "none")
    return Statement(
        kind=KIND,
        values={name: Stated(value, f"swid:{tag_id}", int(version)) for name, value in values.items()},
        proof=proof,
        signers=signers,
    )


def _elements(parent: Any) -> list[Any]:
    """The children that are elements: no comments, no processing instructions."""
    return [child for child in parent if isinstance(child.tag, str)]


def _prefix(root: Any) -> str | None:
    metas = root.findall(_SWID + "Meta")
    if len(metas) != 1:
        return None
    manufacturer, edition = metas[0].get(_RIM + "PlatformManufacturerStr"), metas[0].get("edition")
    return f"{manufacturer.replace(' ', '_')}.{edition}" if manufacturer and edition else None


def _collect(element: Any, path: tuple[str, ...], prefix: str | None, values: dict[str, JsonValue]) -> None:
    name = element.get("name", "")
    if element.tag == _SWID + "Directory":
        if not name or len(path) >= 32:
            raise _malformed("Directory", "a name, at most 32 deep", name[:80])
        for child in _elements(element):
            _collect(child, (*path, name), prefix, values)
    elif element.tag == _SWID + "File":
        if not name:
            raise _malformed("File", "a name", "none")
        _put("/".join((*path, name)), _file(element, name), values)
    elif element.tag == _SWID + "Resource" and element.get("type") == "Measurement":
        found = _alternatives(element)
        if element.get("active", "True") not in _FALSE and found:
            if prefix is None:
                raise _malformed("Meta", "PlatformManufacturerStr and edition", "none")
            _put(f"{prefix}.measurement_{element.get('index')}".replace("-", "_"), found, values)
    else:
        raise _malformed("Payload", "Directory, File, or Resource of type Measurement", element.tag)


def _file(element: Any, name: str) -> list[JsonValue]:
    given = {
        algorithm: text for space, algorithm in _ALGORITHMS.items() if (text := element.get(space + "hash")) is not None
    }
    return digests.values({algorithm: str(text).lower() for algorithm, text in given.items()}, f"File {name[:80]}")


def _alternatives(element: Any) -> list[JsonValue]:
    """The hashes of one measurement. All zeros mean that nothing is measured there."""
    if not _INDEX.match(element.get("index", "")):
        raise _malformed("Resource.index", "a number", element.get("index"))
    found: list[JsonValue] = []
    count = 0
    for name, text in element.items():
        space, brace, local = name.rpartition("}")
        if not local.startswith("Hash"):
            continue
        algorithm = _ALGORITHMS.get(space + brace)
        if algorithm is None:
            raise _malformed("Resource", "hashes of SHA-2", name)
        count += 1
        (value,) = digests.values({algorithm: text.lower()}, name[-40:])
        if isinstance(value, str) and value.strip("0"):
            found.append(value)
    if not count:
        raise _malformed("Resource", "at least one hash", "none")
    return found


def _put(name: str, value: list[JsonValue], values: dict[str, JsonValue]) -> None:
    if name in values or len(values) >= MAX_VALUES:
        raise _malformed(name[:120], f"each name once, at most {MAX_VALUES}", "more")
    values[name] = value


def _malformed(field: str, expected: object, got: object) -> Exception:
    return refused(
        "not a signed SWID tag that is read here",
        "swid_malformed",
        field=field,
        expected=expected,
        got=str(got)[:160],
        spec=SPEC,
    )
