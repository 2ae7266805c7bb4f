"""SM2 signatures with SM3 (GB/T 32918.2-2016, GB/T 32905-2016): verification only, in Python integers.

``cryptography`` has SM3 but offers no SM2. Verification handles nothing secret, so that its time depends on the values
does no harm; signing would be another matter, and is not here.

Two ways to the same point s*G + t*P: a key seen once pays 256 doublings; a key that was ``prepare``d (252 points, some
2 ms once) pays ten. Whoever meets a key again prepares it, and keeps it as long as it keeps the key's certificate.

>>> sm3(b"abc").hex()
'66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0'
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from cryptography.hazmat.primitives.hashes import SM3, Hash
from cryptography.hazmat.primitives.hmac import HMAC

from adyton.errors import SignatureInvalid

# GB/T 32918.5, the recommended curve sm2p256v1: y^2 = x^3 - 3x + b over the integers modulo P.
P = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
A = P - 3
B = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
N = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
G = (
    0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
    0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0,
)
SIZE = 32  # bytes of a coordinate, of r and of s
# SubjectPublicKeyInfo of an uncompressed SM2 point (id-ecPublicKey, 1.2.156.10197.1.301), up to the point's coordinates.
_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d03420004")

Affine = tuple[int, int]
Jacobian = tuple[int, int, int]  # x = X/Z^2, y = Y/Z^3; Z = 0 is the point at infinity
INFINITY: Jacobian = (1, 1, 0)


def sm3(data: bytes) -> bytes:
    """The SM3 digest, 32 bytes."""
    context = Hash(_SM3)
    context.update(data)
    return context.finalize()


def hmac_sm3(key: bytes, data: bytes) -> bytes:
    """HMAC (RFC 2104) with SM3, 32 bytes."""
    context = HMAC(key, _SM3)
    context.update(data)
    return context.finalize()


_SM3 = SM3()


class Sm2Key:
    """A public key: a point of the curve other than infinity. Equal keys have equal coordinates."""

    __slots__ = ("_comb", "_z", "x", "y")

    def __init__(self, x: int, y: int) -> None:
        """``ValueError`` if the point is not on the curve. The curve's order is prime: every such point generates it."""
        if not (0 <= x < P and 0 <= y < P) or (y * y - (x * x + A) * x - B) % P:
            raise ValueError("not a point of the SM2 curve")
        self.x = x
        self.y = y
        self._comb: _Comb | None = None
        self._z: tuple[bytes, bytes] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sm2Key) and (self.x, self.y) == (other.x, other.y)

    def __hash__(self) -> int:
        return hash((self.x, self.y))

    @property
    def spki(self) -> bytes:
        """The DER SubjectPublicKeyInfo, 91 bytes; its SHA-256 is what trust anchors pin."""
        return _SPKI + self.x.to_bytes(SIZE, "big") + self.y.to_bytes(SIZE, "big")

    def prepare(self) -> None:
        """Make further verifications under this key cheap: 252 points, about 50 kB."""
        if self._comb is None:
            self._comb = _Comb((self.x, self.y), teeth=6, blocks=4)

    def identity(self, user_id: bytes) -> bytes:
        """Z, 32 bytes: the digest of the signer's id, the curve and the key (GB/T 32918.2 5.5).

        ``user_id`` has at most 8191 bytes, since its length in bits stands in two; more is ``ValueError``.
        """
        if self._z is not None and self._z[0] == user_id:
            return self._z[1]
        if len(user_id) > 8191:
            raise ValueError("a user id has at most 8191 bytes")
        z = sm3((8 * len(user_id)).to_bytes(2, "big") + user_id + _CURVE + self.spki[len(_SPKI) :])
        self._z = (user_id, z)
        return z

    def verify(self, r: int, s: int, data: bytes, *, user_id: bytes) -> None:
        """Verify a signature over ``data``, or ``SignatureInvalid`` (GB/T 32918.2 7.1)."""
        if not (0 < r < N and 0 < s < N):
            raise SignatureInvalid("r or s of the signature is out of range", field="signature")
        t = (r + s) % N
        e = int.from_bytes(sm3(self.identity(user_id) + data), "big")
        if self._comb is not None:
            x, _, z = _twin(s, t, self._comb)
        else:
            x, _, z = _add(_generator().multiply(s), _ladder(t, (self.x, self.y)))
        # r = e + x (mod N), where x is the affine coordinate, 0 <= x < P: compared without dividing by Z^2.
        wanted = (r - e) % N
        zz = z * z % P
        if (
            t == 0
            or z == 0
            or not ((wanted * zz - x) % P == 0 or (wanted + N < P and ((wanted + N) * zz - x) % P == 0))
        ):
            raise SignatureInvalid("the signature does not verify", field="signature")


_CURVE = b"".join(number.to_bytes(SIZE, "big") for number in (A, B, *G))


def _double(point: Jacobian) -> Jacobian:
    """Twice the point; the curve's a = -3 makes one factor a difference of squares."""
    x, y, z = point
    zz = z * z % P
    yy = y * y % P
    xyy = 4 * x * yy % P
    slope = 3 * (x - zz) * (x + zz) % P
    doubled = (slope * slope - 2 * xyy) % P
    return doubled, (slope * (xyy - doubled) - 8 * yy * yy) % P, 2 * y * z % P


def _add_affine(point: Jacobian, other: Affine) -> Jacobian:
    """The sum of two points, of which ``other`` is not infinity."""
    x, y, z = point
    if not z:
        return (*other, 1)
    zz = z * z % P
    h = (other[0] * zz - x) % P
    slope = (other[1] * zz * z - y) % P
    if not h:
        return INFINITY if slope else _double(point)
    hh = h * h % P
    hhh = h * hh % P
    xhh = x * hh % P
    added = (slope * slope - hhh - 2 * xhh) % P
    return added, (slope * (xhh - added) - y * hhh) % P, z * h % P


def _add(point: Jacobian, other: Jacobian) -> Jacobian:
    """The sum of two points."""
    if not other[2]:
        return point
    return _add_affine(point, *_affine([other]))


def _affine(points: Sequence[Jacobian]) -> list[Affine]:
    """Affine coordinates of points, none of which is infinity; one inversion for all of them."""
    products = [1]
    for _, _, z in points:
        products.append(products[-1] * z % P)
    inverse = pow(products[-1], -1, P)
    result = []
    for (x, y, z), before in zip(reversed(points), reversed(products[:-1]), strict=True):
        reciprocal = inverse * before % P
        inverse = inverse * z % P
        square = reciprocal * reciprocal % P
        result.append((x * square % P, y * square * reciprocal % P))
    return result[::-1]


def _ladder(scalar: int, point: Affine) -> Jacobian:
    """``scalar`` times ``point``, four bits at a time."""
    multiples: list[Jacobian] = [(*point, 1)]
    for _ in range(14):
        multiples.append(_add_affine(multiples[-1], point))
    table = _affine(multiples)  # 1 * point to 15 * point: the curve's order is a large prime, none is infinity
    result = INFINITY
    for shift in range(252, -1, -4):
        if result[2]:
            result = _double(_double(_double(_double(result))))
        digit = scalar >> shift & 15
        if digit:
            result = _add_affine(result, table[digit - 1])
    return result


class _Comb:
    """Sums of far-apart powers of two of one point (Lim and Lee, CRYPTO '94).

    A scalar is cut into ``teeth`` rows of ``columns`` bits each; the bits of one column choose one prepared point. The
    columns are cut into ``blocks``, each with points of its own, so that all blocks share the same few doublings.
    """

    __slots__ = ("blocks", "columns", "rows", "tables", "width")

    def __init__(self, point: Affine, *, teeth: int, blocks: int) -> None:
        self.rows = range(teeth)
        self.blocks = blocks
        self.width = -(-256 // (teeth * blocks))  # doublings, and one
        self.columns = self.width * blocks
        powers: list[Jacobian] = [(*point, 1)]
        for _ in range(teeth * self.columns - 1):
            powers.append(_double(powers[-1]))
        bases = _affine(
            [powers[row * self.columns + block * self.width] for block in range(blocks) for row in self.rows]
        )
        sums: list[Jacobian] = []
        for block in range(blocks):
            table: list[Jacobian] = [INFINITY]
            for base in bases[block * teeth : (block + 1) * teeth]:
                table += [_add_affine(entry, base) for entry in table]
            sums += table[1:]
        count = (1 << teeth) - 1
        affine = _affine(sums)
        self.tables = [affine[block * count : (block + 1) * count] for block in range(blocks)]

    def digits(self, scalar: int) -> list[list[Affine]]:
        """The points to add after each doubling, from the first (most significant) step to the last."""
        columns = self.columns
        text = f"{scalar:b}".zfill(len(self.rows) * columns)
        rows = [text[row * columns : (row + 1) * columns] for row in self.rows]  # the highest row first
        chosen = [int("".join(bits), 2) for bits in zip(*rows, strict=True)]  # the highest column first
        width, tables = self.width, self.tables
        steps: list[list[Affine]] = []
        for step in range(width):
            at_once = []
            for block in range(self.blocks):
                digit = chosen[(self.blocks - 1 - block) * width + step]
                if digit:
                    at_once.append(tables[block][digit - 1])
            steps.append(at_once)
        return steps

    def multiply(self, scalar: int) -> Jacobian:
        """``scalar`` times the point, 0 <= scalar < 2^256."""
        return _sum(self.digits(scalar))


def _twin(of_generator: int, of_key: int, key: _Comb) -> Jacobian:
    """of_generator * G + of_key * key's point, over one row of doublings."""
    steps = key.digits(of_key)
    more = _generator().digits(of_generator)
    for at, points in zip(range(len(steps) - len(more), len(steps)), more, strict=True):
        steps[at] += points
    return _sum(steps)


def _sum(steps: list[list[Affine]]) -> Jacobian:
    """Double and add: before each step the sum so far is doubled."""
    result = INFINITY
    for points in steps:
        if result[2]:
            result = _double(result)
        for point in points:
            result = _add_affine(result, point)
    return result


@cache
def _generator() -> _Comb:
    """The generator's points, made on first use: 1020 of them, some 8 ms."""
    return _Comb(G, teeth=8, blocks=4)
