"""Keys and certificates of a development root in files: whole or absent, keys for their owner alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from adyton.errors import ConfigError


def write(path: Path, content: bytes, mode: int) -> None:
    """Replace ``path`` by one rename; nobody ever sees a part of it, nor its content under a wider mode."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise broken(path, error.strerror or "cannot be read") from error


def _parse(path: Path, parse: Callable[[bytes], object]) -> object:
    try:
        return parse(_read(path))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise broken(path, "it is not what it should be") from error


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in ``path``, PEM; ``ConfigError`` if it is absent or broken."""
    certificate = _parse(path, x509.load_pem_x509_certificate)
    assert isinstance(certificate, x509.Certificate)  # noqa: S101 -- what that function returns
    return certificate


def read_key(path: Path) -> object:
    """The private key in ``path``, PEM; ``ConfigError`` if it is absent, broken, or readable by others."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise broken(path, error.strerror or "cannot be read") from error
    if mode & 0o077:
        raise ConfigError(
            "a key of the development root can be read by others",
            code="devtee_key_exposed",
            field=str(path),
            expected="0600",
            got=f"{mode:04o}",
            hint="whoever read it can forge this root's evidence: remove the directory and make a new root",
        )
    # RSA keys that we made need no primality tests at every start (0.3 s each); load compares them with certificates.
    return _parse(path, lambda pem: load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True))


def spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    """The key's SubjectPublicKeyInfo, DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """The private key as files hold it: PKCS#8, PEM, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def broken(path: Path, why: str) -> ConfigError:
    """The error for a file of the root that cannot be used."""
    return ConfigError(
        f"the development root cannot be used: {why}",
        code="devtee_root_broken",
        field=str(path),
        hint="move the directory away and make a new root: adyton devtee init",
    )
