"""What state the cryptographic modules of this process are in, and whether a broker with ``--fips`` may start on them.

There are two: the OpenSSL that Python's ``ssl`` and ``hashlib`` use, and the one inside ``cryptography``, which does
everything else. Each runs in its FIPS mode only if it was built with a FIPS provider and configured to use it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import cache
from typing import cast

import msgspec
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.backends import openssl
from cryptography.hazmat.bindings import _rust
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adyton.crypto import profile
from adyton.errors import ConfigError


class Module(msgspec.Struct, frozen=True):
    """A cryptographic module: whose it is, what it calls itself, whether its FIPS provider is in use."""

    name: str
    version: str
    fips: bool


class State(msgspec.Struct, frozen=True):
    """What ``doctor`` and ``status`` tell: the profile, and the modules below it."""

    profile: str
    modules: list[Module]

    @property
    def validated(self) -> bool:
        """Whether both modules run in their FIPS mode. That they are validated, their certificates say."""
        return all(module.fips for module in self.modules)

    @property
    def text(self) -> str:
        """In one line."""
        said = ", ".join(
            f"{one.name}: {one.version}, FIPS provider {'in use' if one.fips else 'NOT in use'}" for one in self.modules
        )
        return f"profile {self.profile}; {said}"


def modules() -> list[Module]:
    """Both modules of this process."""
    return [
        Module("Python", ssl.OPENSSL_VERSION, _python_in_fips_mode()),
        Module("cryptography", openssl.backend.openssl_version_text(), _cryptography_in_fips_mode()),
    ]


def state(*, fips: bool) -> State:
    """As it is now."""
    return State(profile.of(fips=fips).name, modules())


@cache
def check_start(*, fips: bool, accept_unvalidated: bool) -> None:
    """``ConfigError`` ``fips_module`` where the profile is asked for, and a module does not run in its FIPS mode.

    ``fips_module_lacks`` where one does, and refuses something that the broker cannot do without. ``accept_unvalidated``
    waives the first alone.
    """
    if not fips:
        return
    found = state(fips=True)
    if not found.validated and not accept_unvalidated:
        raise ConfigError(
            "a cryptographic module does not run in its FIPS mode",
            code="fips_module",
            field="fips",
            expected="both with their FIPS provider",
            got=found.text,
            spec=profile.SPEC,
            hint="build and configure both with a validated provider; --unvalidated-module-i-accept restricts the"
            " algorithms alone",
        )
    for name, attempt in _NEEDED.items():
        try:
            attempt()
        except (UnsupportedAlgorithm, InternalError, ValueError) as error:
            raise ConfigError(
                f"the cryptographic module refuses {name}, which the broker cannot do without",
                code="fips_module_lacks",
                field=name,
                got=found.text,
                spec=profile.SPEC,
                hint="a provider that is validated for FIPS 186-5",
            ) from error


def _python_in_fips_mode() -> bool:
    try:
        import _hashlib
    except ImportError:
        return False
    return bool(_hashlib.get_fips_mode())


def _cryptography_in_fips_mode() -> bool:
    told = getattr(_rust.openssl, "is_fips_enabled", None)
    return bool(told is not None and cast("Callable[[], bool]", told)())


def _ecdsa() -> None:
    ec.generate_private_key(ec.SECP256R1()).sign(b"", ec.ECDSA(hashes.SHA256()))


def _ecdh() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    key.exchange(ec.ECDH(), key.public_key())


def _rsa() -> None:
    key = rsa.generate_private_key(65537, 2048)
    key.public_key().encrypt(b"x", padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))


_NEEDED: dict[str, Callable[[], object]] = {
    "AES-256-GCM": lambda: AESGCM(AESGCM.generate_key(256)).encrypt(bytes(12), b"", None),
    "ECDSA P-256": _ecdsa,
    "ECDH P-256": _ecdh,
    "RSA-OAEP": _rsa,
    "Ed25519": lambda: ed25519.Ed25519PrivateKey.generate().sign(b""),
}
