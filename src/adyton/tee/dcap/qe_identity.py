"""Intel's identity of a quoting enclave, version 2: which enclave may sign quotes, and at which version (evidence 3.2).

PCS API v4, appendix "Enclave identity". ``QE`` signs for SGX, ``TD_QE`` for TDX.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from adyton.tee.dcap import forms, signed_json
from adyton.tee.dcap.signed_json import Signed, date, hexadecimal
from adyton.tee.dcap.tcb_info import EnclaveLevel, enclave_levels

NAME = "enclaveIdentity"
QE = "QE"
TD_QE = "TD_QE"


class QeIdentity(NamedTuple):
    """One identity. ``miscselect`` 4 bytes and ``attributes`` 16, as they lie in a report; ``mrsigner`` 32."""

    id: str
    version: int
    issue_date: datetime
    next_update: datetime
    evaluation_number: int
    miscselect: bytes
    miscselect_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mrsigner: bytes
    isvprodid: int
    levels: tuple[EnclaveLevel, ...]
    unknown: tuple[str, ...]


_KNOWN = frozenset(forms.Identity.__struct_fields__)


def parse(document: Signed) -> QeIdentity:
    """From the signed text, or ``EndorsementMalformed``. Whether it is signed and fresh is not asked here."""
    reading: QeIdentity | None = document.reading  # once, as its set is read once; nothing is verified here
    if reading is None:
        reading = document.reading = _parse(document)
    return reading


def _parse(document: Signed) -> QeIdentity:
    found, plain = signed_json.decode(document, forms.IDENTITY)
    if found.version != 2:
        raise signed_json.malformed(NAME, "unknown version", got=found.version)
    return QeIdentity(
        id=found.id,
        version=found.version,
        issue_date=date(found.issueDate, NAME),
        next_update=date(found.nextUpdate, NAME),
        evaluation_number=found.tcbEvaluationDataNumber,
        miscselect=hexadecimal(found.miscselect, 4, NAME),
        miscselect_mask=hexadecimal(found.miscselectMask, 4, NAME),
        attributes=hexadecimal(found.attributes, 16, NAME),
        attributes_mask=hexadecimal(found.attributesMask, 16, NAME),
        mrsigner=hexadecimal(found.mrsigner, 32, NAME),
        isvprodid=found.isvprodid,
        levels=enclave_levels(found.tcbLevels, NAME),
        unknown=tuple(sorted(plain.keys() - _KNOWN)) if plain is not None else (),
    )
