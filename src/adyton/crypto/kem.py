"""``ML-KEM-768+A192KW``: a content key wrapped for a post-quantum key, as CoCo's guests have it (experimental there).

The draft ``draft-ietf-jose-pqc-kem-05`` with the reading of it that CoCo's broker and guest share: encapsulate; the wrapping
key is KMAC256(K = shared secret, X = AlgorithmID || SuppPubInfo, L = 192 bits, S = ""), AlgorithmID being the length (4 bytes,
big-endian) and ASCII of the name and SuppPubInfo the 192 in 4 bytes; AES key wrap (RFC 3394). The encapsulated key, 1088
bytes, travels in the header member ``ek``. Later drafts differ, so this one is tied to its name and to nothing else.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from adyton.crypto.kmac import kmac256

ALGORITHM = "ML-KEM-768+A192KW"
PUBLIC_SIZE = 1184
ENCAPSULATED_SIZE = 1088
_WRAPPING = 24
_INFO = len(ALGORITHM).to_bytes(4) + ALGORITHM.encode() + (8 * _WRAPPING).to_bytes(4)


def load(raw: bytes) -> MLKEM768PublicKey:
    """A public key from its 1184 bytes; ``ValueError`` if it is none, or where the library has no ML-KEM."""
    if len(raw) != PUBLIC_SIZE:
        raise ValueError(f"an ML-KEM-768 key has {PUBLIC_SIZE} bytes")
    try:
        return MLKEM768PublicKey.from_public_bytes(raw)
    except UnsupportedAlgorithm as error:
        raise ValueError("the cryptography library here has no ML-KEM") from error


def wrap(public: MLKEM768PublicKey, content_key: bytes) -> tuple[bytes, bytes]:
    """The encapsulated key and the wrapped content key."""
    secret, encapsulated = public.encapsulate()
    return encapsulated, keywrap.aes_key_wrap(_derive(secret), content_key)


def unwrap(private: MLKEM768PrivateKey, encapsulated: bytes, wrapped: bytes) -> bytes:
    """The content key; ``ValueError`` or ``InvalidUnwrap`` if that is not for this key."""
    if len(encapsulated) != ENCAPSULATED_SIZE or len(wrapped) != 40:
        raise ValueError("not a key that was wrapped this way")
    return keywrap.aes_key_unwrap(_derive(private.decapsulate(encapsulated)), wrapped)


def _derive(secret: bytes) -> bytes:
    return kmac256(secret, _INFO, _WRAPPING)
