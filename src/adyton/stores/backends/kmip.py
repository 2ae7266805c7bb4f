"""Keys and values in a KMIP server, by mutual TLS (PyKMIP's client; KMIP 1.2).

KMIP 1.2 has no authenticated encryption, so what this calls an AES key is two: AES-256-CBC and AES-256-CMAC, both made,
kept and used in the server, encrypt-then-MAC over ``aad``, IV and ciphertext. A handle is ``<uid>`` of a value or
``<uid>+<uid>`` of the two halves: encryption and MAC, or private and public. Values are secret data named
``<application>/<tenant>/<path>@<pointer>``; a pointer begins with the time.

PyKMIP's own TLS is not used: it offers versions and ciphers of long ago and does not look at the server's name.
"""

from __future__ import annotations

import hmac
import os
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from cryptography.hazmat.primitives import serialization

from adyton.errors import AdytonError, ConfigError, MalformedRequest, Unavailable
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends.options import KmipOptions as Options
from adyton.stores.backends.port import MAX_PLAINTEXT, MAX_VALUE, KeyKind, Signing, label
from adyton.stores.backends.private import read_private
from adyton.stores.backends.signatures import absent, check_fits, kind_of, refused, unknown

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyKMIP is older than what it imports
        from kmip.core import enums
        from kmip.core.exceptions import KmipError
        from kmip.core.factories.attributes import AttributeFactory
        from kmip.pie import objects
        from kmip.pie.client import ProxyKmipClient
        from kmip.pie.exceptions import KmipOperationFailure
        from kmip.services.kmip_client import KMIPProxy
except ImportError as _error:  # pragma: no cover -- the environment of the tests has it
    raise ConfigError(
        "KMIP needs a library that is not installed",
        code="backend_extra_missing",
        field="kmip",
        hint="pip install 'adyton[kmip]'",
    ) from _error

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
        self._lock = threading.Lock()
        self._attributes = AttributeFactory()
        self._client: Any = None

    def check(self) -> str:
        """That it lets us in and answers."""
        self._ask(lambda client: client.locate(maximum_items=1))
        return f"KMIP {self._options.host}:{self._options.port}"

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

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
        self._ask(lambda client: client.register(made))
        return pointer

    def get(self, tenant: str, path: ResourcePath, pointer: str = "") -> bytes | None:
        """By name; without a pointer the newest."""
        names = self._names(tenant, path)
        wanted = pointer or max(names, default="")
        if wanted not in names:
            return None
        held = self._ask(lambda client: client.get(names[wanted]))
        if not isinstance(held, objects.SecretData) or held.value[:1] != _FORM:
            raise Unavailable("what the server has there is no value of ours", code="backend_value_malformed")
        return bytes(held.value[1:])

    def delete(self, tenant: str, path: ResourcePath, pointer: str = "") -> None:
        """One, or all of the path."""
        for name, uid in self._names(tenant, path).items():
            if pointer in {"", name}:
                self._ask(lambda client, uid=uid: client.destroy(uid))  # type: ignore[misc]

    def list(self, tenant: str) -> list[ResourcePath]:
        """By the names of all secret data: KMIP cannot look for the beginning of one."""
        start = f"{self._options.application}/{tenant}/"
        kind = self._attributes.create_attribute(enums.AttributeType.OBJECT_TYPE, enums.ObjectType.SECRET_DATA)
        paths = set()
        for uid in self._ask(lambda client: client.locate(attributes=[kind])):
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
        for uid in self._ask(lambda client: client.locate(attributes=[wanted])):
            start, _, pointer = self._name(uid).rpartition("@")
            if start == f"{self._options.application}/{tenant}/{path}" and pointer:
                found[pointer] = str(uid)
        return found

    def _name(self, uid: str) -> str:
        _, attributes = self._ask(lambda client: client.get_attributes(uid, ["Name"]))
        return str(attributes[0].attribute_value.name_value.value) if attributes else ""

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
                self._ask(lambda c: c.create(_ALGORITHM.AES, 256, name=f"{name}-{own}", cryptographic_usage_mask=uses)),
                self._ask(
                    lambda c: c.create(_ALGORITHM.AES, 256, name=f"{name}-{own}-mac", cryptographic_usage_mask=macs)
                ),
            ]
        elif kind.rsa_bits:
            public, private = self._ask(
                lambda c: c.create_key_pair(
                    _ALGORITHM.RSA,
                    kind.rsa_bits,
                    public_name=f"{name}-{own}-public",
                    public_usage_mask=[_MASK.VERIFY],
                    private_name=f"{name}-{own}",
                    private_usage_mask=[_MASK.SIGN],
                )
            )
            made = [private, public]
        else:
            raise unknown(f"a {kind.value} key")
        for uid in made:
            self._ask(lambda c, uid=uid: c.activate(uid))  # type: ignore[misc]
        return "+".join(str(uid) for uid in made)

    def import_key(self, kind: KeyKind, label_: str, material: bytes) -> str:
        """A key of ours is two of KMIP's: not done."""
        raise unknown("taking keys in")

    def public(self, handle: str) -> bytes:
        """The public key object."""
        _, public = self._halves(handle)
        held = self._use(handle, lambda client: client.get(public))
        if not isinstance(held, objects.PublicKey):
            raise unknown("a public half of a symmetric key")
        return _spki(bytes(held.value), held.key_format_type)

    def encrypt(self, handle: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Form (1), IV (16), MAC (16), ciphertext."""
        if len(plaintext) > MAX_PLAINTEXT:
            raise ConfigError("too much to encrypt in a device", code="plaintext_too_large", got=len(plaintext))
        key, mac = self._halves(handle)
        iv = os.urandom(16)
        made = self._use(handle, lambda client: client.encrypt(plaintext, key, _CBC, iv))
        sealed = bytes(made[0])
        return _FORM + iv + self._mac(handle, mac, aad, iv + sealed) + sealed

    def decrypt(self, handle: str, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """Nothing is decrypted whose MAC is wrong."""
        key, mac = self._halves(handle)
        iv, told, sealed = ciphertext[1:17], ciphertext[17:33], ciphertext[33:]
        right = self._mac(handle, mac, aad, iv + sealed)
        if ciphertext[:1] != _FORM or not sealed or not hmac.compare_digest(right, told):
            raise refused()
        return bytes(self._use(handle, lambda client: client.decrypt(sealed, key, _CBC, iv)))

    def _mac(self, handle: str, uid: str, aad: bytes, rest: bytes) -> bytes:
        covered = _FORM + len(aad).to_bytes(8, "big") + aad + rest
        made = self._use(handle, lambda client: client.mac(covered, uid, _ALGORITHM.AES))
        if len(made[1]) != 16:
            raise Unavailable("the server made no MAC", code="backend_answer_malformed")
        return bytes(made[1])

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
        return bytes(self._use(handle, lambda client: client.sign(message, private, parameters)))

    def destroy(self, handle: str) -> None:
        """Both halves; an active key is revoked first, as KMIP wants it."""
        for uid in handle.split("+"):
            try:
                self._ask(lambda c, uid=uid: c.revoke(enums.RevocationReasonCode.CESSATION_OF_OPERATION, uid))  # type: ignore[misc]
            except _Absent:
                continue
            self._ask(lambda c, uid=uid: c.destroy(uid))  # type: ignore[misc]

    def _halves(self, handle: str) -> tuple[str, str]:
        first, _, second = handle.partition("+")
        if not (first and second and handle.isascii() and handle.isprintable()):  # empty: the one last spoken of
            raise absent(handle)
        return first, second

    def _use(self, handle: str, call: Callable[[Any], _T]) -> _T:
        try:
            return self._ask(call)
        except _Absent as error:
            raise absent(handle) from error

    # the server

    def _ask(self, call: Callable[[Any], _T]) -> _T:
        """On the connection that there is; a server closes one that is idle, so once more on a new one."""
        if not self._lock.acquire(timeout=self._options.seconds):
            raise Unavailable("others wait for the KMIP server", code="backend_busy", field=self._options.host)
        try:
            kept = self._client is not None
            try:
                return self._once(call)
            except (_Broken, ssl.SSLError, OSError, KmipError) as error:
                if not kept:
                    raise self._failed(error) from error
            try:
                return self._once(call)
            except (_Broken, ssl.SSLError, OSError, KmipError) as error:
                raise self._failed(error) from error
        finally:
            self._lock.release()

    def _once(self, call: Callable[[Any], _T]) -> _T:
        try:
            if self._client is None:
                self._client = self._connected()
            return call(self._client)
        except KmipOperationFailure as error:
            raise self._told(error) from error
        except (AdytonError, _Absent):
            raise
        except Exception as error:
            self._drop()  # what is left of an answer must not be taken for the next one
            if isinstance(error, ssl.SSLError | OSError | KmipError):
                raise
            raise _Broken(type(error).__name__) from error  # PyKMIP meets a broken answer with whatever comes

    def _connected(self) -> Any:
        options = self._options
        try:
            context = ssl.create_default_context(cafile=options.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(options.certificate, options.private_key, password=b"")
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                "the certificate for the KMIP server cannot be used",
                code="backend_file_unreadable",
                field=f"{options.certificate}, {options.private_key}, {options.ca_file}",
            ) from error
        client = ProxyKmipClient(options.host, options.port, config_file=os.devnull)
        client.proxy = _Proxy(context, options)
        client.open()
        return client

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            connection = client.proxy.socket
            client.close()
            if connection is not None:
                connection.close()  # which PyKMIP leaves open where the other side has hung up already

    def _told(self, error: KmipOperationFailure) -> AdytonError | _Absent:
        reason = error.reason
        if reason is enums.ResultReason.ITEM_NOT_FOUND:
            return _Absent()
        if reason in {enums.ResultReason.PERMISSION_DENIED, enums.ResultReason.AUTHENTICATION_NOT_SUCCESSFUL}:
            return ConfigError("the KMIP server forbids it", code="backend_forbidden", field=self._options.host)
        got = getattr(reason, "name", "")
        return Unavailable("the KMIP server refuses it", code="backend_refused", field=self._options.host, got=got)

    def _failed(self, error: Exception) -> AdytonError:
        where = f"{self._options.host}:{self._options.port}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return ConfigError(
                "the server's certificate is not the KMIP server's",
                code="backend_certificate_refused",
                field=where,
                hint="name the authority that signs it: ca_file",
            )
        if isinstance(error, TimeoutError):
            return Unavailable("the KMIP server does not answer in time", code="backend_slow", field=where)
        broken = isinstance(error, _Broken | KmipError)
        return Unavailable(
            "the KMIP server's answer cannot be read" if broken else "the KMIP server cannot be reached, or refuses us",
            code="backend_answer_malformed" if broken else "backend_unreachable",
            field=where,
            got=str(error)[:40] if broken else type(error).__name__,
        )


class _Proxy(KMIPProxy):  # type: ignore[misc]
    """PyKMIP's client over a socket of ours."""

    def __init__(self, context: ssl.SSLContext, options: Options) -> None:
        super().__init__(options.host, options.port, config_file=os.devnull)
        self.timeout = options.seconds
        self._context = context

    def _create_socket(self, sock: Any) -> None:
        sock.settimeout(self.timeout)
        self.socket = self._context.wrap_socket(sock, server_hostname=self.host)


class _Absent(Exception):
    """The server has no such object."""


class _Broken(Exception):
    """An answer that could not be read."""


def _spki(value: bytes, form: Any) -> bytes:
    if form is enums.KeyFormatType.X_509:
        return value
    try:
        key = serialization.load_pem_public_key(
            b"-----BEGIN RSA PUBLIC KEY-----\n" + _base64_lines(value) + b"-----END RSA PUBLIC KEY-----\n"
        )
    except ValueError as error:
        raise Unavailable("the server sent no public key", code="public_key_foreign") from error
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _base64_lines(value: bytes) -> bytes:
    from base64 import encodebytes

    return encodebytes(value)
