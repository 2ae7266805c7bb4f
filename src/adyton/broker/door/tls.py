"""TLS of the broker's listeners: modern defaults, certificates that can be replaced while it runs, client certificates.

TLS 1.3, and 1.2 with forward secrecy and AEAD only. Key exchange is what the linked OpenSSL prefers: from 3.5 on that is
X25519MLKEM768 first, before X25519; with the FIPS profile it is P-256 alone. A pair is read into memory once and tried before anything uses it, so a half-written
or mismatched one never replaces the one that works.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from cryptography import x509

from adyton.broker.settings import Settings
from adyton.crypto import profile
from adyton.errors import ConfigError

_LOG = logging.getLogger(__name__)


class Identity(msgspec.Struct, frozen=True):
    """Certificate chain, private key and the authorities of clients, as PEM bytes. ``expires`` in Unix seconds."""

    certificate: bytes
    private_key: bytes
    client_ca: bytes
    expires: float


def read(settings: Settings) -> Identity | None:
    """What the settings name, tried; ``None`` for plain HTTP, ``ConfigError`` if it cannot be used."""
    if not settings.tls:
        return None
    try:
        files = [Path(settings.certificate).read_bytes(), Path(settings.private_key).read_bytes()]
        certificate = x509.load_pem_x509_certificate(files[0])
        authorities = Path(settings.client_ca).read_bytes() if settings.client_ca else b""
    except (OSError, ValueError) as error:
        raise _unusable(settings) from error
    found = Identity(files[0], files[1], authorities, certificate.not_valid_after_utc.timestamp())
    context(found, settings, clients=bool(authorities))
    return found


def context(identity: Identity, settings: Settings, *, clients: bool) -> ssl.SSLContext:
    """A new context; with ``clients`` who connects must show a certificate under the client authorities."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    restricted = profile.of(fips=settings.fips)
    made.set_ciphers(restricted.suites)
    if restricted.group is not None:
        made.set_ecdh_curve(restricted.group)
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    try:
        with _held(identity.certificate) as certificate, _held(identity.private_key) as key:
            made.load_cert_chain(certificate, key, password=b"")  # never ask a terminal
    except (OSError, ssl.SSLError) as error:
        raise _unusable(settings) from error
    if clients:
        try:
            made.load_verify_locations(cadata=identity.client_ca.decode("ascii"))
        except (ValueError, ssl.SSLError) as error:
            raise ConfigError(
                "the authorities of client certificates cannot be read",
                code="client_ca_unusable",
                field=settings.client_ca,
                hint="a PEM file with at least one CA certificate",
            ) from error
        made.verify_mode = ssl.CERT_REQUIRED
    return made


class Watched:
    """The identity in use, and whether its files have changed since."""

    def __init__(self, settings: Settings) -> None:
        self._seen = _look(settings)
        self.current = read(settings)

    def refresh(self, settings: Settings, *, force: bool = False) -> bool:
        """Read again if a file changed; tells whether ``current`` is new. Of what cannot be used the old one stays."""
        seen = _look(settings)
        if seen == self._seen and not force:
            return False
        try:
            found = read(settings)
        except ConfigError as error:
            if seen != self._seen or force:
                _LOG.error("the TLS certificate is not replaced, the old one stays: %s [%s]", error.message, error.code)
            self._seen = seen
            return False
        self._seen = seen
        if found is None or found == self.current:
            return False
        self.current = found
        _LOG.info("the TLS certificate was replaced; connections that stand are not touched")
        return True


def _look(settings: Settings) -> tuple[tuple[int, int, int], ...]:
    found = []
    for name in (settings.certificate, settings.private_key, settings.client_ca):
        try:
            status = Path(name).stat() if name else None
        except OSError:
            status = None
        found.append((status.st_ino, status.st_mtime_ns, status.st_size) if status else (0, 0, -1))
    return tuple(found)


@contextmanager
def _held(content: bytes) -> Iterator[str]:
    """A path that OpenSSL can read ``content`` from, without a copy on any disk."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _unusable(settings: Settings) -> ConfigError:
    return ConfigError(
        "the TLS certificate and key cannot be used together",
        code="certificate_unusable",
        field=settings.certificate,
        hint="PEM files; the key must be the certificate's, and without a passphrase",
    )
