"""Keys and values in a PKCS#11 token: an HSM, a smart card, SoftHSM2.

``python-pkcs11`` initialises a module without threads, so calls into one module come one after the other, each waiting
its turn for at most ``seconds``. A session that the token has forgotten (power, network, a module that was finalised by
somebody else in the process) is opened again, and the module initialised again if that does not do; then the call is
made once more.

A key's handle is ``id:<hex of CKA_ID>``, or the CKA_LABEL of a key that an operator made. Values are private data
objects: CKA_APPLICATION as configured, CKA_LABEL ``<tenant>/<path>``, CKA_OBJECT_ID the pointer's 16 bytes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from adyton.errors import AdytonError, ConfigError, MalformedRequest, Unavailable
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends import pkcs11_keys as keys
from adyton.stores.backends.options import Pkcs11Options as Options
from adyton.stores.backends.port import MAX_PLAINTEXT, MAX_VALUE, KeyKind, Signing, label
from adyton.stores.backends.private import read_secret
from adyton.stores.backends.signatures import absent, check_fits, refused, unknown

try:
    import pkcs11
    from pkcs11 import Attribute, ObjectClass
    from pkcs11 import exceptions as p11
except ImportError as _error:  # pragma: no cover -- the environment of the tests has it
    raise ConfigError(
        "PKCS#11 needs a library that is not installed",
        code="backend_extra_missing",
        field="pkcs11",
        hint="pip install 'adyton[pkcs11]'",
    ) from _error

_T = TypeVar("_T")
_LOCKS: dict[str, threading.RLock] = {}
_LOCKS_LOCK = threading.Lock()
_PIN_WRONG = (p11.PinIncorrect, p11.PinLocked, p11.PinExpired, p11.PinInvalid, p11.PinLenRange)


class Pkcs11:
    """A token as ``SecretHolder`` and ``KeyHolder``. The PIN is read once, from its file."""

    def __init__(self, options: Options) -> None:
        if options.oaep_hash not in {"sha-256", "sha-1"}:
            raise ConfigError(
                "no such hash for OAEP", code="backend_option_invalid", field="oaep_hash", expected=["sha-256", "sha-1"]
            )
        if not Path(options.module).is_absolute() or not Path(options.module).is_file():
            raise ConfigError("no such PKCS#11 module", code="hsm_module_unusable", field="module", got=options.module)
        self._options = options
        self._pin = read_secret(options.pin_file, "pin_file")
        self._session: Any = None
        with _LOCKS_LOCK:
            self._lock = _LOCKS.setdefault(options.module, threading.RLock())

    @property
    def kinds(self) -> frozenset[KeyKind]:
        """All of them; whether this token has the mechanism shows when it is asked."""
        return frozenset(KeyKind)

    def check(self) -> str:
        """Token, model and library, after logging in."""

        def look(session: Any) -> str:
            token, library = session.token, pkcs11.lib(self._options.module)
            version = ".".join(str(part) for part in library.library_version)
            return f"{token.model.strip()} ({token.manufacturer_id.strip()} {version}), token {token.label.strip()}"

        return self._ask(look)

    def close(self) -> None:
        """Close the session."""
        with self._turn():
            session, self._session = self._session, None
            if session is not None:
                _quietly(session.close)

    # values

    def put(self, tenant: str, path: ResourcePath, value: bytes) -> str:
        """A new data object; its pointer in hex."""
        if len(value) > MAX_VALUE:
            raise ConfigError("the value is too large for a token", code="backend_value_too_large", got=len(value))
        pointer = os.urandom(16)
        attributes = {
            **self._named(f"{tenant}/{path}", pointer),
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.VALUE: value,
        }
        self._ask(lambda session: session.create_object(attributes))
        return pointer.hex()

    def get(self, tenant: str, path: ResourcePath, pointer: str = "") -> bytes | None:
        """The object's value. Without a pointer: the only one there is, since a token keeps no order."""
        wanted = self._named(f"{tenant}/{path}", _pointer(pointer))

        def look(session: Any) -> bytes | None:
            found = list(session.get_objects(wanted))
            if len(found) > 1:
                raise Unavailable("the token has several such values", code="backend_value_ambiguous")
            return bytes(found[0][Attribute.VALUE]) if found else None

        return self._ask(look)

    def delete(self, tenant: str, path: ResourcePath, pointer: str = "") -> None:
        """Destroy the object, or all of the path."""
        wanted = self._named(f"{tenant}/{path}", _pointer(pointer))
        self._ask(lambda session: [found.destroy() for found in list(session.get_objects(wanted))])

    def pointers(self, tenant: str, path: ResourcePath) -> Sequence[str]:
        """By the objects' identifiers."""
        wanted = self._named(f"{tenant}/{path}", b"")
        return self._ask(
            lambda session: tuple([bytes(one[Attribute.OBJECT_ID]).hex() for one in session.get_objects(wanted)])
        )

    def list(self, tenant: str) -> list[ResourcePath]:
        """By label."""
        wanted = self._named(None, b"")
        labels = self._ask(lambda session: {found[Attribute.LABEL] for found in session.get_objects(wanted)})
        paths = []
        for name in sorted(labels):
            whose, _, path = name.partition("/")
            if whose == tenant:
                try:
                    paths.append(ResourcePath.parse(path))
                except MalformedRequest:  # not ours
                    continue
        return paths

    def _named(self, name: str | None, pointer: bytes) -> dict[Any, Any]:
        wanted: dict[Any, Any] = {Attribute.CLASS: ObjectClass.DATA, Attribute.APPLICATION: self._options.application}
        if name is not None:
            wanted[Attribute.LABEL] = name
        if pointer:
            wanted[Attribute.OBJECT_ID] = pointer
        return wanted

    # keys

    def generate(self, kind: KeyKind, label_: str) -> str:
        """Made in the token: sensitive, never extractable."""
        identifier, name = os.urandom(16), label(label_)
        self._ask(lambda session: keys.generate(session, kind, name, identifier), f"a {kind.value} key")
        return f"id:{identifier.hex()}"

    def import_key(self, kind: KeyKind, label_: str, material: bytes) -> str:
        """Written into the token as sensitive and not extractable."""
        identifier, name = os.urandom(16), label(label_)
        objects = keys.importable(kind, name, identifier, material)
        self._ask(lambda session: [session.create_object(one) for one in objects], f"taking in a {kind.value} key")
        return f"id:{identifier.hex()}"

    def public(self, handle: str) -> bytes:
        """From the public key object."""
        return self._ask(lambda session: keys.spki(self._find(session, handle, ObjectClass.PUBLIC_KEY)))

    def encrypt(self, handle: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        """AES-GCM in the token, with a random nonce before it; OAEP is made here, with the public half."""

        def run(session: Any) -> bytes:
            secret = self._secret(session, handle)
            if secret is None:
                spki = keys.spki(self._find(session, handle, ObjectClass.PUBLIC_KEY))
                return keys.oaep_encrypt(spki, plaintext, aad, self._options.oaep_hash)
            if len(plaintext) > MAX_PLAINTEXT:
                raise ConfigError("too much to encrypt in a device", code="plaintext_too_large", got=len(plaintext))
            return keys.gcm_encrypt(secret, plaintext, aad)

        return self._ask(run, "this encryption")

    def decrypt(self, handle: str, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """In the token."""

        def run(session: Any) -> bytes:
            secret = self._secret(session, handle)
            try:
                if secret is not None:
                    return keys.gcm_decrypt(secret, ciphertext, aad)
                key = self._find(session, handle, ObjectClass.PRIVATE_KEY)
                return keys.oaep_decrypt(key, ciphertext, aad, self._options.oaep_hash)
            except keys.REFUSALS as error:
                if not _alive(session):  # tokens say "general error" to both
                    raise
                raise refused() from error

        return self._ask(run, "this decryption")

    def sign(self, handle: str, algorithm: Signing, message: bytes) -> bytes:
        """In the token."""

        def run(session: Any) -> bytes:
            key = self._find(session, handle, ObjectClass.PRIVATE_KEY)
            check_fits(keys.kind_of(key), algorithm)
            return keys.sign(key, algorithm, message)

        return self._ask(run, algorithm.value)

    def labelled(self, label: str) -> Sequence[str]:
        """By CKA_LABEL, both halves by their one CKA_ID."""

        def look(session: Any) -> Sequence[str]:
            kinds = (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
            found = [
                one[Attribute.ID]
                for kind in kinds
                for one in session.get_objects({Attribute.CLASS: kind, Attribute.LABEL: label})
            ]
            return tuple(dict.fromkeys([f"id:{bytes(one).hex()}" for one in found if one]))

        return self._ask(look)

    def destroy(self, handle: str) -> None:
        """All objects of the handle: both halves of a pair."""

        def run(session: Any) -> None:
            for kind in (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
                found = self._found(session, handle, kind)
                if found is not None:
                    found.destroy()

        self._ask(run)

    def _secret(self, session: Any, handle: str) -> Any:
        return self._found(session, handle, ObjectClass.SECRET_KEY)

    def _find(self, session: Any, handle: str, kind: ObjectClass) -> Any:
        found = self._found(session, handle, kind)
        if found is None:
            if self._secret(session, handle) is not None:
                raise unknown("this with a symmetric key")
            raise absent(handle)
        return found

    def _found(self, session: Any, handle: str, kind: ObjectClass) -> Any:
        wanted: dict[Any, Any] = {Attribute.CLASS: kind}
        if handle.startswith("id:"):
            try:
                wanted[Attribute.ID] = bytes.fromhex(handle[3:])
            except ValueError as error:
                raise absent(handle) from error
        else:
            wanted[Attribute.LABEL] = handle
        if not handle.removeprefix("id:"):
            raise absent(handle)
        found = list(session.get_objects(wanted))
        if len(found) > 1:
            raise ConfigError(
                "several keys in the token have this label",
                code="held_key_ambiguous",
                got=handle[:200],
                hint="use id:…",
            )
        return found[0] if found else None

    # sessions

    def _ask(self, run: Callable[[Any], _T], what: str = "this") -> _T:
        """Run with a session that works; what a token has forgotten is opened once more."""
        with self._turn():
            try:
                return run(self._opened())
            except p11.PKCS11Error as error:
                if isinstance(error, keys.NEVER) and _alive(self._session):
                    raise unknown(what) from error
                if _alive(self._session):
                    raise self._failed(error) from error
            try:
                return run(self._reopened())
            except p11.PKCS11Error as error:
                raise self._failed(error) from error

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=self._options.seconds):
            raise Unavailable("the token is busy", code="hsm_busy", field=self._options.token, hint="try again")
        try:
            yield
        finally:
            self._lock.release()

    def _opened(self) -> Any:
        """Asked each time whether it lives: the library prints a traceback if a search meets a session that does not."""
        if self._session is None:
            self._session = self._open()
        return self._session if _alive(self._session) else self._reopened()

    def _reopened(self) -> Any:
        session, self._session = self._session, None
        if session is not None:
            _quietly(session.close)
        try:
            self._session = self._open()
            if _alive(self._session):
                return self._session
        except p11.PKCS11Error:
            pass
        library = pkcs11.lib(self._options.module)
        _quietly(library.finalize)
        library.initialize()
        self._session = self._open()
        return self._session

    def _open(self) -> Any:
        token = pkcs11.lib(self._options.module).get_token(token_label=self._options.token)
        try:
            return token.open(rw=True, user_pin=self._pin)
        except p11.UserAlreadyLoggedIn:  # by another back end on this token: the login is the process's
            return token.open(rw=True)
        except _PIN_WRONG as error:
            raise ConfigError(
                "the token refuses the PIN",
                code="hsm_pin_refused",
                field=f"pin_file: {self._options.pin_file}",
                got=type(error).__name__,
                hint="tokens lock after a few wrong PINs: mend the file before trying again",
            ) from error

    def _failed(self, error: Exception) -> AdytonError:
        if isinstance(error, p11.NoSuchToken):
            return Unavailable(
                "the token is not there", code="hsm_token_absent", field="token", got=self._options.token
            )
        if isinstance(error, p11.MultipleTokensReturned):
            return ConfigError("several tokens have this label", code="hsm_token_ambiguous", field="token")
        if type(error) is p11.PKCS11Error and "loading" in str(error):
            return ConfigError(
                "no such PKCS#11 module", code="hsm_module_unusable", field="module", got=self._options.module
            )
        return Unavailable(
            "the token failed", code="hsm_failed", field=self._options.token, got=type(error).__name__, hint="try again"
        )


def _alive(session: Any) -> bool:
    if session is None:
        return False
    try:
        session.generate_random(64)
    except p11.PKCS11Error:
        return False
    return True


def _quietly(call: Callable[[], Any]) -> None:
    try:
        call()
    except p11.PKCS11Error:  # it is gone already
        return


def _pointer(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise Unavailable("not a pointer into a token", code="backend_pointer_invalid") from error
