"""Any bytes are an SGX stream, a SIGSTRUCT or a firmware for trust domains, or one error of ours."""

from __future__ import annotations

import hashlib
import struct
import sys

import atheris

with atheris.instrument_imports():
    from adyton.errors import DocumentInvalid, SignatureInvalid
    from adyton.tee.sgx import measure as sgx
    from adyton.tee.sgx.sigstruct import SIZE, Sigstruct
    from adyton.tee.tdx import measure as tdx
    from adyton.wire import guid_table

CREATE = sgx.create_record(0x10000, 1)
RECORDS = [
    sgx.add_record(0, 0x205),
    sgx.add_record(4096, 0x203),
    sgx.extend_record(0, bytes(256)),
    sgx.extend_record(256, bytes(256)),
    b"UNMEASRD" + sgx.extend_record(512, bytes(256))[8:],
]
HEADS = {0: "06000000e10000000000010000000000", 20: "01060620", 24: "01010000600000006000000001000000", 512: "03000000"}
SECTIONS = struct.pack("<IIQQII", 0, 4096, 0xFFFFF000, 4096, 0, 1) + struct.pack("<IIQQII", 0, 0, 0x1000, 4096, 3, 0)


def stream(data: bytes) -> None:
    for candidate in (data, CREATE + data, CREATE + b"".join(RECORDS[byte % 5] for byte in data[:40]) + data[40:]):
        half = len(candidate) // 2
        try:
            measured = sgx.measure([candidate[:half], candidate[half:]])
        except DocumentInvalid:
            continue
        assert measured.unmeasured or measured.mrenclave == hashlib.sha256(candidate).digest()


def sigstruct(data: bytes) -> None:
    near = bytearray(data.ljust(SIZE, b"\0")[:SIZE])
    for offset, value in HEADS.items():
        near[offset : offset + len(value) // 2] = bytes.fromhex(value)
    for start, end in ((16, 20), (44, 128), (910, 912), (992, 1008), (1028, 1040)):
        near[start:end] = bytes(end - start)
    for candidate in (data, bytes(near)):
        try:
            parsed = Sigstruct.parse(candidate)
        except DocumentInvalid:
            continue
        assert parsed.encode() == candidate
        try:
            parsed.verify()
        except SignatureInvalid:
            continue
        raise AssertionError("a signature out of nothing")


def firmware(data: bytes) -> None:
    metadata = bytearray(struct.pack("<4sIII", b"TDVF", 16 + len(SECTIONS), 1, 2) + SECTIONS)
    for at, value in zip(data[::2], data[1::2], strict=False):
        metadata[16 + at % 64] ^= value
    table = guid_table.write({tdx.METADATA: struct.pack("<I", 4096 - 64)})
    image = (bytes(64) + bytes(metadata)).ljust(4096 - 32 - len(table), b"\0") + table + bytes(32)
    for candidate in (data, image):
        try:
            sections = tdx.parse(candidate)
        except DocumentInvalid:
            continue
        if sum(section.size for section in sections) < 1 << 20:
            assert len(tdx.mrtd(candidate, tdx.Order.PAGE)) == 48


def one(data: bytes) -> None:
    stream(data)
    sigstruct(data)
    firmware(data)


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
