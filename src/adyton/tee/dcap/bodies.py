"""The two kinds of body that a quote signs: an enclave's report and a trust domain's. Bytes and types, no trust.

Intel SDM volume 3D, REPORT; Intel TDX DCAP Quoting Library API, appendix A.3 (evidence 3.1). Integers are
little-endian; attributes stay as the bytes that are compared. Reserved bytes are kept ("signed but unknown"), so that
``parse(x).encode() == x``. The quoting enclave's own report is a ``SgxBody`` too.
"""

from __future__ import annotations

import struct
from operator import itemgetter
from typing import Any

import msgspec

from adyton.errors import MalformedEvidence

SGX_SIZE = 384
TD10_SIZE = 584
TD15_SIZE = 648
TD15_EXTENDED_SIZE = 885
SPEC = "Intel TDX DCAP Quoting Library API A.3; evidence 3.1"

_SGX = struct.Struct("<16sI12s16s16s32s32s32s32s64sHHH42s16s64s")
_TD10 = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
_TD15 = struct.Struct("<16s48s")
_EXTENSION = struct.Struct("<B32s48s48s8s16s16s12s48s8s")

SGX_DEBUG = 1 << 1
TD_DEBUG = 1 << 0


class SgxBody(msgspec.Struct, frozen=True):
    """An enclave's report, 384 bytes without its MAC. ``attributes``: flags (8 bytes), then XFRM (8 bytes)."""

    cpusvn: bytes = bytes(16)
    miscselect: int = 0
    reserved_20: bytes = bytes(12)
    isvextprodid: bytes = bytes(16)
    attributes: bytes = bytes((5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0))  # INIT, MODE64; x87, SSE
    mrenclave: bytes = bytes(32)
    reserved_96: bytes = bytes(32)
    mrsigner: bytes = bytes(32)
    reserved_160: bytes = bytes(32)
    configid: bytes = bytes(64)
    isvprodid: int = 0
    isvsvn: int = 0
    configsvn: int = 0
    reserved_262: bytes = bytes(42)
    isvfamilyid: bytes = bytes(16)
    report_data: bytes = bytes(64)

    @classmethod
    def parse(cls, data: bytes) -> SgxBody:
        """From exactly 384 bytes."""
        if len(data) != SGX_SIZE:
            raise _malformed("sgx", "an enclave's report has 384 bytes", SGX_SIZE, len(data))
        return cls(*_SGX.unpack(data))

    @classmethod
    def at(cls, data: bytes, offset: int) -> SgxBody:
        """From the 384 bytes at ``offset``, which the caller knows to be there."""
        return cls(*_SGX.unpack_from(data, offset))

    def encode(self) -> bytes:
        """The 384 bytes; ``ValueError`` if a field does not fit its place."""
        return _pack(_SGX, _SGX_PLACES, msgspec.structs.astuple(self))

    @property
    def flags(self) -> int:
        """The first half of the attributes as a number."""
        return int.from_bytes(self.attributes[:8], "little")

    @property
    def debug(self) -> bool:
        """Whether the host may read and change the enclave's memory."""
        return bool(self.attributes[0] & SGX_DEBUG)


class TdExtension(msgspec.Struct, frozen=True):
    """What body type 4 adds to TD 1.5. The layout is that of one other implementation; no real one is public."""

    vm_id: int = 0
    td_id: bytes = bytes(32)
    device_info: bytes = bytes(48)
    init_servtd_hash: bytes = bytes(48)
    init_servtd_attributes: bytes = bytes(8)
    init_cpusvn: bytes = bytes(16)
    init_tee_tcb_svn: bytes = bytes(16)
    init_fmspc: bytes = bytes(12)
    servtd_hash: bytes = bytes(48)
    servtd_attributes: bytes = bytes(8)


class TdBody(msgspec.Struct, frozen=True):
    """A trust domain's report as a quote holds it. With ``tee_tcb_svn_2`` and ``mrservicetd`` it is of TD 1.5, 648 bytes.

    ``tee_tcb_svn`` is the TCB when the TD was launched; ``tee_tcb_svn_2`` the TCB now.
    """

    tee_tcb_svn: bytes = bytes(16)
    mrseam: bytes = bytes(48)
    mrsignerseam: bytes = bytes(48)
    seam_attributes: bytes = bytes(8)
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
    report_data: bytes = bytes(64)
    tee_tcb_svn_2: bytes | None = None
    mrservicetd: bytes | None = None
    extension: TdExtension | None = None

    @classmethod
    def parse(cls, data: bytes) -> TdBody:
        """From exactly 584, 648 or 885 bytes."""
        if len(data) not in _TD_SIZES:
            raise _malformed("tdx", "a TD's report has 584, 648 or 885 bytes", _TD_SIZES, len(data))
        return cls.at(data, 0, len(data))

    @classmethod
    def at(cls, data: bytes, offset: int, size: int) -> TdBody:
        """From ``size`` bytes at ``offset``, which the caller knows to be there; ``size`` as for ``parse``."""
        if size == TD10_SIZE:
            return cls(*_TD10.unpack_from(data, offset))
        values = _TD10.unpack_from(data, offset) + _TD15.unpack_from(data, offset + TD10_SIZE)
        if size == TD15_EXTENDED_SIZE:
            values = (*values, TdExtension(*_EXTENSION.unpack_from(data, offset + TD15_SIZE)))
        return cls(*values)

    def encode(self) -> bytes:
        """The bytes; ``ValueError`` if a field does not fit its place, or one of TD 1.5 is missing beside the other."""
        values = msgspec.structs.astuple(self)
        encoded = _pack(_TD10, _TD10_PLACES, values[:15])
        if self.tee_tcb_svn_2 is None and self.mrservicetd is None and self.extension is None:
            return encoded
        if self.tee_tcb_svn_2 is None or self.mrservicetd is None:
            raise ValueError("a body of TD 1.5 has both tee_tcb_svn_2 and mrservicetd")
        encoded += _pack(_TD15, _TD15_PLACES, values[15:17])
        if self.extension is not None:
            encoded += _pack(_EXTENSION, _EXTENSION_PLACES, msgspec.structs.astuple(self.extension))
        return encoded

    @property
    def attributes(self) -> int:
        """The TD's attributes as a number."""
        return int.from_bytes(self.td_attributes, "little")

    @property
    def debug(self) -> bool:
        """Whether the host may read and change the TD's memory."""
        return bool(self.td_attributes[0] & TD_DEBUG)

    @property
    def name(self) -> str:
        """``td10``, ``td15`` or ``td15ext``."""
        return "td10" if self.tee_tcb_svn_2 is None else "td15" if self.extension is None else "td15ext"


_TD_SIZES = (TD10_SIZE, TD15_SIZE, TD15_EXTENDED_SIZE)


def _places(layout: struct.Struct) -> tuple[itemgetter[Any], tuple[int, ...]]:
    """Where the byte strings of a layout are, and how long each is; ``struct`` itself would cut and fill silently."""
    values = layout.unpack(bytes(layout.size))
    found = {number: len(value) for number, value in enumerate(values) if isinstance(value, bytes)}
    return itemgetter(*found), tuple(found.values())


_SGX_PLACES = _places(_SGX)
_TD10_PLACES = _places(_TD10)
_TD15_PLACES = _places(_TD15)
_EXTENSION_PLACES = _places(_EXTENSION)


def _pack(layout: struct.Struct, places: tuple[itemgetter[Any], tuple[int, ...]], values: tuple[Any, ...]) -> bytes:
    texts, lengths = places
    if tuple(map(len, texts(values))) != lengths:
        raise ValueError("a field of the body has the wrong length")
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise ValueError("a field of the body is out of range") from error


def _malformed(tee: str, message: str, expected: object, got: object) -> MalformedEvidence:
    return MalformedEvidence(message, code="body_length", tee=tee, field="body", expected=expected, got=got, spec=SPEC)
