"""TPM quotes, alone and as Azure's with an SNP report; event logs; IBM Secure Execution.

Secure Execution has no signature: it is held to 150 µs. The log is compared with its hashing alone: one digest of
32 + 32 bytes an event, by the same library.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime

from bench.parts.timing import Case, Missing, Pair, ecdsa, root_signature
from bench.parts.verify_vectors import Evidence
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.errors import AdytonError
from adyton.rats.types import ReportData, Revocation, TrustAnchors, VerifiedEvidence

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SE_LIMIT = 150e-6


def _tpm() -> list[Pair]:
    from adyton.tee.tpm.abi import Signature

    case = Case.find("tpm-coco-evidence")
    evidence = case.file("evidence")
    parts = json.loads(evidence)
    key = load_der_public_key(base64.b64decode(parts["ak_public"]))
    assert isinstance(key, rsa.RSAPublicKey)
    message = base64.b64decode(parts["tpm_quote"]["message"])
    signature = Signature.parse(base64.b64decode(parts["tpm_quote"]["signature"])).values[0]
    scheme, sha256 = padding.PKCS1v15(), hashes.SHA256()

    def own() -> None:
        key.verify(signature, message, scheme, sha256)

    source = Evidence("tpm", evidence, [], case.now, TrustAnchors(), Revocation.REQUIRED, own=[own], under=[])
    return source.pairs("tpm")


def _azure() -> list[Pair]:
    """An SNP guest: the hardware's report and the TPM's quote."""
    from adyton.tee.az_vtpm.abi import RuntimeClaims
    from adyton.tee.az_vtpm.json_form import parse
    from adyton.tee.snp.abi import SIGNED_SIZE, SnpReport
    from adyton.tee.snp.endorsements import ROOT_CERTIFICATES, read_leaf

    case = Case.find("az-snp-evidence-v1")
    evidence = case.file("evidence")
    parts = parse(evidence)
    hcl = parts.hcl
    modulus, exponent = RuntimeClaims.parse(hcl.claims).ak
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    scheme, sha256 = padding.PKCS1v15(), hashes.SHA256()
    report = SnpReport.parse(hcl.hardware_report)
    vcek = Certificate(parts.vcek or b"")
    ask, ark = _above(vcek, case.files("chain"))
    p384 = ecdsa(vcek.public_key, report.r + report.s, hcl.hardware_report[:SIGNED_SIZE], hashes.SHA384(), "little")
    source = Evidence(
        "az-snp-vtpm",
        evidence,
        case.files("chain"),
        case.now,
        TrustAnchors(),
        Revocation.UNCHECKED_AS_ASKED,
        own=[p384, lambda: key.verify(parts.signature, parts.message, scheme, sha256)],
        under=[(vcek, ask), (ask, ark), *root_signature(ark, ROOT_CERTIFICATES)],
        forget=read_leaf.cache_clear,
    )
    return source.pairs("az_snp")


def _above(leaf: Certificate, blobs: list[bytes]) -> tuple[Certificate, Certificate]:
    pool = EndorsementSet.parse(blobs)
    (issuer,) = pool.with_subject(leaf.issuer)
    (root,) = pool.with_subject(issuer.issuer)
    return issuer, root


def _log() -> list[Pair]:
    from adyton.tee.eventlog.banks import SHA256
    from adyton.tee.eventlog.log import EventLog
    from adyton.tee.eventlog.replay import replay

    data = Case.find("tpm-log-ubuntu-2404-amd-sevsnp").file("event_log")
    first = EventLog.parse(data)
    inputs = [bytes(64) for event in first.events() if event.kind != 3]
    assert replay(first, SHA256)

    def ours() -> object:
        return replay(EventLog.parse(data), SHA256)

    def hashing() -> None:
        for each in inputs:
            hashlib.sha256(each).digest()

    return [Pair("tpm_log_over_hashing", ours, hashing, (2.0, 0.0))]


def _se() -> list[Pair]:
    from adyton.devtee import se as forging
    from adyton.tee.se import request
    from adyton.tee.se.host_key import verify_host_key
    from adyton.tee.se.json_form import Response, to_json
    from adyton.tee.se.verify import PendingRequest, verify_response

    forge, secrets = forging.SeForge.new(NOW), forging.fresh_secrets()
    machine = forging.Machine(forging.image_header())
    machine = forging.Machine(forging.image_header(machine.key_hash), machine.key)
    certificates, crls = forge.certificates(), forge.crls()
    root = Certificate(certificates[2])
    anchors = TrustAnchors(vendor=False, custom=frozenset({root.spki_fingerprint}))
    document = Certificate(forge.host_key_document(machine.key.public_key()))
    host_key = verify_host_key(document, EndorsementSet.parse((*certificates, *crls)), now=NOW, anchors=anchors)
    asked = request.build([host_key.public_key], secrets)
    sealed = (b"sealed key", b"sealed nonce")
    answer = machine.attest(asked, b"\x42" * 64)
    response = Response(answer.measurement, answer.additional_data, answer.user_data, answer.cuid, answer.tags, sealed)
    evidence = json.dumps(to_json(response)).encode()
    pending = PendingRequest(
        measurement_key=secrets.measurement_key,
        nonce=secrets.nonce,
        host_keys=(host_key,),
        images=(machine.image,),
        sealed=sealed,
    )
    expected = ReportData(b"\x42" * 64)

    def ours() -> VerifiedEvidence:
        return verify_response(evidence, pending, report_data=expected)

    assert ours() == ours()
    try:
        verify_response(evidence, pending, report_data=ReportData(b"\x43" * 64))
    except AdytonError:
        pass
    else:
        raise AssertionError("an answer to another question was accepted")
    key, blank = bytes(64), bytes(300)
    return [Pair("se_warm_over_floor", ours, lambda: hashlib.sha512(key + blank).digest(), (0.0, SE_LIMIT))]


def pairs() -> list[Pair]:
    """What is measured: all that there is."""
    found: list[Pair] = []
    missing: list[str] = []
    for source in (_tpm, _azure, _log, _se):
        try:
            found += source()
        except (Missing, ImportError) as error:
            missing.append(f"{source.__name__[1:]}: {error}")
    if not found:
        raise Missing("; ".join(missing))
    return found
