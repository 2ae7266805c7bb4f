"""Reading the PEM files of JWE recipients. What is accepted here, Debian's skopeo accepts too."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from adyton.errors import ConfigError
from adyton.image.jwe_recipient import PrivateKey, PublicKey

MIN_RSA_BITS = 2048
CURVES = ("secp256r1", "secp384r1", "secp521r1")
_TO_PKCS8 = "openssl pkcs8 -topk8 -nocrypt -in key.pem -out key.pkcs8.pem"


def load_private_key(pem: bytes) -> PrivateKey:
    """An RSA or EC private key; ``ConfigError`` with the command that converts other encodings."""
    for marker, why in (
        (b"BEGIN EC PRIVATE KEY", f"an EC key must be in PKCS#8, as skopeo needs it: {_TO_PKCS8}"),
        (b"BEGIN ENCRYPTED PRIVATE KEY", "it is encrypted; decrypt it: openssl pkcs8 -in key.pem -out plain.pem"),
        (b"Proc-Type: 4,ENCRYPTED", "it is encrypted; decrypt it: openssl rsa -in key.pem -out plain.pem"),
        (b"BEGIN OPENSSH PRIVATE KEY", "it is in OpenSSH's format: ssh-keygen -p -m PKCS8 -f key"),
        (b"BEGIN PUBLIC KEY", "it is a public key; decryption needs the private one"),
        (b"BEGIN CERTIFICATE", "it is a certificate; decryption needs the private key"),
    ):
        if marker in pem:
            raise _refused("private key", why)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _refused("private key", f"a PEM file in PKCS#8 is needed: {_TO_PKCS8}") from error
    if isinstance(key, RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return key
    if isinstance(key, EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return key
    raise _refused("private key", f"RSA of at least {MIN_RSA_BITS} bits, or EC on P-256, P-384 or P-521")


def load_public_key(pem: bytes) -> PublicKey:
    """An RSA or EC public key, or the one in a certificate; ``ConfigError``."""
    if b"PRIVATE KEY" in pem:
        raise _refused("recipient", "it is a private key; give the public one: openssl pkey -pubout -in key.pem")
    try:
        key = (
            x509.load_pem_x509_certificate(pem).public_key()
            if b"BEGIN CERTIFICATE" in pem
            else load_pem_public_key(pem)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _refused("recipient", "a PEM public key: openssl pkey -pubout -in key.pem -out pub.pem") from error
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return key
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in CURVES:
        return key
    raise _refused("recipient", f"RSA of at least {MIN_RSA_BITS} bits, or EC on P-256, P-384 or P-521")


def _refused(what: str, why: str) -> ConfigError:
    return ConfigError(f"this {what} cannot be used: {why}", code="recipient_key", field=what, hint=why)
