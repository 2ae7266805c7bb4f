"""NVIDIA's RIM service and OCSP responder (evidence 11)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from adyton.collateral.items import Item
from adyton.collateral.source import Reply, Request, Response
from adyton.collateral.wanted import NvidiaOcsp, NvidiaRim, Wanted
from adyton.crypto.x509 import MAX_SIZE, Certificate
from adyton.wire import b64, der, strict_json

RIM_BASE = "https://rim.attestation.nvidia.com"
OCSP_BASE = "https://ocsp.ndis.nvidia.com"
_RIM_PATH = re.compile(r"/v1/rim/([A-Za-z0-9._-]{1,200})\Z")
_OCSP_PATH = re.compile(r"/ocsp/([A-Za-z0-9+/=%]{1,2000})\Z")


def status_of(certificate: Certificate, issuer: Certificate) -> NvidiaOcsp:
    """What to ask about ``certificate``, which ``issuer`` issued."""
    name = hashlib.sha384(der_sequence(certificate.issuer)).digest()
    return NvidiaOcsp(name, hashlib.sha384(_key_bits(issuer)).digest(), certificate.serial)


def der_sequence(content: bytes) -> bytes:
    """``content`` under the header of a SEQUENCE: a name as it stands in a certificate."""
    size = len(content)
    if size < 0x80:
        return bytes((0x30, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((0x30, 0x80 | len(length))) + length + content


def _key_bits(certificate: Certificate) -> bytes:
    """The content of subjectPublicKey without the count of unused bits (RFC 6960 4.1.1)."""
    spki = certificate.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    _, body, _ = der.bounds(spki)
    _, _, after = der.bounds(spki, body)
    _, bits, end = der.bounds(spki, after)
    return spki[bits + 1 : end]


def ask_rim(wanted: Wanted) -> Request | None:
    """How the RIM service is asked."""
    return Request(f"/v1/rim/{wanted.id}") if isinstance(wanted, NvidiaRim) else None


def ask_ocsp(wanted: Wanted, *, cache: bool) -> Request | None:
    """How the responder is asked: with POST; a cache of Adyton's with GET."""
    if not isinstance(wanted, NvidiaOcsp):
        return None
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        wanted.issuer_name, wanted.issuer_key, wanted.serial, hashes.SHA384()
    )
    encoded = builder.build().public_bytes(Encoding.DER)
    if cache:
        return Request("/ocsp/" + quote(b64.encode(encoded), safe=""))
    return Request("/", {"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"}, encoded)


def take(wanted: Wanted, response: Response) -> tuple[bytes, bytes]:
    """Body and issuers (none) of an answer. ``ValueError`` if it cannot be that."""
    if isinstance(wanted, NvidiaOcsp):
        return response.body, b""
    value = strict_json.parse(response.body, max_size=2 * MAX_SIZE)
    if not isinstance(value, dict) or not isinstance(wanted, NvidiaRim) or value.get("id", wanted.id) != wanted.id:
        raise ValueError("not the manifest of that id")
    if value.get("rim_format", "TCG") not in {"TCG", "SWID"} or not isinstance(value.get("rim"), str):
        raise ValueError("not a manifest in SWID")
    body = b64.decode(value["rim"])
    digest = value.get("sha256")
    if isinstance(digest, str) and not hmac.compare_digest(digest.lower(), hashlib.sha256(body).hexdigest()):
        raise ValueError("its sha256 is another")
    return body, b""


def route(path: str) -> Wanted | None:
    """What a request of somebody else's is for; ``None`` if it is not one to these services. ``ValueError`` if wrong."""
    if match := _RIM_PATH.match(path):
        return NvidiaRim(match[1])
    if match := _OCSP_PATH.match(path):
        request = ocsp.load_der_ocsp_request(b64.decode(unquote(match[1])))
        if not isinstance(request.hash_algorithm, hashes.SHA384):
            raise ValueError("ask with SHA-384")
        return NvidiaOcsp(request.issuer_name_hash, request.issuer_key_hash, request.serial_number)
    return None


def reply(item: Item, _query: Mapping[str, str]) -> Reply:
    """The answer as the services give it."""
    if isinstance(item.wanted, NvidiaOcsp):
        return Reply(200, "application/ocsp-response", item.body)
    assert isinstance(item.wanted, NvidiaRim)  # noqa: S101 -- by the route
    value = {
        "id": item.wanted.id,
        "rim": base64.b64encode(item.body).decode("ascii"),
        "sha256": hashlib.sha256(item.body).hexdigest(),
        "rim_format": "TCG",
    }
    return Reply(200, "application/json", json.dumps(value).encode("utf-8"))
