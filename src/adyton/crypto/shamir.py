"""Threshold shares of a secret (Shamir, "How to share a secret", CACM 22(11), 1979), byte by byte over GF(2^8).

The field is that of AES (x^8 + x^4 + x^3 + x + 1, FIPS 197 section 4.2). Every byte of the secret is the constant term
of a polynomial of degree ``threshold - 1`` with fresh random coefficients; share ``i`` holds the polynomials' values at
``i``, 1 to ``count``. Any ``threshold`` shares give the secret back; the values of fewer are uniformly random whatever
the secret is.

The scheme alone cannot tell a false share from a true one. So the dealer commits: SHA-256 of each share with its place in
the set, and of the secret. The secret and each value have 256 random bits, so a commitment tells nobody anything that can
be searched; but it is what makes the hiding computational. Products are computed without tables, so that no secret
chooses a memory address.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from adyton.crypto.aead import random_bytes
from adyton.errors import DocumentInvalid

SECRET_SIZE = 32
ID_SIZE = 16
MAX_COUNT = 64
_POLYNOMIAL = 0x11B


@dataclass(frozen=True, slots=True)
class ShareSet:
    """What all shares of one secret say alike, none of it secret: 16-byte id, threshold, commitments (32 bytes each)."""

    id: bytes
    threshold: int
    secret: bytes
    shares: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if len(self.id) != ID_SIZE or not 2 <= self.threshold <= len(self.shares) <= MAX_COUNT:
            raise ValueError(f"a set has an id of {ID_SIZE} bytes, 2 to {MAX_COUNT} shares and a threshold among them")
        if any(len(one) != 32 for one in (self.secret, *self.shares)):
            raise ValueError("a commitment has 32 bytes")

    @property
    def count(self) -> int:
        """How many shares there are."""
        return len(self.shares)


@dataclass(frozen=True, slots=True)
class Share:
    """One share: its place (1 to ``count``) and its 32 bytes, which are secret and not in its ``repr``."""

    set: ShareSet
    index: int
    value: bytes = field(repr=False)

    @property
    def is_genuine(self) -> bool:
        """Whether it is what the dealer of its set committed to."""
        if not 0 < self.index <= self.set.count or len(self.value) != SECRET_SIZE:
            return False
        said = _commitment(self.set.id, self.set.threshold, self.set.count, self.index, self.value)
        return hmac.compare_digest(said, self.set.shares[self.index - 1])


def split(
    secret: bytes, threshold: int, count: int, *, draw: Callable[[int], bytes] = random_bytes
) -> tuple[Share, ...]:
    """``count`` shares of a 32-byte secret, any ``threshold`` of which give it back (2 <= threshold <= count <= 64).

    ``draw`` gives random bytes; only tests hand in another.
    """
    if len(secret) != SECRET_SIZE or not 2 <= threshold <= count <= MAX_COUNT:
        raise ValueError(f"a secret of {SECRET_SIZE} bytes; 2 <= threshold <= count <= {MAX_COUNT}")
    coefficients = [secret, *(draw(SECRET_SIZE) for _ in range(threshold - 1))]
    number = draw(ID_SIZE)
    values = [_at(coefficients, index) for index in range(1, count + 1)]
    made = ShareSet(
        number,
        threshold,
        _commitment(number, threshold, count, 0, secret),
        tuple(_commitment(number, threshold, count, index, value) for index, value in enumerate(values, 1)),
    )
    return tuple(Share(made, index, value) for index, value in enumerate(values, 1))


def recover(shares: Sequence[Share], expected: ShareSet | None = None) -> bytes:
    """The secret. All shares must be genuine and of one set: of ``expected``, where the store still knows it.

    ``DocumentInvalid``: ``shares_too_few``, ``share_foreign``, ``share_twice``, ``share_forged``, each naming the share.
    """
    if not shares:
        raise DocumentInvalid("there are no shares", code="shares_too_few", field="shares", expected=2, got=0)
    one = expected or _most(shares)
    seen: dict[int, bytes] = {}
    for share in shares:
        if share.set != one:
            raise _wrong(share, "share_foreign", "is of another set", one.id.hex(), share.set.id.hex())
        if not share.is_genuine:
            raise _wrong(share, "share_forged", "is not what was dealt", "the value that was committed to", "another")
        if share.index in seen:
            raise _wrong(share, "share_twice", "was given twice", "each share once", share.index)
        seen[share.index] = share.value
    if len(seen) < one.threshold:
        raise DocumentInvalid(
            "these shares are too few",
            code="shares_too_few",
            field="shares",
            expected=f"{one.threshold} of {one.count}",
            got=len(seen),
            hint="ask further owners: adyton broker root-key decrypt-share",
        )
    used = sorted(seen)[: one.threshold]
    secret = _interpolated(used, [seen[index] for index in used])
    if not hmac.compare_digest(_commitment(one.id, one.threshold, one.count, 0, secret), one.secret):
        raise DocumentInvalid(
            "the dealer's commitments do not belong together",
            code="share_set_broken",
            field="shares",
            hint="the set was made wrongly or changed as a whole: use another custody, or an older backup",
        )
    return secret


def _most(shares: Sequence[Share]) -> ShareSet:
    """The set that most shares name: who alone names another one is the odd one."""
    sets = [share.set for share in shares]
    return max(sets, key=sets.count)


def _wrong(share: Share, code: str, what: str, expected: object, got: object) -> DocumentInvalid:
    return DocumentInvalid(
        f"share {share.index} {what}",
        code=code,
        field=f"share {share.index}",
        expected=expected,
        got=got,
        hint="leave this share out, and ask its owner where it comes from",
    )


def _commitment(number: bytes, threshold: int, count: int, index: int, value: bytes) -> bytes:
    """Index 0 is the secret itself."""
    return hashlib.sha256(b"adyton share 1\0" + number + bytes([threshold, count, index]) + value).digest()


def times(left: int, right: int) -> int:
    """The product in GF(2^8): always eight steps, no branch and no table."""
    product = 0
    for bit in range(8):
        product ^= -(right >> bit & 1) & left
        left = (left << 1) ^ (-(left >> 7 & 1) & _POLYNOMIAL)
    return product


def inverse(value: int) -> int:
    """``value`` to the power of 254, which is 1 / ``value``; ``ValueError`` for 0."""
    if not value:
        raise ValueError("zero has no inverse")
    result = 1
    for _ in range(7):  # 254 = 2 + 4 + ... + 128
        value = times(value, value)
        result = times(result, value)
    return result


def _at(coefficients: Sequence[bytes], x: int) -> bytes:
    result = bytes(SECRET_SIZE)
    for coefficient in reversed(coefficients):
        result = bytes(times(one, x) ^ other for one, other in zip(result, coefficient, strict=True))
    return result


def _interpolated(places: Sequence[int], values: Sequence[bytes]) -> bytes:
    """Lagrange at 0; the field's characteristic is 2, so minus is plus."""
    result = bytes(SECRET_SIZE)
    for place, value in zip(places, values, strict=True):
        weight = 1
        for other in places:
            if other != place:
                weight = times(weight, times(other, inverse(other ^ place)))
        result = bytes(one ^ times(part, weight) for one, part in zip(result, value, strict=True))
    return result
