"""What a document says, as JSON values. Bytes are lower-case hex; ``None`` where the enclave asked for nothing."""

from __future__ import annotations

from datetime import datetime

from adyton.crypto.x509 import Certificate
from adyton.rats.types import JsonValue
from adyton.tee.nitro.abi import DIGEST, IMAGE_PCRS, PCR_ZERO, AttestationDocument

PARENT_PCR = 4


def of_document(document: AttestationDocument) -> dict[str, JsonValue]:
    """The claims of the document alone. Registers that are zero are left out of ``pcrs``, except the image's.

    ``debug``: a register of the image is zero, as all three are when the enclave was started in debug mode.
    """
    pcrs = document.pcrs
    shown: dict[str, JsonValue] = {
        str(register): pcrs[register].hex()
        for register in sorted(pcrs)
        if register in IMAGE_PCRS or pcrs[register] != PCR_ZERO
    }
    nonce = _hex(document.nonce)
    return {
        "module_id": document.module_id,
        "timestamp": document.time.isoformat(),
        "digest": DIGEST,
        "pcrs": shown,
        "debug_mode_pcr0_zero": pcrs[0] == PCR_ZERO,
        "user_data": _hex(document.user_data),
        "nonce": nonce,
        "public_key": _hex(document.public_key),
        "measurement": shown["0"],
        "debug": is_debug(document),
        "tcb_status": None,
        "platform_id": shown.get(str(PARENT_PCR)),
        "report_data": nonce,
        "init_data": None,
    }


def is_debug(document: AttestationDocument) -> bool:
    """Whether the image's measurement is missing: nobody can say what runs, and the host reads its console."""
    return any(document.pcrs[register] == PCR_ZERO for register in IMAGE_PCRS)


def of_leaf(leaf: Certificate) -> dict[str, JsonValue]:
    """From when to when the document's key is certified."""
    return {"leaf_not_before": _rfc3339(leaf.not_before), "leaf_not_after": _rfc3339(leaf.not_after)}


def _hex(value: bytes | None) -> str | None:
    return value.hex() if value is not None else None


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
