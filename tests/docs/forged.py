"""One piece of evidence of every kind of every TEE, under test roots, verified: what tests of documents look at.

Made so that every claim, every member of ``tcb`` and everything that can stand in ``unchecked`` comes at least once.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.tee.csv.conftest import Chip
from tests.tee.csv.test_verify import log_of, registers_of, with_registers
from tests.tee.se.conftest import World
from tests.tee.tpm.test_verify import ima_line

from adyton import tee as tees
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee import nitro as nitro_forge
from adyton.devtee import sample
from adyton.devtee.az_vtpm import AzureGuest
from adyton.devtee.cca import Forge as CcaForge
from adyton.devtee.certificates import new_key
from adyton.devtee.csv import CsvForge, wrapped
from adyton.devtee.dcap import DcapForge, sgx_body, td_body
from adyton.devtee.forge import Forge as SnpForge
from adyton.devtee.hyperenclave import HyperEnclaveForge
from adyton.devtee.nvidia import NvidiaForge, ReportFields, default_measurements, gpu_opaque, switch_opaque
from adyton.devtee.se import SeForge
from adyton.devtee.tpm import QuoteFields, SoftTpm
from adyton.devtee.tpm_ca import EkAuthority
from adyton.rats.types import ReportData, Revocation, TrustAnchors, VerifiedEvidence
from adyton.tee.az_vtpm import tdx as az_tdx
from adyton.tee.dcap.bodies import SgxBody
from adyton.tee.eventlog import ccel
from adyton.tee.nvidia.json_form import Device, to_json
from adyton.tee.sample.anybody import ANYBODY
from adyton.tee.se import json_form, request
from adyton.tee.sgx import verify as sgx
from adyton.tee.tdx import verify as tdx
from adyton.tee.tdx.abi import TdExtension, TdReport

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NONCE = bytes(range(1, 65))
NOT_ASKED = Revocation.UNCHECKED_AS_ASKED
Pieces = Iterator[VerifiedEvidence]


@cache
def of(tee: str) -> tuple[VerifiedEvidence, ...]:
    """Every kind of verified evidence of a TEE, by its wire name."""
    return tuple(_MAKERS[tee]())


def _verify(tee: str, evidence: bytes, endorsements: Any, anchors: frozenset[bytes], **more: Any) -> VerifiedEvidence:
    given = endorsements if isinstance(endorsements, EndorsementSet) else EndorsementSet.parse(endorsements)
    trusted = TrustAnchors(vendor=False, custom=anchors)
    return tees.verify(tee, evidence, endorsements=given, now=NOW, anchors=trusted, **more)


@cache
def _rsa_4096() -> rsa.RSAPrivateKey:
    """One for the whole chain: they take long to make."""
    return new_key()


@cache
def _snp_forge() -> tuple[SnpForge, frozenset[bytes]]:
    forge = SnpForge.new(NOW, new_rsa_key=_rsa_4096)
    root = EndorsementSet.parse(forge.blobs()).certificates[-1]
    return forge, frozenset({root.spki_fingerprint})


def _snp() -> Pieces:
    forge, anchors = _snp_forge()
    for version in (2, 3, 5):
        yield _verify("snp", forge.report(version=version), forge.blobs(), anchors)
    yield _verify("snp", forge.report(chip_id=bytes(64)), forge.blobs(), anchors, revocation=NOT_ASKED)
    provider = forge.with_kind("VLEK", key=_rsa_4096())
    yield _verify("snp", provider.report(), provider.blobs(), anchors)


@cache
def _dcap_forge() -> DcapForge:
    return DcapForge.new(NOW)


def _quotes(tee: str, evidence: list[bytes]) -> Pieces:
    forge = _dcap_forge()
    anchors = frozenset({forge.fingerprint})
    for piece in evidence:
        yield _verify(tee, piece, forge.collateral(tee).blobs(), anchors)
    news = forge.collateral(tee, info={"news": 1}, identity={"news": 1})
    yield _verify(tee, evidence[0], news.blobs(), anchors, revocation=NOT_ASKED)
    room = sgx if tee == "sgx" else tdx
    yield room.verify_signatures_without_tcb_as_asked(
        evidence[0],
        endorsements=EndorsementSet.parse(forge.collateral(tee).blobs()),
        now=NOW,
        anchors=TrustAnchors(vendor=False, custom=anchors),
    )


def _sgx() -> Pieces:
    return _quotes("sgx", [_dcap_forge().quote(sgx_body()).encode()])


def _tdx() -> Pieces:
    forge = _dcap_forge()
    tpm = SoftTpm(None)  # type: ignore[arg-type]  # no quote is made here
    tpm.reset(("sha384",))
    tpm.measure(1, 0x8, b"firmware")
    log = tpm.log()
    registers: Any = dict(zip(("rtmr0", "rtmr1", "rtmr2", "rtmr3"), ccel.rtmrs(ccel.parse(log)), strict=True))
    longer = forge.quote(td_body(td15=True, extension=TdExtension())).encode()
    quote = base64.b64encode(forge.quote(td_body(**registers)).encode()).decode()
    logged = json.dumps({"quote": quote, "cc_eventlog": base64.b64encode(log).decode()}).encode()
    return _quotes("tdx", [forge.quote(td_body()).encode(), forge.quote(td_body(td15=True)).encode(), longer, logged])


def _az_snp() -> Pieces:
    forge, anchors = _snp_forge()

    def report(issuer: SnpForge, fields: dict[str, Any], data: bytes) -> bytes:
        return issuer.report(report_data=data, **fields)

    provider = forge.with_kind("VLEK", key=_rsa_4096())
    for issuer, fields in ((forge, {"version": 3}), (forge, {"chip_id": bytes(64)}), (provider, {})):
        guest = AzureGuest(
            hardware=partial(report, issuer, fields),
            ak=_ak(),
            vcek=issuer.signer.certificate,
            user_data=NONCE,
        )
        yield _verify("az-snp-vtpm", guest.evidence(NONCE), issuer.blobs()[1:], anchors, revocation=NOT_ASKED)


@cache
def _ak() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _az_tdx() -> Pieces:
    forge = _dcap_forge()

    def quote(hcl: bytes) -> bytes:
        return forge.quote(td_body(report_data=TdReport.parse(hcl[32 : 32 + 1024]).report_data)).encode()

    guest = AzureGuest(
        hardware=lambda data: TdReport(report_data=data).encode(),
        td_quote=quote,
        ak=_ak(),
        user_data=NONCE,
    )
    anchors = frozenset({forge.fingerprint})
    collateral = forge.collateral("tdx", info={"news": 1}, identity={"news": 1}).blobs()
    yield _verify("az-tdx-vtpm", guest.evidence(NONCE), collateral, anchors, revocation=NOT_ASKED)
    yield az_tdx.verify_signatures_without_tcb_as_asked(
        guest.evidence(NONCE),
        endorsements=EndorsementSet.parse(collateral),
        now=NOW,
        anchors=TrustAnchors(vendor=False, custom=anchors),
    )


# Google's extension with the instance that an AK belongs to: zone, number, project, number, name
_GCE = bytes.fromhex("300f0c01610201010c01620201020c0163")


def _tpm() -> Pieces:
    tpm = SoftTpm.new("secp256r1")
    tpm.boot()
    text = ""
    for path in ("boot_aggregate", "/init"):
        line, data = ima_line(path)
        text += line
        tpm.extend(10, data)
    own = SoftTpm.new("secp256r1")
    yield tees.verify("tpm", own.coco(NONCE), endorsements=EndorsementSet(), now=NOW, anchors=TrustAnchors())
    authority = EkAuthority.new(NOW)
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.1.21"), _GCE)
    certificate = authority.certify(tpm.key, NOW, extra=extension, critical=False)
    quotes = [tpm.quote(QuoteFields(extra_data=NONCE, selections=((bank, range(24)),))) for bank in ("sha1", "sha256")]
    evidence = tpm.bundle(quotes, ak_certificate=certificate, event_log=tpm.log(), ima_log=text.encode())
    blobs = [*authority.blobs(), authority.crl(NOW, of_root=True), authority.crl(NOW, of_root=False)]
    anchors = frozenset({EndorsementSet.parse([authority.blobs()[1]]).certificates[0].spki_fingerprint})
    for revocation in Revocation:
        yield _verify("tpm", evidence, blobs, anchors, revocation=revocation)
    tpm.measure(7, 0x4, bytes(4))  # a second separator
    quotes = [tpm.quote(QuoteFields(extra_data=NONCE))]
    unclear = tpm.bundle(quotes, event_log=tpm.log())
    yield tees.verify("tpm", unclear, endorsements=EndorsementSet(), now=NOW, anchors=TrustAnchors())


def _nitro() -> Pieces:
    forge = nitro_forge.Forge.new(NOW)
    anchors = frozenset({forge.root_fingerprint})
    yield _verify("nitro", forge.document(user_data=b"u", nonce=b"n", public_key=b"k"), [], anchors)
    yield _verify("nitro", forge.document(), [], anchors, revocation=NOT_ASKED)


def _cca() -> Pieces:
    forge = CcaForge.new()
    for version in (1, 2):
        evidence = forge.token(version=version)
        for revocation in (NOT_ASKED, Revocation.REQUIRED):
            yield _verify("cca", evidence, [forge.cpak_pem], frozenset({forge.cpak_fingerprint}), revocation=revocation)


def _csv() -> Pieces:
    chip = Chip(CsvForge.new())
    log = log_of((1, "a"), (4, "b"))
    yield chip.verify(chip.report(), report_data=None)
    yield chip.verify(chip.report())
    yield chip.verify(chip.json(log=log))
    yield chip.verify(wrapped(chip.report(version=2)), report_data=None)
    yield chip.verify(with_registers(chip, registers_of(log), log))
    yield _verify("csv", chip.report(), chip.endorsements, chip.anchors.custom, revocation=NOT_ASKED)


def _se() -> Pieces:
    world = World(SeForge.new(NOW))
    response = world.response()
    sent = json.dumps(json_form.to_json(response)).encode()
    yield world.verify(sent)
    unrevoked = world.host_key_of(revocation=NOT_ASKED)
    yield world.verify(sent, world.pending(images=(), host_keys=(unrevoked,)), report_data=None)
    flags = request.FLAGS | request.SECRET_STORE_HASH | request.FIRMWARE_STATE
    asked = request.build([world.host_key.public_key], world.secrets, flags=flags)
    whole = json.dumps(json_form.to_json(world.response(to=asked))).encode()
    yield world.verify(whole, world.pending(flags=flags, encoded=asked))


def _nvidia() -> Pieces:
    forge = NvidiaForge.new(NOW)
    golden = default_measurements()
    rims = [
        forge.rim({7: [golden[8]]}),
        forge.rim({0: [golden[1]]}, colloquialVersion="96.00.9F.00.01"),
    ]
    blobs = [forge.pem, *forge.answers(), *rims]
    yield _verify("nvidia", forge.report(), blobs, forge.anchors, report_data=ReportData(bytes(range(32))))
    yield _verify("nvidia", forge.report(), [forge.pem], forge.anchors, revocation=NOT_ASKED)
    unnamed = forge.report(ReportFields(opaque={**gpu_opaque(), 20: None}))
    yield _verify("nvidia", unnamed, [forge.pem, *forge.answers()], forge.anchors)
    switch = NvidiaForge.new(NOW, chip="LS_10")
    rim = switch.rim({0: [golden[1]]}, colloquialVersion="96.10.55.00.01", edition="SWITCH")
    report = switch.report(
        ReportFields(opaque=switch_opaque(), measurements={index: golden[index] for index in range(1, 32)})
    )
    nonce = ReportData(bytes(range(32)))
    yield _verify("nvidia", report, [switch.pem, rim, *switch.answers()], switch.anchors, report_data=nonce)
    other = forge.with_device()
    listed = tuple(
        Device(one.report(ReportFields(opaque=gpu_opaque())), one.pem, "HOPPER", f"GPU-{number}")
        for number, one in enumerate((forge, other))
    )
    yield _verify("nvidia", to_json(listed[:1]), forge.answers(), forge.anchors)
    yield _verify("nvidia", to_json(listed), [*forge.answers(), *other.answers()], forge.anchors)


def _hyperenclave() -> Pieces:
    forge = HyperEnclaveForge(now=NOW)
    blobs = [forge.root(), forge.crl()]
    anchors = frozenset({EndorsementSet.parse(blobs).certificates[0].spki_fingerprint})
    yield _verify("hyperenclave", forge.quote(SgxBody(report_data=NONCE)), blobs, anchors, revocation=NOT_ASKED)


def _sample() -> Pieces:
    yield _verify("sample", sample.evidence(NONCE), [], frozenset({ANYBODY}), init_data=b"i")
    yield _verify("sample", sample.evidence(NONCE), [], frozenset({ANYBODY}), revocation=NOT_ASKED)


def _sampledevice() -> Pieces:
    yield _verify("sampledevice", sample.evidence(NONCE, svn="2"), [], frozenset({ANYBODY}), revocation=NOT_ASKED)


_MAKERS = {
    "snp": _snp,
    "sgx": _sgx,
    "tdx": _tdx,
    "az-snp-vtpm": _az_snp,
    "az-tdx-vtpm": _az_tdx,
    "tpm": _tpm,
    "nitro": _nitro,
    "cca": _cca,
    "csv": _csv,
    "se": _se,
    "nvidia": _nvidia,
    "hyperenclave": _hyperenclave,
    "sample": _sample,
    "sampledevice": _sampledevice,
}
