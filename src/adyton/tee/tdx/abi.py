"""Trust domains' formats: the TD's report in a quote (from ``dcap``), and TDREPORT, 1024 bytes, as the module gives it.

Intel TDX Module 1.5 ABI, TDREPORT_STRUCT; evidence 3.1. A TDREPORT is protected by a MAC of the machine that it was made
on: elsewhere nobody can verify it, and nothing here pretends to. It counts only where something signed vouches for its
bytes. Reserved bytes are kept, so that ``TdReport.parse(x).encode() == x``.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from operator import itemgetter

import msgspec

from adyton.errors import MalformedEvidence
from adyton.tee.dcap.bodies import TD_DEBUG, TdBody, TdExtension

__all__ = ["ATTRIBUTE_BITS", "TDREPORT_SIZE", "TUD_BITS", "TdBody", "TdExtension", "TdReport"]

TDREPORT_SIZE = 1024
TDX_REPORT_TYPE = 0x81
SPEC = "Intel TDX Module 1.5 ABI, TDREPORT_STRUCT; evidence 3.1"

ATTRIBUTE_BITS = (
    ("debug", 0),
    ("hgs_plus", 4),
    ("perf_prof", 5),
    ("pmt_prof", 6),
    ("icssd", 16),
    ("lass", 27),
    ("sept_ve_disable", 28),
    ("migratable", 29),
    ("pks", 30),
    ("kl", 31),
    ("tpa", 62),
    ("perfmon", 63),
)
TUD_BITS = 0xFF  # any of these makes the TD untrusted

# MAC structure (256), TEE_TCB_INFO (239), 17 reserved, TDINFO (512)
_LAYOUT = struct.Struct(
    "<4s12s16s48s48s64s32s32s"
    "8s16s48s48s8s16s95s"
    "17s"
    "8s8s48s48s48s48s48s48s48s48s48s64s"
)  # fmt: skip
_TCB_INFO = slice(256, 495)
_TD_INFO = slice(512, 1024)


class TdReport(msgspec.Struct, frozen=True):
    """A TDREPORT. ``report_type``: type 0x81, subtype, version, reserved."""

    report_type: bytes = bytes((TDX_REPORT_TYPE, 0, 0, 0))
    reserved_4: bytes = bytes(12)
    cpusvn: bytes = bytes(16)
    tee_tcb_info_hash: bytes = bytes(48)
    td_info_hash: bytes = bytes(48)
    report_data: bytes = bytes(64)
    reserved_192: bytes = bytes(32)
    mac: bytes = bytes(32)
    valid: bytes = bytes(8)
    tee_tcb_svn: bytes = bytes(16)
    mrseam: bytes = bytes(48)
    mrsignerseam: bytes = bytes(48)
    seam_attributes: bytes = bytes(8)
    tee_tcb_svn_2: bytes = bytes(16)
    reserved_400: bytes = bytes(95)
    reserved_495: bytes = bytes(17)
    td_attributes: bytes = bytes(8)
    xfam: bytes = bytes(8)
    mrtd: bytes = bytes(48)
    mrconfigid: bytes = bytes(48)
    mrowner: bytes = bytes(48)
    mrownerconfig: bytes = bytes(48)
    rtmr0: bytes = bytes(48)
    rtmr1: bytes = bytes(48)
    rtmr2: bytes = bytes(48)
    rtmr3: bytes = bytes(48)
    servtd_hash: bytes = bytes(48)
    reserved_960: bytes = bytes(64)

    @classmethod
    def parse(cls, data: bytes) -> TdReport:
        """From exactly 1024 bytes, whatever they say; ``is_td`` and ``hashes_hold`` tell whether they make sense."""
        if len(data) != TDREPORT_SIZE:
            raise _malformed("tdreport_length", "a TDREPORT has 1024 bytes", TDREPORT_SIZE, len(data))
        return cls(*_LAYOUT.unpack(data))

    def encode(self) -> bytes:
        """The 1024 bytes; ``ValueError`` if a field does not fit its place."""
        values = msgspec.structs.astuple(self)
        if tuple(map(len, values)) != _LENGTHS:
            raise ValueError("a field of the TDREPORT has the wrong length")
        return _LAYOUT.pack(*values)

    @property
    def is_td(self) -> bool:
        """Whether it names itself a trust domain's report (type 0x81)."""
        return self.report_type[0] == TDX_REPORT_TYPE

    @property
    def debug(self) -> bool:
        """Whether the host may read and change the TD's memory."""
        return bool(self.td_attributes[0] & TD_DEBUG)

    @property
    def hashes_hold(self) -> bool:
        """Whether the two hashes under the MAC are those of the parts that they stand for. No proof of anything."""
        encoded = self.encode()
        return hmac.compare_digest(
            hashlib.sha384(encoded[_TCB_INFO]).digest() + hashlib.sha384(encoded[_TD_INFO]).digest(),
            self.tee_tcb_info_hash + self.td_info_hash,
        )


_LENGTHS = tuple(map(len, itemgetter(*range(28))(_LAYOUT.unpack(bytes(TDREPORT_SIZE)))))


def _malformed(code: str, message: str, expected: object, got: object) -> MalformedEvidence:
    return MalformedEvidence(message, code=code, tee="tdx", field=code, expected=expected, got=got, spec=SPEC)
