"""A TPM in software, for evidence that is wrong on purpose: quotes, attestation keys, certificates and event logs.

Quotes are made as TPM 2.0 part 2 writes them, under a key that is RSA or ECC, whose certificate an EK CA of our own
issues. Every field can be set and every signature broken. Written apart from the parser in ``tee/tpm`` on purpose: a mistake in
one of them shows when the other reads it. Nothing here protects anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ALGORITHMS = {"sha1": 0x0004, "sha256": 0x000B, "sha384": 0x000C, "sha512": 0x000D}
RSASSA, RSAPSS, ECDSA = 0x0014, 0x0016, 0x0018
# fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign
AK_ATTRIBUTES = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 16 | 1 << 18
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 -- to show that it is refused
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_CURVES = {"secp256r1": (3, 32), "secp384r1": (4, 48), "secp521r1": (5, 66)}
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def digest(bank: str, data: bytes) -> bytes:
    """The hash of ``data`` in a bank, by name."""
    return hashlib.new(bank, data, usedforsecurity=False).digest()


def sized(value: bytes) -> bytes:
    """A TPM2B."""
    return struct.pack(">H", len(value)) + value


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteFields:
    """What a TPMS_ATTEST says. ``selections``: bank to PCRs, in this order; ``pcr_digest``: ``None`` for the true one."""

    extra_data: bytes
    selections: Sequence[tuple[str, Iterable[int]]] = (("sha256", range(24)),)
    magic: int = 0xFF544347
    kind: int = 0x8018
    qualified_signer: bytes = b"\0\x0b" + bytes(32)
    clock: int = 1_000
    reset_count: int = 1
    restart_count: int = 0
    safe: int = 1
    firmware: int = 0x2026_0101_0000_0000
    pcr_digest: bytes | None = None
    bitmap_size: int = 3
    tail: bytes = b""


@dataclass(slots=True)
class SoftTpm:
    """One TPM with one attestation key. ``pcrs``: bank to 24 values; ``events``: what was measured, for a log."""

    key: Key
    attributes: int = AK_ATTRIBUTES
    pcrs: dict[str, list[bytes]] = field(default_factory=dict)
    events: list[tuple[int, int, dict[str, bytes], bytes]] = field(default_factory=list)

    @classmethod
    def new(cls, kind: str = "rsa", banks: Iterable[str] = ("sha1", "sha256", "sha384")) -> SoftTpm:
        """With a fresh key: ``rsa`` or the name of a curve; PCRs as after power-on."""
        key: Key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(_curve(kind))
        tpm = cls(key)
        tpm.reset(banks)
        return tpm

    def reset(self, banks: Iterable[str]) -> None:
        """PCRs as after power-on: zero, 17 to 22 ones; nothing measured."""
        self.pcrs = {}
        for bank in banks:
            size = len(digest(bank, b""))
            self.pcrs[bank] = [(b"\xff" if 17 <= number <= 22 else b"\0") * size for number in range(24)]
        self.events = []

    def extend(self, pcr: int, data: bytes | Mapping[str, bytes]) -> dict[str, bytes]:
        """Extend every bank with the hash of ``data``, or with the given digests; returns what was extended."""
        steps = {bank: digest(bank, data) if isinstance(data, bytes) else data[bank] for bank in self.pcrs}
        for bank, step in steps.items():
            self.pcrs[bank][pcr] = digest(bank, self.pcrs[bank][pcr] + step)
        return steps

    def measure(self, pcr: int, kind: int, data: bytes, hashed: bytes | None = None) -> None:
        """Measure an event: ``data`` goes into the log, its hash (or that of ``hashed``) into the PCR; type 3 only logs."""
        body = hashed if hashed is not None else data
        steps = (
            {bank: bytes(len(value[0])) for bank, value in self.pcrs.items()} if kind == 3 else self.extend(pcr, body)
        )
        self.events.append((pcr, kind, steps, data))

    def boot(self, *, secure_boot: bytes = b"\1") -> None:
        """What firmware measures at least: version, Secure Boot variables, separators, one boot application."""
        self.measure(0, 0x8, "Adyton test firmware\0".encode("utf-16-le"))
        for name, content in (
            ("SecureBoot", secure_boot),
            ("PK", b"pk"),
            ("KEK", b"kek"),
            ("db", b"db"),
            ("dbx", b"dbx"),
        ):
            self.measure(7, 0x80000001, efi_variable(name, content))
        for pcr in range(8):
            self.measure(pcr, 0x4, bytes(4))
        self.measure(4, 0x80000003, bytes(32), b"a boot loader")

    def log(self, *, banks: Iterable[str] | None = None) -> bytes:
        """The crypto-agile log of what was measured."""
        return crypto_agile_log(self.events, banks if banks is not None else self.pcrs)

    def public_area(self, *, scheme: int | None = None, hash_name: str = "sha256") -> bytes:
        """TPMT_PUBLIC of the key."""
        key = self.key
        head = struct.pack(">HHI", 0x0001 if isinstance(key, rsa.RSAPrivateKey) else 0x0023, 0x000B, self.attributes)
        head += sized(b"") + struct.pack(">H", 0x0010)
        if isinstance(key, rsa.RSAPrivateKey):
            numbers = key.public_key().public_numbers()
            modulus = numbers.n.to_bytes(key.key_size // 8, "big")
            exponent = 0 if numbers.e == 65537 else numbers.e
            middle = struct.pack(">HHHI", scheme or RSASSA, ALGORITHMS[hash_name], key.key_size, exponent)
            return head + middle + sized(modulus)
        point = key.public_key().public_numbers()
        curve, size = _CURVES[key.curve.name]
        middle = struct.pack(">HHHH", scheme or ECDSA, ALGORITHMS[hash_name], curve, 0x0010)
        return head + middle + sized(point.x.to_bytes(size, "big")) + sized(point.y.to_bytes(size, "big"))

    @property
    def spki(self) -> bytes:
        """The key's SubjectPublicKeyInfo, DER."""
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def attest(self, fields: QuoteFields, *, hash_name: str = "sha256") -> bytes:
        """TPMS_ATTEST; the PCR digest is made with ``hash_name``."""
        values = b""
        selections = struct.pack(">I", len(fields.selections))
        for bank, numbers in fields.selections:
            chosen = sorted(numbers)
            bitmap = sum(1 << number for number in chosen).to_bytes(fields.bitmap_size, "little")
            selections += struct.pack(">HB", ALGORITHMS[bank], fields.bitmap_size) + bitmap
            values += b"".join(self.pcrs[bank][number] for number in chosen)
        over = fields.pcr_digest if fields.pcr_digest is not None else digest(hash_name, values)
        return (
            struct.pack(">IH", fields.magic, fields.kind)
            + sized(fields.qualified_signer)
            + sized(fields.extra_data)
            + struct.pack(">QIIB", fields.clock, fields.reset_count, fields.restart_count, fields.safe)
            + struct.pack(">Q", fields.firmware)
            + selections
            + sized(over)
            + fields.tail
        )

    def sign(self, message: bytes, *, hash_name: str = "sha256", scheme: int | None = None) -> bytes:
        """TPMT_SIGNATURE over ``message``."""
        algorithm = _HASHES[hash_name]
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            size = _CURVES[self.key.curve.name][1]
            r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(algorithm)))
            return struct.pack(">HH", scheme or ECDSA, ALGORITHMS[hash_name]) + b"".join(
                sized(value.to_bytes(size, "big")) for value in (r, s)
            )
        pss = scheme == RSAPSS
        how = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size) if pss else padding.PKCS1v15()
        return struct.pack(">HH", scheme or RSASSA, ALGORITHMS[hash_name]) + sized(
            self.key.sign(message, how, algorithm)
        )

    def quote(
        self, fields: QuoteFields, *, hash_name: str = "sha256", scheme: int | None = None
    ) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE."""
        message = self.attest(fields, hash_name=hash_name)
        return message, self.sign(message, hash_name=hash_name, scheme=scheme)

    def coco(self, nonce: bytes, **changes: object) -> bytes:
        """Evidence as CoCo's attester writes it; ``changes`` are fields of ``QuoteFields``."""
        message, signature = self.quote(QuoteFields(extra_data=nonce, **changes))  # type: ignore[arg-type]  # by the caller
        quote = {
            "signature": b64(signature),
            "message": b64(message),
            "pcrs": [pcr.hex() for pcr in self.pcrs["sha256"]],
        }
        return json.dumps({"ak_public": b64(self.spki), "tpm_quote": quote}).encode()

    def bundle(self, quotes: Iterable[tuple[bytes, bytes]], **parts: bytes | None) -> bytes:
        """Adyton's bundle of parts; ``ak_public`` is the TPMT_PUBLIC unless said otherwise, ``None`` leaves a part out."""
        document: dict[str, object] = {
            "quotes": [{"message": b64(message), "signature": b64(signature)} for message, signature in quotes],
            "pcrs": {bank: {str(n): v.hex() for n, v in enumerate(values)} for bank, values in self.pcrs.items()},
        }
        parts = {"ak_public": self.public_area(), **parts}
        document |= {name: b64(part) for name, part in parts.items() if part is not None}
        return json.dumps(document).encode()


def efi_variable(name: str, content: bytes, *, vendor: bytes | None = None) -> bytes:
    """UEFI_VARIABLE_DATA; ``vendor``: the GUID, of the global variables or the image security database unless given."""
    if vendor is None:
        database = name in {"db", "dbx"}
        vendor = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f" if database else "61dfe48bca93d211aa0d00e098032b8c")
    return vendor + struct.pack("<QQ", len(name), len(content)) + name.encode("utf-16-le") + content


def crypto_agile_log(events: Iterable[tuple[int, int, Mapping[str, bytes], bytes]], banks: Iterable[str]) -> bytes:
    """A log with its header: each event is register, type, digests by bank, data."""
    names = list(banks)
    sizes = b"".join(struct.pack("<HH", ALGORITHMS[name], len(digest(name, b""))) for name in names)
    body = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(names)) + sizes + b"\0"
    out = struct.pack("<II20sI", 0, 3, bytes(20), len(body)) + body
    for register, kind, digests, data in events:
        present = [(name, digests[name]) for name in names if name in digests]
        out += struct.pack("<III", register, kind, len(present))
        out += b"".join(struct.pack("<H", ALGORITHMS[name]) + value for name, value in present)
        out += struct.pack("<I", len(data)) + data
    return out


def sha1_log(events: Iterable[tuple[int, int, bytes, bytes]]) -> bytes:
    """A TCG 1.2 log: each event is register, type, SHA-1, data."""
    return b"".join(struct.pack("<II20sI", pcr, kind, sha1, len(data)) + data for pcr, kind, sha1, data in events)


def break_signatures(signature: bytes) -> dict[str, bytes]:
    """A TPMT_SIGNATURE with each way of a wrong one, by name."""
    scheme, algorithm = struct.unpack_from(">HH", signature)
    (size,) = struct.unpack_from(">H", signature, 4)
    first, rest = signature[6 : 6 + size], signature[6 + size :]
    head = signature[:4]
    broken = {
        "bit": signature[:-1] + bytes((signature[-1] ^ 1,)),
        "zero": head + sized(bytes(size)) + rest,
        "short": head + sized(first[1:]) + rest,
        "empty": head + sized(b"") + rest,
        "long": head + sized(b"\1" + first) + rest,
        "other hash": struct.pack(">HH", scheme, 0x000C if algorithm != 0x000C else 0x000B) + signature[4:],
    }
    if scheme == ECDSA:
        second = rest[2:]
        broken["swapped"] = head + sized(second) + sized(first)
        broken["s zero"] = head + sized(first) + sized(bytes(len(second)))
    return broken


def b64(data: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(data).decode("ascii")


def _curve(name: str) -> ec.EllipticCurve:
    curves: dict[str, ec.EllipticCurve] = {
        "secp256r1": ec.SECP256R1(),
        "secp384r1": ec.SECP384R1(),
        "secp521r1": ec.SECP521R1(),
        "secp256k1": ec.SECP256K1(),
    }
    return curves[name]
