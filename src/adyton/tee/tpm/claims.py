"""What verified TPM evidence says, as JSON values: under Adyton's names and under CoCo's.

Only PCRs that a quote signs are here. Of an event log only what ``eventlog.facts`` allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cryptography.x509 import DirectoryName, SubjectAlternativeName

from adyton.crypto.x509 import Certificate
from adyton.errors import EndorsementMalformed
from adyton.rats.types import JsonValue
from adyton.tee.eventlog.banks import SHA256, Bank
from adyton.tee.tpm.abi import Attest, PublicArea, Signature
from adyton.tee.tpm.ak import SUBJECT_ALT_NAME, AkTrust, VerifiedAk
from adyton.tee.tpm.forms import Evidence
from adyton.wire import b64, der

if TYPE_CHECKING:  # which makes the claims when they are read
    from adyton.tee.tpm.checks import Verification

_GCE_INSTANCE = "1.3.6.1.4.1.11129.2.1.21"
_UTF8 = 0x0C
_SEQUENCE = b"\x30"  # an SPKI; no TPMT_PUBLIC begins so
# TCG's names of what a TPM is, in the subject alternative name of its certificates (EK Credential Profile 2.5, 3.2.9)
_TPM_NAMES = {"2.23.133.2.1": "manufacturer", "2.23.133.2.2": "model", "2.23.133.2.3": "version"}


def of_quote(attest: Attest, signature: Signature) -> dict[str, JsonValue]:
    """The claims of one quote alone, PCR values aside."""
    return {
        "nonce": attest.extra_data.hex(),
        "pcr_selection": [[bank.identifier, [*pcrs]] for bank, _, pcrs in attest.selections],
        "pcr_digest": attest.pcr_digest.hex(),
        "sig_alg": hex(signature.scheme),
        "hash_alg": hex(signature.bank.identifier),
        "qualified_signer": attest.qualified_signer.hex(),
        **tcb(attest),
    }


def tcb(attest: Attest) -> dict[str, JsonValue]:
    """The TPM's firmware, and where in its life it is: for continuity between two quotes. ``clock`` in milliseconds."""
    return {
        "firmware": f"{attest.firmware_version:#018x}",
        "clock": attest.clock,
        "reset_count": attest.reset_count,
        "restart_count": attest.restart_count,
        "safe": attest.safe,
    }


def latest(attests: Sequence[Attest]) -> Attest:
    """Of several quotes of one boot, the last that was made."""
    return max(attests, key=lambda attest: attest.clock)


def of_verified(run: Verification, key: VerifiedAk) -> dict[str, JsonValue]:
    """All claims. Several quotes: selection and digests of each in ``quotes``, the first's also by themselves."""
    claims = of_quote(run.attests[0], run.signatures[0])
    if len(run.attests) > 1:
        claims["quotes"] = [of_quote(attest, sig) for attest, sig in zip(run.attests, run.signatures, strict=True)]
        claims |= tcb(latest(run.attests))
    own = key.ak.fingerprint.hex()
    pcr8 = run.pcrs.get(SHA256, {}).get(8)
    claims |= {
        "pcrs": by_bank(run.pcrs),
        "ak_trust": key.trust.value,
        "ak_fingerprint": own,
        "measurement": None,
        "debug": None,
        "tcb_status": None,
        "platform_id": own if key.trust is not AkTrust.SELF_ASSERTED else None,
        "report_data": run.attests[0].extra_data.hex(),
        "init_data": pcr8.hex() if pcr8 is not None else None,
    }
    if key.ak.area is not None:
        claims |= of_area(key.ak.area)
    if key.trust is AkTrust.CERTIFICATE and key.ak.certificate is not None:
        claims |= of_certificate(key.ak.certificate)
    if run.log is not None:
        claims |= {"event_log_format": run.log.format.value, "event_log_events": len(run.log)}
        claims["event_log_banks"] = [*run.log_banks]
    if run.facts is not None:
        claims |= run.facts.claims
    if run.ima_banks:
        claims |= {"ima_entries": run.ima_entries, "ima_banks": [*run.ima_banks]}
    return claims


def coco(
    pcrs: Mapping[Bank, Mapping[int, bytes]], attest: Attest, evidence: Evidence, pcr8: bytes | None, spki: bytes
) -> dict[str, JsonValue]:
    """The claims that CoCo's policies read (``kbs-protocol`` 2.4, ``tpm``): the SHA-256 bank by number.

    ``ak_public`` is the key's SPKI, the form in which policies list trusted keys, as CoCo's own evidence has it.
    """
    public = evidence.ak_public
    values: dict[str, JsonValue] = {f"pcr{number:02d}": value.hex() for number, value in pcrs.get(SHA256, {}).items()}
    return {
        "tpm": values,
        "ak_public": b64.encode(public if public is not None and public[:1] == _SEQUENCE else spki),
        "init_data": pcr8.hex() if pcr8 is not None else "",
        "report_data": attest.extra_data.hex(),
    }


def by_bank(pcrs: Mapping[Bank, Mapping[int, bytes]]) -> dict[str, JsonValue]:
    """PCR values: bank -> two digits -> hex."""
    return {
        bank.name: {f"{number:02d}": value.hex() for number, value in values.items()} for bank, values in pcrs.items()
    }


def of_area(area: PublicArea) -> dict[str, JsonValue]:
    """What a TPMT_PUBLIC says of its key."""
    return {"ak_name": area.name.hex(), "ak_attributes": f"{int(area.attributes):#x}"}


def of_certificate(certificate: Certificate) -> dict[str, JsonValue]:
    """What a verified AK certificate says: the TPM's make, and on Google's cloud the instance that it belongs to."""
    claims: dict[str, JsonValue] = {"ak_certificate": certificate.digest.hex()}
    _, names = certificate.extensions.get(SUBJECT_ALT_NAME, (False, None))
    if isinstance(names, SubjectAlternativeName):
        for item in names:
            if isinstance(item, DirectoryName):
                for attribute in item.value:
                    known = _TPM_NAMES.get(attribute.oid.dotted_string)
                    if known is not None and isinstance(attribute.value, str):
                        claims[f"tpm_{known}"] = attribute.value
    instance = certificate.unknown_extensions.get(_GCE_INSTANCE)
    if instance is not None:
        claims["gce_instance"] = gce_instance(instance)
    return claims


def gce_instance(extension: bytes) -> dict[str, JsonValue]:
    """Google's extension: zone, project number, project, instance number, instance; ``EndorsementMalformed`` otherwise."""
    try:
        parts = der.children(der.only(extension, der.SEQUENCE))
        zone, number, project, instance, name = parts[:5]
        if [part.tag for part in parts[:5]] != [_UTF8, der.INTEGER, _UTF8, der.INTEGER, _UTF8]:
            raise ValueError("other types")
        return {
            "zone": zone.content.decode("utf-8"),
            "project_number": str(int.from_bytes(number.content, "big")),
            "project_id": project.content.decode("utf-8"),
            "instance_id": str(int.from_bytes(instance.content, "big")),
            "instance_name": name.content.decode("utf-8"),
        }
    except ValueError as error:
        raise EndorsementMalformed(
            "the instance in an AK certificate cannot be read", code="ak_extensions", tee="tpm", field="ak_certificate"
        ) from error
