"""Who holds a session: what is known behind its cookie, read once per worker.

A function of the claims' digest, which the sealed cookie carries, so it never grows stale: whether it still counts
(expiry, generation) is decided by the cookie and the store at each request. Another worker, or this one after a restart,
reads the same from the cookie or the store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from adyton.crypto.jwk import TeeKey
from adyton.protocol.ear import TokenClaims

MAX_KNOWN = 2048
MAX_BYTES = 16 * 1024 * 1024
"""Of the claims that all of them have together, as they are signed: a workload's document may be long, and it is in there."""
FOREIGN = -1
"""The generation of a holder whose evidence was appraised elsewhere: no change here makes that old."""


class Holder(msgspec.Struct):
    """Whoever asks: the key to encrypt to, the claims to decide by, and the generation that they were made under.

    ``handle`` joins the audit rows of one attester's session: a few digits of its public key's digest. ``expires`` is the
    claims', Unix seconds. ``like``, where it is known, is the same for holders whose claims differ in nothing but time,
    nonce, key and report data; then often nobody reads them, and ``tell`` makes them for who does.
    """

    key: TeeKey
    generation: int
    handle: str
    expires: int
    told: TokenClaims | None
    like: object = None
    tell: Callable[[], TokenClaims] | None = None
    size: int = 0

    @classmethod
    def of(cls, key: TeeKey, claims: TokenClaims, generation: int) -> Holder:
        """With its handle."""
        return cls(key, generation, key.handle, claims.expires, claims)

    @property
    def claims(self) -> TokenClaims:
        """What its token says, read."""
        if self.told is None:
            if self.tell is None:
                raise ValueError("nobody knows the claims")
            self.told = self.tell()
        return self.told


class Holders:
    """Holders by the digest of their claims, the oldest forgotten first.

    At most ``number`` of them, whose claims have at most ``size`` bytes together, and no single one an eighth of that.
    """

    def __init__(self, number: int = MAX_KNOWN, size: int = MAX_BYTES) -> None:
        self._number = number
        self._size = size
        self._taken = 0
        self._known: OrderedDict[bytes, Holder] = OrderedDict()  # a dict slows down when its first item goes each time

    def get(self, digest: bytes) -> Holder | None:
        """Who that is, if it is known here."""
        return self._known.get(digest)

    def put(self, digest: bytes, holder: Holder, size: int) -> None:
        """Remember. ``size``: bytes of the claims."""
        if size * 8 > self._size:
            return  # read from the cookie or the store each time
        known = self._known
        if digest in known:
            self._taken -= known.pop(digest).size
        holder.size = size
        self._taken += size
        while known and (len(known) >= self._number or self._taken > self._size):
            self._taken -= known.popitem(last=False)[1].size
        known[digest] = holder
