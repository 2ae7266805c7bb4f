"""KMAC256 (NIST SP 800-185 section 4) for one short message: the key derivation of ML-KEM in JOSE.

Neither ``hashlib`` nor ``cryptography`` has it, so the permutation is here, in plain Python: three rounds of Keccak-f[1600]
a key, about 1 ms. Its steps and their order do not depend on the data (no table is indexed by it); what Python's own
integers take longer for is not controlled. Used on the side that encrypts, once an answer, never on a secret that lasts.
"""

from __future__ import annotations

_RATE = 136  # bytes of KMAC256
_MASK = (1 << 64) - 1
MAX_OUTPUT = _RATE


def _offsets() -> tuple[int, ...]:
    found = [0] * 25
    x, y = 1, 0
    for step in range(24):
        found[x + 5 * y] = (step + 1) * (step + 2) // 2 % 64
        x, y = y, (2 * x + 3 * y) % 5
    return tuple(found)


def _constants() -> tuple[int, ...]:
    """FIPS 202 algorithm 5: bits of an LFSR at the positions 2^j - 1."""
    register, found = 1, []
    for _ in range(24):
        value = 0
        for j in range(7):
            if register & 1:
                value |= 1 << ((1 << j) - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
        found.append(value)
    return tuple(found)


_OFFSETS = _offsets()
_CONSTANTS = _constants()


def _rotate(value: int, by: int) -> int:
    return (value << by | value >> 64 - by) & _MASK if by else value


def _permute(lanes: list[int]) -> list[int]:
    """Keccak-f[1600]; lane (x, y) stands at ``x + 5 * y``."""
    for constant in _CONSTANTS:
        column = [lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^ lanes[x + 20] for x in range(5)]
        mixed = [column[(x - 1) % 5] ^ _rotate(column[(x + 1) % 5], 1) for x in range(5)]
        turned = [0] * 25
        for y in range(5):
            for x in range(5):
                turned[y + 5 * ((2 * x + 3 * y) % 5)] = _rotate(lanes[x + 5 * y] ^ mixed[x], _OFFSETS[x + 5 * y])
        lanes = [
            turned[x + 5 * y] ^ (~turned[(x + 1) % 5 + 5 * y] & turned[(x + 2) % 5 + 5 * y])
            for y in range(5)
            for x in range(5)
        ]
        lanes[0] ^= constant
    return lanes


def _sponge(data: bytes, size: int) -> bytes:
    """Absorb whole blocks, squeeze one."""
    lanes = [0] * 25
    for begin in range(0, len(data), _RATE):
        for index in range(_RATE // 8):
            at = begin + 8 * index
            lanes[index] ^= int.from_bytes(data[at : at + 8], "little")
        lanes = _permute(lanes)
    return b"".join([lane.to_bytes(8, "little") for lane in lanes[: _RATE // 8]])[:size]


def _left(value: int) -> bytes:
    encoded = value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
    return bytes([len(encoded)]) + encoded


def _string(data: bytes) -> bytes:
    return _left(8 * len(data)) + data


def _pad(data: bytes) -> bytes:
    whole = _left(_RATE) + data
    return whole + bytes(-len(whole) % _RATE)


def kmac256(key: bytes, message: bytes, size: int, custom: bytes = b"") -> bytes:
    """``size`` bytes (1 to 136) of KMAC256(key, message, 8 * size, custom)."""
    if not 1 <= size <= MAX_OUTPUT:
        raise ValueError("1 to 136 bytes")
    bits = _left(8 * size)
    length = bits[1:] + bits[:1]  # right_encode
    data = _pad(_string(b"KMAC") + _string(custom)) + _pad(_string(key)) + message + length + b"\x04"
    data += bytes(-len(data) % _RATE)
    return _sponge(data[:-1] + bytes([data[-1] | 0x80]), size)
