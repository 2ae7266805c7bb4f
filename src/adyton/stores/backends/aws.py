"""Keys in AWS KMS and values in AWS Secrets Manager.

A handle is a key's id, ARN or alias. ``aad`` goes into the encryption context, in base64 under ``adyton``. Each value is
a secret of its own, ``<prefix>/<tenant>/<path>@<pointer>``, because a version of a secret cannot be destroyed by itself;
a pointer begins with the time, so the last one in order is the newest. ``<prefix>/<tenant>/<path>`` without a pointer is
what somebody else wrote. Credentials come as AWS's library finds them, or from ``credentials_file`` (mode 0600).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from adyton.errors import ConfigError, MalformedRequest, Unavailable
from adyton.protocol.loopback import is_loopback
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends import deadline
from adyton.stores.backends.aws_link import MAX_NAMES, Absent, AwsLink, too_much
from adyton.stores.backends.options import AwsOptions as Options
from adyton.stores.backends.port import MAX_PLAINTEXT, MAX_VALUE, KeyKind, Signing, label
from adyton.stores.backends.private import read_private
from adyton.stores.backends.search import Search
from adyton.stores.backends.signatures import EC_KINDS, absent, check_fits, digest, raw_ecdsa, refused, unknown
from adyton.wire import b64

_T = TypeVar("_T")
_SPECS = {
    KeyKind.AES_256: "SYMMETRIC_DEFAULT",
    KeyKind.RSA_2048: "RSA_2048",
    KeyKind.RSA_3072: "RSA_3072",
    KeyKind.RSA_4096: "RSA_4096",
    KeyKind.P256: "ECC_NIST_P256",
    KeyKind.P384: "ECC_NIST_P384",
    KeyKind.P521: "ECC_NIST_P521",
}
_KINDS = {spec: kind for kind, spec in _SPECS.items()}


class Aws:
    """A ``SecretHolder`` (Secrets Manager) and ``KeyHolder`` (KMS)."""

    def __init__(self, options: Options) -> None:
        self._options = options
        if not 7 <= options.window_days <= 30:
            raise ConfigError(
                "not so many days", code="backend_option_invalid", field="window_days", expected="7 to 30"
            )
        scheme, _, rest = options.endpoint_url.partition("://")
        plain = options.endpoint_url and scheme != "https" and not options.insecure_http
        if plain and (scheme != "http" or not is_loopback(rest.partition("/")[0].rpartition(":")[0])):
            raise ConfigError(
                "values would be sent to AWS in the clear",
                code="backend_plain_http",
                field="endpoint_url",
                got=options.endpoint_url[:200],
                hint="use https://, or say insecure_http = true",
            )
        if options.credentials_file:
            read_private(options.credentials_file, "credentials_file")
        if options.ca_file and not Path(options.ca_file).is_file():
            raise ConfigError(
                "the file of certificates cannot be read", code="backend_file_unreadable", field="ca_file"
            )
        self._link = AwsLink(options)
        self._search = Search()

    def check(self) -> str:
        """One key and one secret are listed."""
        self._link.ask("kms", lambda client: client.list_keys(Limit=1))
        self._link.ask("secretsmanager", lambda client: client.list_secrets(MaxResults=1))
        return f"AWS {self._options.region}"

    def close(self) -> None:
        """Close the connections."""
        self._link.close()

    # values

    def put(self, tenant: str, path: ResourcePath, value: bytes) -> str:
        """One more secret."""
        if len(value) > MAX_VALUE:
            raise ConfigError("the value is too large for AWS", code="backend_value_too_large", got=len(value))
        pointer = f"{time.time_ns():016x}{os.urandom(8).hex()}"
        given: dict[str, Any] = {"Name": f"{self._name(tenant, path)}@{pointer}", "SecretBinary": value}
        if not value:
            given = {"Name": given["Name"], "SecretString": "{}"}  # AWS keeps no empty value
        if self._options.kms_key:
            given["KmsKeyId"] = self._options.kms_key
        self._link.ask("secretsmanager", lambda client: client.create_secret(**given))
        return pointer

    def get(self, tenant: str, path: ResourcePath, pointer: str = "") -> bytes | None:
        """By name. Without a pointer what others wrote there; if there is none, the newest of ours."""
        name = self._name(tenant, path)
        if pointer:
            return self._value(f"{name}@{_pointer(pointer)}")
        found = self._value(name)
        if found is None:
            ours = [one for one in self._names(f"{name}@") if one.startswith(f"{name}@")]
            found = self._value(max(ours)) if ours else None
        return found

    def _value(self, name: str) -> bytes | None:
        try:
            answer = self._link.ask("secretsmanager", lambda client: client.get_secret_value(SecretId=name))
        except Absent:
            return None
        if isinstance(answer.get("SecretBinary"), bytes):
            return bytes(answer["SecretBinary"])
        if isinstance(answer.get("SecretString"), str):
            text: str = answer["SecretString"]
            return b"" if "@" in name and text == "{}" else text.encode()
        raise Unavailable("AWS's answer cannot be read", code="backend_answer_malformed")

    def delete(self, tenant: str, path: ResourcePath, pointer: str = "") -> None:
        """At once, without AWS's recovery window. What others wrote is left to them."""
        name = self._name(tenant, path)
        names = [f"{name}@{_pointer(pointer)}"] if pointer else self._names(f"{name}@")
        for one in names:
            if not one.startswith(f"{name}@"):
                continue
            try:
                self._link.ask(
                    "secretsmanager",
                    lambda client, one=one: client.delete_secret(SecretId=one, ForceDeleteWithoutRecovery=True),  # type: ignore[misc]
                )
            except Absent:
                continue

    def pointers(self, tenant: str, path: ResourcePath) -> tuple[str, ...]:
        """By the names of secrets."""
        start = f"{self._name(tenant, path)}@"
        return tuple([one.removeprefix(start) for one in self._names(start) if one.startswith(start)])

    def list(self, tenant: str) -> list[ResourcePath]:
        """By the names of secrets. AWS may show a change a moment later."""
        start = f"{self._options.prefix}/{tenant}/"
        paths = set()
        for name in self._names(start):
            if name.startswith(start):
                try:
                    paths.add(ResourcePath.parse(name.removeprefix(start).partition("@")[0]))
                except MalformedRequest:  # not ours
                    continue
        return sorted(paths, key=str)

    def _names(self, start: str) -> tuple[str, ...]:
        filters = [{"Key": "name", "Values": [start]}]

        def pages(client: Any) -> tuple[str, ...]:
            names: list[str] = []
            for page in client.get_paginator("list_secrets").paginate(Filters=filters):
                names += [str(one["Name"]) for one in page["SecretList"] if not one.get("DeletedDate")]
                if len(names) > MAX_NAMES:
                    raise too_much(self._options)
                deadline.left(1.0)
            return tuple(names)

        return self._link.ask("secretsmanager", pages)

    def _name(self, tenant: str, path: ResourcePath) -> str:
        return f"{self._options.prefix}/{tenant}/{path}"

    # keys

    @property
    def kinds(self) -> frozenset[KeyKind]:
        """Those that KMS has everywhere."""
        return frozenset(_SPECS)

    def generate(self, kind: KeyKind, label_: str) -> str:
        """A symmetric key encrypts; of the others, KMS wants one use: they sign."""
        if kind not in _SPECS:
            raise unknown(f"a {kind.value} key")
        use = "ENCRYPT_DECRYPT" if kind.symmetric else "SIGN_VERIFY"
        given = {"KeySpec": _SPECS[kind], "KeyUsage": use, "Description": f"adyton {label(label_)}"}
        handle = self._link.ask("kms", lambda client: str(client.create_key(**given)["KeyMetadata"]["KeyId"]))
        if not _is_handle(handle):
            raise Unavailable("AWS's answer cannot be read", code="backend_answer_malformed", field="KeyId")
        return handle

    def import_key(self, kind: KeyKind, label_: str, material: bytes) -> str:
        """KMS takes key material in only for keys made for it, with an expiry: not done here."""
        raise unknown("taking keys in")

    def public(self, handle: str) -> bytes:
        """As KMS gives it."""
        kind, _ = self._facts(handle)
        if kind.symmetric:
            raise unknown("a public half of a symmetric key")
        return self._use(handle, lambda client: _bytes(client.get_public_key(KeyId=handle)["PublicKey"]))

    def encrypt(self, handle: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        """In KMS, with ``aad`` as encryption context."""
        kind, use = self._facts(handle)
        if len(plaintext) > (MAX_PLAINTEXT if kind.symmetric else kind.rsa_bits // 8 - 66):
            raise ConfigError("too much to encrypt in a device", code="plaintext_too_large", got=len(plaintext))
        given = self._encryption(kind, use, aad)
        call = {"KeyId": handle, "Plaintext": plaintext, **given}
        return self._use(handle, lambda client: _bytes(client.encrypt(**call)["CiphertextBlob"]))

    def decrypt(self, handle: str, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """By this key and no other."""
        given = self._encryption(*self._facts(handle), aad)
        if not ciphertext or len(ciphertext) > 6144:
            raise refused()
        call = {"KeyId": handle, "CiphertextBlob": ciphertext, **given}
        return self._use(handle, lambda client: _bytes(client.decrypt(**call)["Plaintext"]))

    def data_key(self, handle: str, aad: bytes = b"") -> tuple[bytes, bytes]:
        """32 random bytes of KMS's, and the same sealed: what ``decrypt`` opens under ``aad``."""
        given = self._encryption(*self._facts(handle), aad)

        def ask(client: Any) -> tuple[bytes, bytes]:
            answer = client.generate_data_key(KeyId=handle, KeySpec="AES_256", **given)
            return _bytes(answer["Plaintext"]), _bytes(answer["CiphertextBlob"])

        return self._use(handle, ask)

    def _encryption(self, kind: KeyKind, use: str, aad: bytes) -> dict[str, Any]:
        if use != "ENCRYPT_DECRYPT" or not (kind.symmetric or kind.rsa_bits):
            raise unknown(f"encryption with a {kind.value} key made to sign")
        if kind.symmetric:
            return {"EncryptionContext": {"adyton": b64.encode(aad)}} if aad else {}
        if aad:
            raise unknown("additional data with an RSA key")
        return {"EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}

    def sign(self, handle: str, algorithm: Signing, message: bytes) -> bytes:
        """The digest of a message that is too long for KMS is made here."""
        kind, use = self._facts(handle)
        check_fits(kind, algorithm)
        if use != "SIGN_VERIFY":
            raise unknown("signing with a key made to encrypt")
        bits = algorithm.value[2:]
        family = {"ES": "ECDSA", "RS": "RSASSA_PKCS1_V1_5", "PS": "RSASSA_PSS"}[algorithm.value[:2]]
        call: dict[str, Any] = {"KeyId": handle, "Message": message, "MessageType": "RAW"}
        if len(message) > MAX_PLAINTEXT or not message:
            call |= {"Message": digest(algorithm, message), "MessageType": "DIGEST"}
        call["SigningAlgorithm"] = f"{family}_SHA_{bits}"
        signature = self._use(handle, lambda client: _bytes(client.sign(**call)["Signature"]))
        return raw_ecdsa(algorithm, signature) if algorithm in EC_KINDS else signature

    def labelled(self, label: str) -> Sequence[str]:
        """By the descriptions of all keys of the account, which are looked at one by one."""

        def ids(client: Any) -> tuple[str, ...]:
            pages = client.get_paginator("list_keys").paginate()
            return tuple([str(one["KeyId"]) for page in pages for one in page["Keys"] if deadline.left(1.0)])

        return self._search.among(label, self._link.ask("kms", ids), lambda uid: self._described(uid, label))

    def _described(self, uid: str, label: str) -> bool:
        try:
            facts = self._link.ask("kms", lambda client: dict(client.describe_key(KeyId=uid)["KeyMetadata"]))
        except Absent:
            return False
        pending = str(facts.get("KeyState")).startswith("Pending")
        return facts.get("Description") == f"adyton {label}" and not pending

    def destroy(self, handle: str) -> None:
        """Unusable at once, destroyed by AWS after ``window_days``."""
        try:
            facts = self._link.ask("kms", lambda client: dict(client.describe_key(KeyId=handle)["KeyMetadata"]))
            if str(facts.get("KeyState")).startswith("Pending"):
                return
            call = {"KeyId": str(facts.get("KeyId")), "PendingWindowInDays": self._options.window_days}
            self._link.ask("kms", lambda client: client.schedule_key_deletion(**call))
        except Absent:
            return

    def _facts(self, handle: str) -> tuple[KeyKind, str]:
        if not _is_handle(handle):
            raise absent(handle)
        facts = self._use(handle, lambda client: dict(client.describe_key(KeyId=handle)["KeyMetadata"]))
        if str(facts.get("KeyState")) in {"PendingDeletion", "PendingReplicaDeletion"}:
            raise absent(handle)
        kind = _KINDS.get(str(facts.get("KeySpec")))
        if kind is None:
            raise unknown(f"anything of ours with a key of {facts.get('KeySpec')}"[:80])
        return kind, str(facts.get("KeyUsage"))

    def _use(self, handle: str, call: Callable[[Any], _T]) -> _T:
        try:
            return self._link.ask("kms", call)
        except Absent as error:
            raise absent(handle) from error


def _is_handle(text: str) -> bool:
    return 0 < len(text) <= 200 and text.isascii() and text.isprintable()


def _bytes(given: object) -> bytes:
    if not isinstance(given, bytes):
        raise TypeError("no bytes")
    return given


def _pointer(text: str) -> str:
    if len(text) != 32 or not all(letter in "0123456789abcdef" for letter in text):
        raise Unavailable("not a pointer into AWS", code="backend_pointer_invalid")
    return text
