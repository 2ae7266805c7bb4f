"""Keys that sign documents, and the one way each of them does: Ed25519, RSA-PSS, ECDSA.

The algorithm belongs to the key, never to the signature. A key's identity is SHA-256 of its SPKI; the ids that in-toto
writes are names that lead to it (in-toto specification 0.9, 4.2).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from adyton.provenance import olpc
from adyton.provenance.values import refused

PublicKey = ed25519.Ed25519PublicKey | rsa.RSAPublicKey | ec.EllipticCurvePublicKey
SPEC = "in-toto 0.9, 4.2"
MAX_PEM = 16 * 1024
RSA_BITS = range(2048, 8193)
_RSA = {
    "rsassa-pss-sha256": hashes.SHA256(),
    "rsassa-pss-sha384": hashes.SHA384(),
    "rsassa-pss-sha512": hashes.SHA512(),
}
_CURVES: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "secp256r1": ("ecdsa-sha2-nistp256", hashes.SHA256()),
    "secp384r1": ("ecdsa-sha2-nistp384", hashes.SHA384()),
    "secp521r1": ("ecdsa-sha2-nistp521", hashes.SHA512()),
}
_TYPES = {"ed25519": "ed25519", "rsa": "rsa", "ecdsa": "ecdsa"} | {
    scheme: "ecdsa" for scheme, _ in _CURVES.values()
}  # older in-toto names the type of an ECDSA key as its scheme


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and its scheme. ``id`` is SHA-256 of the SPKI in hex; ``names`` are ids that signatures may carry."""

    id: str
    scheme: str
    public: PublicKey
    names: frozenset[str]
    pem: str

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether ``signature`` is this key's over ``data``, in the form that in-toto and DSSE use (ECDSA in DER)."""
        public = self.public
        try:
            if isinstance(public, ed25519.Ed25519PublicKey):
                public.verify(signature, data)
            elif isinstance(public, rsa.RSAPublicKey):
                digest = _RSA[self.scheme]
                public.verify(signature, data, padding.PSS(padding.MGF1(digest), padding.PSS.AUTO), digest)
            else:
                public.verify(signature, data, ec.ECDSA(_CURVES[public.curve.name][1]))
        except (InvalidSignature, ValueError):
            return False
        return True


def from_pem(pem: str, scheme: str | None = None, name: str | None = None) -> Key:
    """The key in a PEM ``PUBLIC KEY``; ``DocumentInvalid`` if it is none, or of a kind that signs nothing here."""
    if len(pem) > MAX_PEM or "PRIVATE" in pem:
        raise _malformed("a PEM public key", "a private key" if "PRIVATE" in pem else "a text of another length")
    try:
        public = load_pem_public_key(pem.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _malformed("a PEM public key", "something else") from error
    return _key(public, scheme, name)


def from_in_toto(member: object, name: str) -> Key:
    """A key as in-toto writes it into layouts, under the id ``name``; ``DocumentInvalid`` for others, GPG's included."""
    if not isinstance(member, dict):
        raise _malformed("an object", type(member).__name__)
    kind, scheme, value = member.get("keytype"), member.get("scheme"), member.get("keyval")
    public = value.get("public") if isinstance(value, dict) else None
    if member.get("keyid", name) != name:
        raise _malformed(name, member.get("keyid"), "keyid")
    if not isinstance(kind, str) or not isinstance(scheme, str) or not isinstance(public, str):
        raise _malformed("keytype, scheme and keyval.public", "others")
    if isinstance(value, dict) and value.get("private"):
        raise _malformed("a public key", "a private one", "keyval")
    if _TYPES.get(kind) is None:
        raise _malformed(sorted(_TYPES), kind, "keytype")
    if kind == "ed25519":
        try:
            raw = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        except ValueError as error:
            raise _malformed("32 bytes in hex", public, "keyval.public") from error
        found = _key(raw, scheme, name)
    else:
        found = from_pem(public, scheme, name)
    if _type_of(found.public) != _TYPES[kind]:
        raise _malformed(kind, _type_of(found.public), "keytype")
    return found


def _key(public: object, scheme: str | None, name: str | None) -> Key:
    if isinstance(public, ed25519.Ed25519PublicKey):
        own = ["ed25519"]
    elif isinstance(public, rsa.RSAPublicKey):
        if public.key_size not in RSA_BITS:
            raise _malformed(f"{RSA_BITS[0]} to {RSA_BITS[-1]} bits", public.key_size, "keyval.public")
        own = list(_RSA)
    elif isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES:
        own = [_CURVES[public.curve.name][0]]
    else:
        raise _malformed("Ed25519, RSA, or ECDSA on P-256, P-384 or P-521", type(public).__name__, "keyval.public")
    if scheme is not None and scheme not in own:
        raise _malformed(own, scheme, "scheme")
    chosen = scheme or own[0]
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
    own_id = hashlib.sha256(spki).hexdigest()
    names = frozenset({name} if name is not None else {own_id, *_in_toto_names(public, chosen, pem)})
    return Key(own_id, chosen, public, names, pem)


def _in_toto_names(public: PublicKey, scheme: str, pem: str) -> list[str]:
    """The ids that in-toto's libraries give the key: with and without the list of hash algorithms, and the last line."""
    if isinstance(public, ed25519.Ed25519PublicKey):
        texts = [public.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()]
    else:
        texts = [pem, pem.rstrip("\n")]
    kinds = [_type_of(public)] + ([scheme] if _type_of(public) == "ecdsa" else [])
    names = []
    for kind in kinds:
        for text in texts:
            bare = {"keytype": kind, "scheme": scheme, "keyval": {"public": text}}
            older = bare | {"keyid_hash_algorithms": ["sha256", "sha512"]}
            names += [hashlib.sha256(olpc.canonical(member)).hexdigest() for member in (bare, older)]
    return names


def _type_of(public: PublicKey) -> str:
    if isinstance(public, ed25519.Ed25519PublicKey):
        return "ed25519"
    return "rsa" if isinstance(public, rsa.RSAPublicKey) else "ecdsa"


def _malformed(expected: object, got: object, field: str = "key") -> Exception:
    return refused(
        "a key that cannot verify anything here",
        "provider_key_invalid",
        field=field,
        expected=expected,
        got=got if isinstance(got, int) else str(got)[:80],
        spec=SPEC,
        hint="Ed25519, RSA of at least 2048 bits (PSS), or ECDSA on P-256, P-384, P-521; public keys only",
    )
