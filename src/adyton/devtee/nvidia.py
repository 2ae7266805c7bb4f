"""Evidence of NVIDIA devices under roots of our own: reports, chains of five, reference manifests, OCSP answers.

Written apart from the parser in ``tee/nvidia`` on purpose: a mistake in one of them shows when the other reads it. Every
field can be set, also to what no device would write, and whatever is signed can be signed by another key.

Two roots are made: one for devices, one for manifests. Names are NVIDIA's, except the organisation, which says what this is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from adyton.devtee.nvidia_endorsements import (
    DAY,
    Holder,
    answer,
    manifest_chain,
    new_holder,
    pem,
    raw_signature,
    sign_xml,
    swid,
)

FWID_OID = x509.ObjectIdentifier("2.23.133.5.4.1")
TCB_INFO_OID = x509.ObjectIdentifier("2.23.133.5.4.1.1")
FIRMWARE = hashlib.sha384(b"development firmware").digest()
_SHA384_OID = bytes.fromhex("0609608648016503040202")


def default_measurements(count: int = 64) -> dict[int, bytes]:
    """Made-up digests by index from 1."""
    return {index: hashlib.sha384(b"measurement %d" % index).digest() for index in range(1, count + 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFields:
    """What a report says. ``measurements``: values by index from 1; ``opaque``: fields by type, in this order.

    ``None`` in ``changes`` of the opaque data leaves a field out.
    """

    nonce: bytes = bytes(range(32))
    measurements: Mapping[int, bytes] = field(default_factory=default_measurements)
    opaque: Mapping[int, bytes | None] = field(default_factory=dict)
    response_nonce: bytes = bytes(32)
    slot: int = 0
    request_head: bytes = bytes.fromhex("11e001ff")
    response_head: bytes = bytes.fromhex("1160")
    kind: int = 1


def gpu_opaque(
    *, driver: str = "550.90.07", vbios: str = "96.00.9F.00.01", nvdec0: bytes = b"\x55", fwid: bytes = FIRMWARE
) -> dict[int, bytes | None]:
    """The fields of a GPU."""
    version = bytes.fromhex(vbios.replace(".", ""))
    return {
        6: bytes((version[3], version[2], version[1], version[0], version[4], 0, 0, 0)),
        15: b"882".ljust(9, b"\0"),
        17: b"1010\0",
        18: b"0200\0",
        3: driver.encode("ascii") + b"\0",
        12: bytes(256),
        11: nvdec0,
        20: fwid,
    }


def switch_opaque(*, vbios: str = "96.10.55.00.01") -> dict[int, bytes | None]:
    """The fields of a switch: its version is text, and no firmware id is among them."""
    return {6: vbios.encode("ascii"), 22: bytes(8), 12: bytes(31 * 4)}


@dataclass(frozen=True, slots=True)
class NvidiaForge:
    """A device's chain and a manifest signer's, leaf first, root last, each with its key."""

    now: datetime
    chip: str
    device: tuple[Holder, ...]
    manifest: tuple[Holder, ...]

    @classmethod
    def new(cls, now: datetime, *, chip: str = "GH100", fwid: bytes | None = FIRMWARE) -> NvidiaForge:
        """Fresh roots, authorities and leaves. ``fwid`` ``None``: a leaf that names no firmware."""
        root = new_holder("NVIDIA Device Identity CA", now)
        identity = new_holder(f"NVIDIA {chip} Identity", now, issuer=root)
        provisioner = new_holder(f"NVIDIA {chip} Provisioner ICA 1", now, issuer=identity)
        bare = cls(now, chip, (root, provisioner, provisioner, identity, root), manifest_chain(now))
        return bare.with_device(fwid=fwid)

    def with_device(self, *, fwid: bytes | None = FIRMWARE, tcb_info: Sequence[bytes] = ()) -> NvidiaForge:
        """Another device of the same generation under the same root. ``tcb_info``: firmware ids as Blackwell lists them."""
        chip = new_holder(f"{self.chip} A01 GSP BROM", self.now, issuer=self.device[2], crl=False)
        return NvidiaForge(
            self.now, self.chip, (self._leaf(chip, fwid, tcb_info), chip, *self.device[2:]), self.manifest
        )

    def with_leaf(
        self, *, start: datetime | None = None, fwid: bytes | None = FIRMWARE, ca: bool = False
    ) -> NvidiaForge:
        """The same chip with another leaf, e.g. long expired, for other firmware, or a certification authority."""
        leaf = self._leaf(self.device[1], fwid, (), start=start, ca=ca)
        return NvidiaForge(self.now, self.chip, (leaf, *self.device[1:]), self.manifest)

    def _leaf(
        self,
        chip: Holder,
        fwid: bytes | None,
        tcb_info: Sequence[bytes],
        *,
        start: datetime | None = None,
        ca: bool = False,
    ) -> Holder:
        extensions: list[x509.UnrecognizedExtension] = []
        if fwid is not None and not tcb_info:
            key = chip.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            extensions.append(x509.UnrecognizedExtension(FWID_OID, _tlv(0x30, b"\x02\x01\x01" + key + _fwid(fwid))))
        if tcb_info:
            fwids = b"".join(_fwid(digest) for digest in tcb_info)
            content = _tlv(0x80, b"NVIDIA") + _tlv(0xA6, fwids)
            extensions.append(x509.UnrecognizedExtension(TCB_INFO_OID, _tlv(0x30, content)))
        return new_holder(
            f"{self.chip} A01 GSP FMC LF", start or self.now, issuer=chip, ca=ca, extensions=extensions, size=20
        )

    @property
    def anchors(self) -> frozenset[bytes]:
        """The fingerprints of both roots."""
        return frozenset({self.device[-1].spki_fingerprint, self.manifest[-1].spki_fingerprint})

    @property
    def pem(self) -> bytes:
        """The device's chain as it hands it out, leaf first."""
        return pem(self.device)

    def report(self, fields: ReportFields | None = None, *, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
        """A signed report; ``key`` signs in the leaf's place."""
        fields = fields or ReportFields(opaque=gpu_opaque())
        return sign(key or self.device[0].key, body(fields))

    def rim(self, golden: Mapping[int, Sequence[bytes]] | None = None, **changes: str) -> bytes:
        """A signed manifest of this generation. ``changes``: attributes of ``Meta``, such as ``colloquialVersion``."""
        meta = {"colloquialVersion": "550.90.07", "edition": "GPU", "product": self.chip.replace("_", "")} | changes
        if golden is None:
            golden = {7: [default_measurements()[8]]}
        return sign_xml(swid(golden, meta), self.manifest)

    def answers(
        self, status: str = "good", *, about: str = "all", now: datetime | None = None, lifetime: timedelta = DAY
    ) -> list[bytes]:
        """OCSP answers about all authorities of the device and all signers of manifests.

        ``status`` (``good``, ``revoked``, ``hold``, ``unknown``) is that of the one whose common name contains ``about``,
        the others are good; of all of them by default.
        """
        pairs = [(self.device[at], self.device[at + 1]) for at in (1, 2, 3)]
        pairs += [(self.manifest[at], self.manifest[at + 1]) for at in (0, 1, 2)]
        made = []
        for holder, issuer in pairs:
            name = holder.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
            mine = status if about == "all" or about in str(name) else "good"
            made.append(answer(holder, issuer, now or self.now, status=mine, lifetime=lifetime))
        return made


def body(fields: ReportFields) -> bytes:
    """The signed part of a report."""
    record = b"".join(
        bytes((index, 1))
        + (len(value) + 3).to_bytes(2, "little")
        + bytes((fields.kind,))
        + len(value).to_bytes(2, "little")
        + value
        for index, value in fields.measurements.items()
    )
    opaque = b"".join(
        kind.to_bytes(2, "little") + len(data).to_bytes(2, "little") + data
        for kind, data in fields.opaque.items()
        if data is not None
    )
    return b"".join(
        (
            fields.request_head,
            fields.nonce,
            bytes((fields.slot,)),
            fields.response_head,
            bytes((0, fields.slot)),
            bytes((len(fields.measurements),)),
            len(record).to_bytes(3, "little"),
            record,
            fields.response_nonce,
            len(opaque).to_bytes(2, "little"),
            opaque,
        )
    )


def sign(key: ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    """``signed`` with its signature: r and s big-endian, 48 bytes each."""
    return signed + raw_signature(key, signed)


def _fwid(digest: bytes) -> bytes:
    return _tlv(0x30, _SHA384_OID + _tlv(0x04, digest))


def _tlv(tag: int, content: bytes) -> bytes:
    """A DER element of less than 65536 bytes."""
    size = len(content)
    length = (
        bytes((size,)) if size < 0x80 else bytes((0x81, size)) if size < 0x100 else b"\x82" + size.to_bytes(2, "big")
    )
    return bytes((tag,)) + length + content
