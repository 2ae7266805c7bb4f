"""Keys and values in a KMIP server, by mutual TLS (PyKMIP's client; KMIP 1.2).

KMIP 1.2 has no authenticated encryption, so what this calls an AES key is two: AES-256-CBC and AES-256-CMAC, both made,
kept and used in the server, encrypt-then-MAC over ``aad``, IV and ciphertext. A handle is ``<uid>`` of a value or
``<uid>+<uid>`` of the two halves: encryption and MAC, or private and public. Values are secret data named
``<application>/<tenant>/<path>@<pointer>``; a pointer begins with the time.
"""

from __future__ import annotations

import hmac
import os
import re
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from adyton.errors import ConfigError, MalformedRequest, Unavailable
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends.kmip_link import Absent, KmipLink
from adyton.stores.backends.options import KmipOptions as Options
from adyton.stores.backends.port import MAX_PLAINTEXT, MAX_VALUE, KeyKind, Signing, label
from adyton.stores.backends.private import read_private
from adyton.stores.backends.search import Search
from adyton.stores.backends.signatures import absent, check_fits, kind_of, refused, unknown

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyKMIP is older than what it imports
    from kmip.core import enums
    from kmip.core.factories.attributes import AttributeFactory
    from kmip.pie import objects

_T = TypeVar("_T")
_MASK = enums.CryptographicUsageMask
_ALGORITHM = enums.CryptographicAlgorithm
_CBC = {
    "cryptographic_algorithm": _ALGORITHM.AES,
    "block_cipher_mode": enums.BlockCipherMode.CBC,
    "padding_method": enums.PaddingMethod.PKCS5,
}
_HASHES = {
    "256": enums.HashingAlgorithm.SHA_256,
    "384": enums.HashingAlgorithm.SHA_384,
    "512": enums.HashingAlgorithm.SHA_512,
}
_FORM = b"\x01"


class Kmip:
    """A ``SecretHolder`` and ``KeyHolder``. One connection; calls take turns, each for at most ``seconds``."""

    def __init__(self, options: Options) -> None:
        self._options = options
        read_private(options.private_key, "private_key")
        self._attributes = AttributeFactory()
        self._link = KmipLink(options)
        self._search = Search()

    def check(self) -> str:
        """That it lets us in and answers."""
        self._link.ask(lambda client: client.locate(maximum_items=1))
        return f"KMIP {self._options.host}:{self._options.port}"

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    # values

    def put(self, tenant: str, path: ResourcePath, value: bytes) -> str:
        """One more secret data object."""
        if len(value) > MAX_VALUE:
            raise ConfigError("the value is too large for KMIP", code="backend_value_too_large", got=len(value))
        pointer = f"{time.time_ns():016x}{os.urandom(8).hex()}"
        place = [{"application_namespace": self._options.application, "application_data": f"{tenant}/{path}"}]
        named = f"{self._options.application}/{tenant}/{path}@{pointer}"
        made = objects.SecretData(
            _FORM + value, enums.SecretDataType.PASSWORD, masks=[_MASK.EXPORT], name=named, app_specific_info=place
        )
        self._link.ask(lambda client: client.register(made))
        return pointer

    def get(self, tenant: str, path: ResourcePath, pointer: str = "") -> bytes | None:
        """By name; without a pointer the newest."""
        names = self._names(tenant, path)
        wanted = pointer or max(names, default="")
        if wanted not in names:
            return None
        held = self._link.ask(lambda client: client.get(names[wanted]))
        value = held.value if isinstance(held, objects.SecretData) else None
        if not isinstance(value, bytes) or value[:1] != _FORM:
            raise Unavailable("what the server has there is no value of ours", code="backend_value_malformed")
        return value[1:]

    def delete(self, tenant: str, path: ResourcePath, pointer: str = "") -> None:
        """One, or all of the path."""
        for name, uid in self._names(tenant, path).items():
            if pointer in {"", name}:
                self._link.ask(lambda client, uid=uid: client.destroy(uid))  # type: ignore[misc]

    def pointers(self, tenant: str, path: ResourcePath) -> Sequence[str]:
        """By the names of what is at the path."""
        return tuple(self._names(tenant, path))

    def list(self, tenant: str) -> list[ResourcePath]:
        """By the names of all secret data: KMIP cannot look for the beginning of one."""
        start = f"{self._options.application}/{tenant}/"
        kind = self._attributes.create_attribute(enums.AttributeType.OBJECT_TYPE, enums.ObjectType.SECRET_DATA)
        paths = set()
        for uid in self._located(kind):
            name = self._name(uid)
            if name.startswith(start):
                try:
                    paths.add(ResourcePath.parse(name.removeprefix(start).partition("@")[0]))
                except MalformedRequest:  # not ours
                    continue
        return sorted(paths, key=str)

    def _names(self, tenant: str, path: ResourcePath) -> dict[str, str]:
        """Pointer to unique identifier, of everything at the path."""
        place = {"application_namespace": self._options.application, "application_data": f"{tenant}/{path}"}
        wanted = self._attributes.create_attribute(enums.AttributeType.APPLICATION_SPECIFIC_INFORMATION, place)
        found = {}
        for uid in self._located(wanted):
            start, _, pointer = self._name(uid).rpartition("@")
            if start == f"{self._options.application}/{tenant}/{path}" and pointer:
                found[pointer] = uid
        return found

    def _located(self, attribute: Any) -> tuple[str, ...]:
        return self._link.ask(lambda client: tuple([_uid(one) for one in client.locate(attributes=[attribute])]))

    def _name(self, uid: str) -> str:
        def look(client: Any) -> str:
            _, attributes = client.get_attributes(uid, ["Name"])
            return str(attributes[0].attribute_value.name_value.value) if attributes else ""

        return self._link.ask(look)

    # keys

    @property
    def kinds(self) -> frozenset[KeyKind]:
        """Symmetric and RSA."""
        return frozenset({KeyKind.AES_256, KeyKind.RSA_2048, KeyKind.RSA_3072, KeyKind.RSA_4096})

    def generate(self, kind: KeyKind, label_: str) -> str:
        """Made in the server, and activated."""
        name, own = label(label_), os.urandom(8).hex()
        if kind.symmetric:
            uses = [_MASK.ENCRYPT, _MASK.DECRYPT]
            macs = [_MASK.MAC_GENERATE, _MASK.MAC_VERIFY]
            made = [
                self._link.ask(
                    lambda c, name=given, uses=mask: _uid(  # type: ignore[misc]
                        c.create(_ALGORITHM.AES, 256, name=name, cryptographic_usage_mask=uses)
                    )
                )
                for given, mask in ((f"{name}-{own}", uses), (f"{name}-{own}-mac", macs))
            ]
        elif kind.rsa_bits:
            both = self._link.ask(
                lambda c: [
                    _uid(one)
                    for one in c.create_key_pair(
                        _ALGORITHM.RSA,
                        kind.rsa_bits,
                        public_name=f"{name}-{own}-public",
                        public_usage_mask=[_MASK.VERIFY],
                        private_name=f"{name}-{own}",
                        private_usage_mask=[_MASK.SIGN],
                    )
                ]
            )
            made = both[::-1]  # private and public
        else:
            raise unknown(f"a {kind.value} key")
        for uid in made:
            self._link.ask(lambda c, uid=uid: c.activate(uid))  # type: ignore[misc]
        return "+".join(made)

    def import_key(self, kind: KeyKind, label_: str, material: bytes) -> str:
        """A key of ours is two of KMIP's: not done."""
        raise unknown("taking keys in")

    def public(self, handle: str) -> bytes:
        """The public key object."""
        _, public = self._halves(handle)
        held = self._use(handle, lambda client: client.get(public))
        if not isinstance(held, objects.PublicKey):
            raise unknown("a public half of a symmetric key")
        return _spki(held.value, held.key_format_type)

    def encrypt(self, handle: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Form (1), IV (16), MAC (16), ciphertext."""
        if len(plaintext) > MAX_PLAINTEXT:
            raise ConfigError("too much to encrypt in a device", code="plaintext_too_large", got=len(plaintext))
        key, mac = self._halves(handle)
        iv = os.urandom(16)
        sealed = self._use(handle, lambda client: _bytes(client.encrypt(plaintext, key, _CBC, iv)[0]))
        return _FORM + iv + self._mac(handle, mac, aad, iv + sealed) + sealed

    def decrypt(self, handle: str, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """Nothing is decrypted whose MAC is wrong."""
        key, mac = self._halves(handle)
        iv, told, sealed = ciphertext[1:17], ciphertext[17:33], ciphertext[33:]
        right = self._mac(handle, mac, aad, iv + sealed)
        if ciphertext[:1] != _FORM or not sealed or not hmac.compare_digest(right, told):
            raise refused()
        return self._use(handle, lambda client: _bytes(client.decrypt(sealed, key, _CBC, iv)))

    def _mac(self, handle: str, uid: str, aad: bytes, rest: bytes) -> bytes:
        covered = _FORM + len(aad).to_bytes(8, "big") + aad + rest
        made = self._use(handle, lambda client: _bytes(client.mac(covered, uid, _ALGORITHM.AES)[1]))
        if len(made) != 16:
            raise Unavailable("the server made no MAC", code="backend_answer_malformed")
        return made

    def sign(self, handle: str, algorithm: Signing, message: bytes) -> bytes:
        """RSA, in the server."""
        check_fits(kind_of(self.public(handle)), algorithm)
        private, _ = self._halves(handle)
        pss = algorithm.value.startswith("PS")
        parameters = {
            "cryptographic_algorithm": _ALGORITHM.RSA,
            "hashing_algorithm": _HASHES[algorithm.value[2:]],
            "padding_method": enums.PaddingMethod.PSS if pss else enums.PaddingMethod.PKCS1v15,
        }
        return self._use(handle, lambda client: _bytes(client.sign(message, private, parameters)))

    def labelled(self, label: str) -> Sequence[str]:
        """By the names of all keys, each half by itself: KMIP cannot look for the beginning of one."""
        kinds = (enums.ObjectType.SYMMETRIC_KEY, enums.ObjectType.PRIVATE_KEY, enums.ObjectType.PUBLIC_KEY)
        made = [self._attributes.create_attribute(enums.AttributeType.OBJECT_TYPE, kind) for kind in kinds]
        own = re.compile(re.escape(label) + r"-[0-9a-f]{16}(-mac|-public)?\Z")
        uids = [uid for one in made for uid in self._located(one)]
        return self._search.among(label, uids, lambda uid: bool(own.match(self._name(uid))))

    def destroy(self, handle: str) -> None:
        """Both halves; an active key is revoked first, as KMIP wants it."""
        for uid in handle.split("+"):
            try:
                self._link.ask(lambda c, uid=uid: c.revoke(enums.RevocationReasonCode.CESSATION_OF_OPERATION, uid))  # type: ignore[misc]
            except Absent:
                continue
            except Unavailable as error:
                if error.code != "backend_refused":  # one that was never active cannot be revoked
                    raise
            self._link.ask(lambda c, uid=uid: c.destroy(uid))  # type: ignore[misc]

    def _halves(self, handle: str) -> tuple[str, str]:
        first, _, second = handle.partition("+")
        if not (first and second and handle.isascii() and handle.isprintable()):  # empty: the one last spoken of
            raise absent(handle)
        return first, second

    def _use(self, handle: str, call: Callable[[Any], _T]) -> _T:
        try:
            return self._link.ask(call)
        except Absent as error:
            raise absent(handle) from error


def _uid(given: object) -> str:
    """A unique identifier that can be part of a handle."""
    text = given if isinstance(given, str) else ""
    if not 0 < len(text) < 100 or not text.isascii() or not text.isprintable() or "+" in text:
        raise ValueError("not a unique identifier")
    return text


def _bytes(given: object) -> bytes:
    if not isinstance(given, bytes):
        raise TypeError("no bytes")
    return given


def _spki(value: bytes, form: Any) -> bytes:
    if form is enums.KeyFormatType.X_509:
        return value
    try:
        key = serialization.load_pem_public_key(
            b"-----BEGIN RSA PUBLIC KEY-----\n" + _base64_lines(value) + b"-----END RSA PUBLIC KEY-----\n"
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unavailable("the server sent no public key", code="public_key_foreign") from error
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _base64_lines(value: bytes) -> bytes:
    from base64 import encodebytes

    return encodebytes(value)
