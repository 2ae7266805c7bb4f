"""The broker's own TLS certificate, for whoever has none from a CA: self-signed, known by its pin."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from adyton.errors import ConfigError
from adyton.stores import whole_file

_YEARS = 10
_NAME = re.compile(r"(?=.{1,253}\Z)(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\Z")


def make(directory: Path, names: Iterable[str], now: datetime) -> tuple[Path, Path]:
    """Certificate and key in ``directory`` (``certificate.pem``, ``private-key.pem`` with mode 0600), made if absent.

    The names are for clients that check them; the pin is what identifies the broker. A certificate that lacks a name or
    soon ends is issued anew for the same key, so the pin stays. ``ConfigError`` for a name that cannot be in one.
    """
    certificate, key_file = directory / "certificate.pem", directory / "private-key.pem"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = _key(key_file)
    wanted = [_general(name) for name in dict.fromkeys(names)]
    known = _known(certificate, key, now)
    if known is None or not set(wanted) <= set(known):
        issued = _issue(key, list(dict.fromkeys([*wanted, *(known or ())])), now)
        write_private(certificate, issued.public_bytes(serialization.Encoding.PEM))
    return certificate, key_file


def _key(file: Path) -> ec.EllipticCurvePrivateKey:
    if not file.exists():
        made = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(file, made, replace=False)
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise _unusable(file) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unusable(file)
    return key


def _known(file: Path, key: ec.EllipticCurvePrivateKey, now: datetime) -> list[x509.GeneralName] | None:
    """The names in the certificate that is there, or ``None`` if there is none that still serves."""
    try:
        found = x509.load_pem_x509_certificate(file.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return None
    if found.public_key() != key.public_key() or found.not_valid_after_utc <= now + timedelta(days=30):
        return None
    return list(names)


def _issue(key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName], now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Adyton broker")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def pin(certificate: Path) -> str:
    """``sha256:<hex>`` of the SPKI of the first certificate in a PEM file; ``ConfigError`` if there is none."""
    try:
        return pin_of(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the broker's certificate cannot be read", code="certificate_unreadable", field=str(certificate)
        ) from error


def pin_of(pem: bytes) -> str:
    """The same of PEM that was read; ``ValueError``."""
    key = x509.load_pem_x509_certificate(pem).public_key()
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(spki).hexdigest()


def write_private(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file that only its owner can read, whole or not at all. Not ``replace``: what is there already stays."""
    with suppress(*(() if replace else (FileExistsError,))), whole_file.written(path, replace=replace) as file:
        file.write(content)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not _NAME.match(name):
        raise ConfigError(
            "a name that cannot stand in a certificate", code="setting_invalid", field="name", got=name[:80]
        )
    return x509.DNSName(name)


def _unusable(file: Path) -> ConfigError:
    return ConfigError(
        "the broker's own TLS key cannot be read",
        code="certificate_unreadable",
        field=str(file),
        hint="restore it, or remove it and its certificate: the broker then has a new key, and a new pin",
    )
