"""SM2 keys and signatures for forged evidence (GB/T 32918.2 6.1), **not for secrets that matter**.

Its time depends on the private key and the nonce, and it is slow: it is written to be read beside the standard, apart
from the verifier in ``crypto.sm2``, so that a mistake in one of them shows in the other.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import cache

from adyton.crypto.sm2 import A, B, G, N, P, Sm2Key, sm3

Point = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key: 1 to N - 2, since 1 + d must have an inverse."""

    private: int
    point: Point

    @classmethod
    def new(cls) -> SigningKey:
        """A fresh key."""
        return cls.of(1 + secrets.randbelow(N - 2))

    @classmethod
    def of(cls, private: int) -> SigningKey:
        """The key of this private number; ``ValueError`` if it is out of range."""
        if not 0 < private < N - 1:
            raise ValueError("a private key is 1 to N - 2")
        return cls(private, _multiple(private))

    @property
    def public(self) -> Sm2Key:
        """What verifies its signatures."""
        return Sm2Key(*self.point)

    def sign(self, data: bytes, *, user_id: bytes, nonce: int | None = None) -> tuple[int, int]:
        """``(r, s)`` over ``data``. ``nonce`` is for the standard's examples: a nonce used twice gives the key away."""
        bits = (8 * len(user_id)).to_bytes(2, "big")
        z = sm3(bits + user_id + b"".join(number.to_bytes(32, "big") for number in (A, B, *G, *self.point)))
        e = int.from_bytes(sm3(z + data), "big")
        while True:
            k = nonce if nonce is not None else 1 + secrets.randbelow(N - 1)
            r = (e + _multiple(k)[0]) % N
            s = pow(1 + self.private, -1, N) * (k - r * self.private) % N
            if r and r + k != N and s:
                return r, s


def _add(one: Point | None, other: Point) -> Point:
    """Affine addition; the sum is never infinity here."""
    if one is None:
        return other
    if one == other:
        slope = (3 * one[0] * one[0] + A) * pow(2 * one[1], -1, P) % P
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, P) % P
    x = (slope * slope - one[0] - other[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


@cache
def _doublings() -> tuple[Point, ...]:
    points = [G]
    for _ in range(255):
        points.append(_add(points[-1], points[-1]))
    return tuple(points)


def _multiple(scalar: int) -> Point:
    """``scalar`` times the generator, 0 < scalar < N."""
    result: Point | None = None
    for bit, point in enumerate(_doublings()):
        if scalar >> bit & 1:
            result = _add(result, point)
    if result is None:
        raise ValueError("zero times a point is no point")
    return result
