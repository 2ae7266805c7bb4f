"""Who signed a workload document: detached signatures in the init data beside the workload.

Under ``workload.jws``, one on each line (``crypto.detached``), over the canonical JSON (RFC 8785) of everything else in
the document: ``{"algorithm":…,"data":{…},"version":"0.1.0"}``. So nobody adds to what was signed, or takes anything away.
The document's digest is HOST_DATA, signatures included: evidence says who signed what an instance was started for.
Whose keys those are is for the binding of a resource to say (``--signer``).
"""

from __future__ import annotations

from collections.abc import Mapping

from adyton.crypto import detached
from adyton.errors import DocumentInvalid, SignatureInvalid
from adyton.protocol import initdata, workload
from adyton.protocol.workload import WorkloadDocument
from adyton.wire import jcs

KEY = "workload.jws"
CLAIM = "workload_signers"
TYP = "adyton-init-data"
MAX_SIGNATURES = 16


def sign(document: WorkloadDocument, key: detached.PrivateKey) -> WorkloadDocument:
    """The document with this key's signature beside those that it carries, in place of an older one of the same key.

    ``DocumentInvalid`` if one of the others does not verify any more.
    """
    content = payload("sha256", document.data)
    mine = detached.fingerprint(key.public_key())
    others = [line for line, signer in _verified("sha256", document.data) if signer != mine]
    lines = [*others, detached.sign(key, content, TYP)]
    if len(lines) > MAX_SIGNATURES:
        raise _too_many(len(lines))
    return workload.with_entries(document, {KEY: "\n".join(lines) + "\n"})


def signers(algorithm: str, data: Mapping[str, str]) -> list[str]:
    """``sha256:<hex>`` of the SPKI of each key that signed; empty where nobody did. ``DocumentInvalid`` if one did not."""
    return [signer for _, signer in _verified(algorithm, data)]


def payload(algorithm: str, data: Mapping[str, str]) -> bytes:
    """What is signed."""
    rest = {name: text for name, text in data.items() if name != KEY}
    return jcs.canonical({"algorithm": algorithm, "data": rest, "version": initdata.VERSION})


def _verified(algorithm: str, data: Mapping[str, str]) -> list[tuple[str, str]]:
    text = data.get(KEY)
    if text is None:
        return []
    lines = text.splitlines()
    if len(lines) > MAX_SIGNATURES:
        raise _too_many(len(lines))
    content = payload(algorithm, data)
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append((line, detached.fingerprint(detached.verify(line, content, TYP))))
        except SignatureInvalid as error:
            raise DocumentInvalid(
                f"signature {number} of the workload document: {error.message}",
                code="workload_signature",
                field=KEY,
                expected=error.expected,
                got=error.got,
                hint="the document was changed after it was signed: sign it again (adyton workload sign)",
            ) from error
    if not found or len({signer for _, signer in found}) != len(found):
        raise DocumentInvalid(f"{KEY} holds one signature of each signer", code="workload_signature", field=KEY)
    return found


def _too_many(count: int) -> DocumentInvalid:
    return DocumentInvalid(
        "too many signatures", code="workload_signature", field=KEY, expected=MAX_SIGNATURES, got=count
    )
