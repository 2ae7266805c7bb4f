"""Signers of workload documents on the command line: whose signature counts, and the key that signs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.crypto.detached import PrivateKey

_MAX_PEM = 64 * 1024
signer_option = click.option(
    "--signer",
    "signers",
    multiple=True,
    metavar="KEY",
    help="Any workload document that this key signed: a public key (PEM), or sha256:<hex> of its SPKI.",
)


def fingerprints(given: Iterable[str]) -> list[str]:
    """What each says: the fingerprint itself, or the key in the file of that name; ``ConfigError``."""
    return [_fingerprint(one) if _is_file(one) else one for one in given]


def signing_key(file: Path, passphrase_file: Path | None) -> PrivateKey:
    """The private key in ``file`` (PEM, nobody else's to read); ``ConfigError``."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from adyton.cli.custody_options import passphrase
    from adyton.crypto import detached
    from adyton.stores.custody import private_file

    password = passphrase(passphrase_file, None) if passphrase_file else None
    try:
        key = load_pem_private_key(private_file.read(file, "the signer's key"), password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            "the signer's key cannot be read",
            code="signer_key_unusable",
            field=str(file),
            expected=f"PEM of a private key: {detached.KINDS}",
            hint="is it protected by a passphrase? give --passphrase-file; a new one: openssl genpkey -algorithm ed25519",
        ) from error
    if not detached.usable(key.public_key()):
        raise _unusable(str(file))
    return key  # type: ignore[return-value]


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _fingerprint(name: str) -> str:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    from adyton.cli.binding import read_bytes
    from adyton.crypto import detached

    pem = read_bytes(name, _MAX_PEM)
    key: object
    try:
        certificate = b"BEGIN CERTIFICATE" in pem
        key = x509.load_pem_x509_certificate(pem).public_key() if certificate else load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(name) from error
    if not detached.usable(key):
        raise _unusable(name)
    return detached.fingerprint(key)  # type: ignore[arg-type]


def _unusable(name: str) -> ConfigError:
    from adyton.crypto import detached

    return ConfigError(
        "not a signer's key",
        code="signer_key_unusable",
        field=name,
        expected=f"PEM: {detached.KINDS}",
        hint="openssl pkey -in private.pem -pubout -out public.pem",
    )
