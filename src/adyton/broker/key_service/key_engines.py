"""What does an operation: this broker with the key's material (``Embedded``), or the back end that holds the key (``Held``).

Both write and open the same texts, so who holds a key shows nowhere but in its record. What a device cannot do is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from adyton.crypto import transit
from adyton.crypto.key_kinds import Kind
from adyton.crypto.transit import Purpose
from adyton.errors import MalformedRequest, NotFound, TooLarge, Unavailable
from adyton.stores.backends.port import MAX_PLAINTEXT, KeyHolder, Signing
from adyton.stores.keys import Material
from adyton.wire import b64

_T = TypeVar("_T")


class Device(Protocol):
    """A back end with keys: gives a call its holder, within its deadline."""

    def with_keys(self, call: Callable[[KeyHolder], _T], /) -> _T:
        """What ``call`` gives; ``Unavailable`` if the back end does not answer in time."""
        ...


class Devices(Protocol):
    """The back ends that this broker was given."""

    def of(self, tenant: str, name: str, /) -> Device:
        """The one of this name, for this tenant; ``NotFound``."""
        ...

    def configured_for(self, tenant: str, name: str, /) -> Device:
        """As ``of``, for what a record names: ``Unavailable`` if it is not there."""
        ...


class NoDevices:
    """A broker that was given no back end."""

    def of(self, tenant: str, name: str) -> Device:
        """``NotFound`` ``backend_absent``."""
        raise NotFound("there is no such back end", code="backend_absent", field="backend", got=name[:80])

    def configured_for(self, tenant: str, name: str) -> Device:
        """``Unavailable`` ``backend_not_configured``."""
        raise Unavailable(
            "a key lies in a back end that this broker was not given", code="backend_not_configured", field=name
        )


class Engine(Protocol):
    """One version of a key, at work. Texts are ``crypto.transit``'s; errors too."""

    def encrypt(self, plaintext: bytes, aad: bytes, algorithm: str) -> str: ...  # noqa: D102
    def decrypt(self, text: str, aad: bytes) -> bytes: ...  # noqa: D102
    def wrap(self, key: bytes, aad: bytes) -> str: ...  # noqa: D102
    def unwrap(self, text: str, aad: bytes) -> bytes: ...  # noqa: D102
    def sign(self, message: bytes, algorithm: str, digest: bytes | None) -> tuple[str, bytes]: ...  # noqa: D102
    def mac(self, message: bytes, algorithm: str) -> tuple[str, bytes]: ...  # noqa: D102

    def verify(  # noqa: D102
        self, message: bytes, signature: bytes, algorithm: str, digest: bytes | None
    ) -> tuple[str, bool]: ...


class Embedded:
    """With the material that the store has."""

    def __init__(self, which: Kind, number: int, material: Material) -> None:
        self._which = which
        self._number = number
        self._secret = material.secret
        self._public = material.public

    def encrypt(self, plaintext: bytes, aad: bytes, algorithm: str) -> str:
        """As ``transit.encrypt``."""
        return transit.encrypt(self._which, self._secret, self._number, plaintext, aad, algorithm)

    def decrypt(self, text: str, aad: bytes) -> bytes:
        """As ``transit.decrypt``."""
        return transit.decrypt(self._which, self._secret, text, aad)

    def wrap(self, key: bytes, aad: bytes) -> str:
        """As ``transit.wrap``."""
        return transit.wrap(self._which, self._secret, self._number, key, aad)

    def unwrap(self, text: str, aad: bytes) -> bytes:
        """As ``transit.unwrap``."""
        return transit.unwrap(self._which, self._secret, text, aad)

    def sign(self, message: bytes, algorithm: str, digest: bytes | None) -> tuple[str, bytes]:
        """As ``transit.sign``."""
        return transit.sign(self._which, self._secret, message, algorithm, digest)

    def mac(self, message: bytes, algorithm: str) -> tuple[str, bytes]:
        """As ``transit.mac``."""
        return transit.mac(self._which, self._secret, message, algorithm)

    def verify(self, message: bytes, signature: bytes, algorithm: str, digest: bytes | None) -> tuple[str, bool]:
        """Over the public half, or a MAC."""
        if not transit.is_mac(self._which):
            return transit.verify(self._which, self._public, message, signature, algorithm, digest)
        if digest is not None:
            raise MalformedRequest("a MAC is of a message", code="transit_input", field="digest")
        return transit.verify_mac(self._which, self._secret, message, signature, algorithm)


class Held:
    """By the device that has the key. Public halves are known here, so verifying asks nobody."""

    def __init__(self, which: Kind, number: int, device: Device, handle: str, public: bytes) -> None:
        self._which = which
        self._number = number
        self._device = device
        self._handle = handle
        self._public = public

    def encrypt(self, plaintext: bytes, aad: bytes, algorithm: str) -> str:
        """By the device; no JWE."""
        if transit.encryption(self._which, algorithm) == "JWE":
            raise _not_by_device("JWE")
        return self._sealed(plaintext, aad, "enc")

    def decrypt(self, text: str, aad: bytes) -> bytes:
        """By the device; no JWE."""
        if transit.version(text) is None:
            raise _not_by_device("JWE")
        return self._opened(text, aad, "enc")

    def wrap(self, key: bytes, aad: bytes) -> str:
        """By the device."""
        if not key:
            raise MalformedRequest("there is no key to wrap", code="transit_input", field="plaintext")
        return self._sealed(key, aad, "wrap")

    def unwrap(self, text: str, aad: bytes) -> bytes:
        """By the device."""
        return self._opened(text, aad, "wrap")

    def sign(self, message: bytes, algorithm: str, digest: bytes | None) -> tuple[str, bytes]:
        """By the device, which hashes."""
        name, _ = transit.signing(self._which, algorithm)
        if digest is not None:
            raise _not_by_device("a digest")
        return name, self._device.with_keys(lambda held: held.sign(self._handle, Signing(name), message))

    def mac(self, message: bytes, algorithm: str) -> tuple[str, bytes]:
        """Not by a device."""
        raise _not_by_device("a MAC")

    def verify(self, message: bytes, signature: bytes, algorithm: str, digest: bytes | None) -> tuple[str, bool]:
        """Here, with the public half."""
        return transit.verify(self._which, self._public, message, signature, algorithm, digest)

    def _sealed(self, plaintext: bytes, aad: bytes, use: Purpose) -> str:
        self._told_apart(use)
        most = self._which.rsa_bits // 8 - 66 if self._which.rsa_bits else MAX_PLAINTEXT
        if len(plaintext) > most:
            raise TooLarge(
                "the back end encrypts less at once",
                code="transit_too_large",
                field="plaintext",
                expected=f"at most {most} bytes",
                got=len(plaintext),
                hint="encrypt what is large with a data key (datakey), and that key here",
            )
        bound = self._bound(use, self._number, aad)
        sealed = self._device.with_keys(lambda held: held.encrypt(self._handle, plaintext, bound))
        return f"adyton:{use}:{self._number}:{b64.encode_url(sealed)}"

    def _opened(self, text: str, aad: bytes, use: Purpose) -> bytes:
        self._told_apart(use)
        found, number, sealed = transit.parts(text)
        if found != use or number != self._number:
            raise transit.refused()
        bound = self._bound(use, number, aad)
        try:
            return self._device.with_keys(lambda held: held.decrypt(self._handle, sealed, bound))
        except Unavailable as error:
            if error.code == "ciphertext_refused":
                raise transit.refused() from error
            raise

    def _told_apart(self, use: Purpose) -> None:
        """Devices know no label for RSA-OAEP that would tell a wrapped key from a ciphertext."""
        if self._which.rsa_bits and use == "wrap":
            raise _not_by_device("wrapping by RSA")

    def _bound(self, use: Purpose, number: int, aad: bytes) -> bytes:
        """What the device authenticates: as ``transit`` does it; an RSA key binds the caller's data only, as its label."""
        transit.bounded(b"", aad, MAX_PLAINTEXT)
        return aad if self._which.rsa_bits else transit.context(use, number, aad)


def _not_by_device(what: str) -> MalformedRequest:
    return MalformedRequest(
        f"the back end that holds this key does not do {what}",
        code="transit_not_by_backend",
        field="algorithm",
        got=what,
    )
