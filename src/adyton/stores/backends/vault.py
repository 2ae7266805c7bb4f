"""Values in Vault's KV version 2, keys in its transit engine (Vault and OpenBao: one HTTP interface).

A value's pointer is its KV version and the time it was made, so that a path which was destroyed and written again never
answers for what it was. A key's handle is its transit name; ciphertexts and signatures are Vault's own (``vault:v1:…``)
and say which version of the key made them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding

from adyton.errors import ConfigError, MalformedRequest, Unavailable
from adyton.protocol.resource import ResourcePath
from adyton.stores.backends.options import VaultOptions as Options
from adyton.stores.backends.port import MAX_PLAINTEXT, MAX_VALUE, KeyKind, Signing, label
from adyton.stores.backends.signatures import EC_KINDS, absent, check_fits, raw_ecdsa, refused, unknown
from adyton.stores.backends.vault_link import Refused, VaultLink
from adyton.wire import b64

_FIELD = "adyton"
_TYPES = {
    KeyKind.AES_256: "aes256-gcm96",
    KeyKind.RSA_2048: "rsa-2048",
    KeyKind.RSA_3072: "rsa-3072",
    KeyKind.RSA_4096: "rsa-4096",
    KeyKind.P256: "ecdsa-p256",
    KeyKind.P384: "ecdsa-p384",
    KeyKind.P521: "ecdsa-p521",
    KeyKind.ED25519: "ed25519",
}
_KINDS = {name: kind for kind, name in _TYPES.items()}
_HANDLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\Z")


class Vault:
    """A ``SecretHolder`` and ``KeyHolder``."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._link = VaultLink(options)

    def check(self) -> str:
        """That it is unsealed and takes us; its version."""
        health = self._link.ask("GET", "sys/health?standbyok=true&perfstandbyok=true") or {}
        self._link.ask("GET", "auth/token/lookup-self")
        return f"Vault {str(health.get('version', ''))[:40]}".strip()

    def close(self) -> None:
        """Close its connections."""
        self._link.close()

    # values

    def put(self, tenant: str, path: ResourcePath, value: bytes) -> str:
        """One more version at the path."""
        if len(value) > MAX_VALUE:
            raise ConfigError("the value is too large for Vault", code="backend_value_too_large", got=len(value))
        data = self._data(self._kv("POST", "data", tenant, path, {"data": {_FIELD: _b64(value)}}))
        return _pointer(data)

    def get(self, tenant: str, path: ResourcePath, pointer: str = "") -> bytes | None:
        """Ours, or without a pointer the text in ``foreign_field`` that somebody else wrote."""
        version, _, made = pointer.partition("@")
        if pointer and not (version.isdigit() and made):
            raise Unavailable("not a pointer into Vault", code="backend_pointer_invalid")
        answer = self._kv("GET", "data", tenant, path, query=f"?version={version}" if version else "")
        if answer is None:
            return None
        data = self._data(answer)
        held = data.get("data")
        if held is None or (pointer and _pointer(data.get("metadata")) != pointer):  # deleted, or made anew since
            return None
        if isinstance(held, dict):
            if isinstance(held.get(_FIELD), str):
                return _unb64(held[_FIELD])
            foreign = held.get(self._options.foreign_field)
            if isinstance(foreign, str):
                return _text(foreign)
        raise Unavailable(
            "what Vault has there is no value",
            code="backend_value_malformed",
            expected=f"a text in the field {self._options.foreign_field!r}",
        )

    def delete(self, tenant: str, path: ResourcePath, pointer: str = "") -> None:
        """Destroy a version, or the path with all of them."""
        if not pointer:
            self._kv("DELETE", "metadata", tenant, path)
        elif self.get(tenant, path, pointer) is not None:
            self._kv("PUT", "destroy", tenant, path, {"versions": [int(pointer.partition("@")[0])]})

    def pointers(self, tenant: str, path: ResourcePath) -> Sequence[str]:
        """By the path's metadata."""
        answer = self._kv("GET", "metadata", tenant, path)
        versions = self._data(answer).get("versions") if answer is not None else {}
        if not isinstance(versions, dict):
            raise _malformed()
        found = []
        for number, facts in versions.items():
            if not isinstance(facts, dict) or not number.isdigit():
                raise _malformed()
            if not facts.get("destroyed"):
                found.append(_pointer({**facts, "version": int(number[:20])}))
        return found

    def list(self, tenant: str) -> list[ResourcePath]:
        """Three levels of folders."""
        paths = []
        for repository in self._folder(tenant, folders=True):
            for kind in self._folder(f"{tenant}/{repository}", folders=True):
                for tag in self._folder(f"{tenant}/{repository}/{kind}", folders=False):
                    try:
                        paths.append(ResourcePath(*(_unescaped(part) for part in (repository, kind, tag))))
                    except MalformedRequest:  # not ours
                        continue
        return sorted(paths, key=str)

    def _folder(self, path: str, *, folders: bool) -> tuple[str, ...]:
        answer = self._link.ask("LIST", f"{self._options.kv_mount}/metadata/{self._options.prefix}/{path}")
        if answer is None:
            return ()
        names = self._data(answer).get("keys")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _malformed()
        return tuple([name.rstrip("/") for name in names if name.endswith("/") is folders])

    def _kv(  # noqa: PLR0917 -- what, where, whose, which
        self, method: str, area: str, tenant: str, path: ResourcePath, body: object = None, query: str = ""
    ) -> dict[str, Any] | None:
        where = "/".join(_escaped(part) for part in (path.repository, path.type, path.tag))
        options = self._options
        try:
            return self._link.ask(method, f"{options.kv_mount}/{area}/{options.prefix}/{tenant}/{where}{query}", body)
        except Refused as error:
            raise Unavailable(
                "Vault refuses the value", code="backend_refused", field=options.url, got=error.reasons
            ) from error

    # keys

    @property
    def kinds(self) -> frozenset[KeyKind]:
        """All of them."""
        return frozenset(KeyKind)

    def generate(self, kind: KeyKind, label_: str) -> str:
        """A key named after the label, with something of its own."""
        handle = f"{label(label_)}-{os.urandom(8).hex()}"
        self._key("POST", f"keys/{handle}", {"type": _TYPES[kind]})
        return handle

    def import_key(self, kind: KeyKind, label_: str, material: bytes) -> str:
        """Wrapped to Vault's wrapping key: AES key wrap with padding under a fresh key under RSA-OAEP."""
        handle = f"{label(label_)}-{os.urandom(8).hex()}"
        answer = self._data(self._key("GET", "wrapping_key"))
        try:
            wrapping = serialization.load_pem_public_key(_text(answer.get("public_key")))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _malformed() from error
        if not isinstance(wrapping, rsa.RSAPublicKey):
            raise _malformed()
        key = os.urandom(32)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        wrapped = wrapping.encrypt(key, oaep) + aes_key_wrap_with_padding(key, material)
        body = {"type": _TYPES[kind], "ciphertext": _b64(wrapped), "hash_function": "SHA256", "allow_rotation": False}
        try:
            self._key("POST", f"keys/{handle}/import", body)
        except Unavailable as error:
            if error.code != "backend_refused":
                raise
            raise ConfigError("not a key of this kind", code="key_material_invalid", expected=kind.value) from error
        return handle

    def public(self, handle: str) -> bytes:
        """Of the key's latest version."""
        kind, facts = self._facts(handle)
        if kind.symmetric:
            raise unknown("a public half of a symmetric key")
        versions = facts.get("keys")
        latest = versions.get(str(facts.get("latest_version"))) if isinstance(versions, dict) else None
        text = latest.get("public_key") if isinstance(latest, dict) else None
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        try:
            if kind is KeyKind.ED25519:
                key: Any = ed25519.Ed25519PublicKey.from_public_bytes(_unb64(text))
            else:
                key = serialization.load_pem_public_key(_text(text))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Unavailable("Vault sent no public key", code="public_key_foreign") from error
        made: bytes = key.public_bytes(serialization.Encoding.DER, form)
        return made

    def encrypt(self, handle: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Asked first whether the key is there: Vault makes one if a policy lets it."""
        kind, _ = self._facts(handle)
        self._check_aad(kind, aad)
        if len(plaintext) > (MAX_PLAINTEXT if kind.symmetric else kind.rsa_bits // 8 - 66):
            raise ConfigError("too much to encrypt in a device", code="plaintext_too_large", got=len(plaintext))
        body = {"plaintext": _b64(plaintext), **({"associated_data": _b64(aad)} if aad else {})}
        text = self._data(self._key("POST", f"encrypt/{handle}", body)).get("ciphertext")
        if not isinstance(text, str) or not text.startswith("vault:v"):
            raise _malformed()
        return _text(text)

    def decrypt(self, handle: str, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """400 is said to a key that is not there, too, so that is asked first."""
        kind, _ = self._facts(handle)
        self._check_aad(kind, aad)
        try:
            text = ciphertext.decode("ascii")
        except UnicodeDecodeError as error:
            raise refused() from error
        body = {"ciphertext": text, **({"associated_data": _b64(aad)} if aad else {})}
        try:
            return _unb64(self._data(self._key("POST", f"decrypt/{handle}", body)).get("plaintext"))
        except Unavailable as error:
            if error.code != "backend_refused":
                raise
            raise refused() from error

    def sign(self, handle: str, algorithm: Signing, message: bytes) -> bytes:
        """By the key's latest version."""
        kind, _ = self._facts(handle)
        check_fits(kind, algorithm)
        body: dict[str, Any] = {"input": _b64(message)}
        if algorithm is not Signing.EDDSA:
            body["hash_algorithm"] = f"sha2-{algorithm.value[2:]}"
        if kind.rsa_bits:
            pss = algorithm.value.startswith("PS")
            body |= {"signature_algorithm": "pss" if pss else "pkcs1v15"} | ({"salt_length": "hash"} if pss else {})
        text = str(self._data(self._key("POST", f"sign/{handle}", body)).get("signature"))
        signature = _unb64(text.rpartition(":")[2])
        return raw_ecdsa(algorithm, signature) if algorithm in EC_KINDS else signature

    def labelled(self, label: str) -> Sequence[str]:
        """By the names of all transit keys."""
        answer = self._key("LIST", "keys")
        names = self._data(answer).get("keys") if answer is not None else []
        if not isinstance(names, list):
            raise _malformed()
        own = re.compile(re.escape(label) + r"-[0-9a-f]{16}\Z")
        return [name for name in names if isinstance(name, str) and own.match(name)]

    def destroy(self, handle: str) -> None:
        """Vault must be told first that it may be destroyed."""
        try:
            self._facts(handle)
        except ConfigError as error:
            if error.code == "held_key_absent":
                return
            raise
        self._key("POST", f"keys/{handle}/config", {"deletion_allowed": True})
        self._key("DELETE", f"keys/{handle}")

    def _check_aad(self, kind: KeyKind, aad: bytes) -> None:
        if not (kind.symmetric or kind.rsa_bits):
            raise unknown(f"encryption with a {kind.value} key")
        if aad and not kind.symmetric:
            raise unknown("additional data with an RSA key")

    def _facts(self, handle: str) -> tuple[KeyKind, dict[str, Any]]:
        if not _HANDLE.match(handle) or ".." in handle:
            raise absent(handle)
        answer = self._key("GET", f"keys/{handle}")
        if answer is None:
            raise absent(handle)
        facts = self._data(answer)
        kind = _KINDS.get(str(facts.get("type")))
        if kind is None:
            raise unknown(f"anything of ours with a key of type {facts.get('type')}"[:80])
        return kind, facts

    def _key(self, method: str, what: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        try:
            answer = self._link.ask(method, f"{self._options.transit_mount}/{what}", body)
        except Refused as error:
            raise Unavailable("Vault refuses the request", code="backend_refused", field=self._options.url) from error
        if answer is None and method not in {"GET", "LIST"}:
            raise ConfigError(
                "Vault has no such transit engine",
                code="backend_mount_absent",
                field="transit_mount",
                got=self._options.transit_mount,
            )
        return answer

    def _data(self, answer: dict[str, Any] | None) -> dict[str, Any]:
        if answer is None:
            raise ConfigError(
                "Vault has no such engine", code="backend_mount_absent", field="kv_mount", got=self._options.kv_mount
            )
        data = answer.get("data")
        if not isinstance(data, dict):
            raise _malformed()
        return data


def _pointer(metadata: object) -> str:
    if isinstance(metadata, dict):
        version, made = metadata.get("version"), metadata.get("created_time")
        if not isinstance(version, int) or not 0 <= version < 1 << 53 or not isinstance(made, str):
            raise _malformed()
        if made.isascii() and made.isprintable() and len(made) < 64:
            return f"{version}@{made}"
    raise _malformed()


def _malformed() -> Unavailable:
    return Unavailable("Vault's answer cannot be read", code="backend_answer_malformed")


def _escaped(part: str) -> str:
    """One to one: ``..`` is refused by Vault wherever it stands, and ``~`` is in no part of ours."""
    return re.sub(r"(?<=\.)\.", "~", part)


def _unescaped(part: str) -> str:
    return part.replace("~", ".")


def _text(given: object) -> bytes:
    if not isinstance(given, str):
        raise _malformed()
    try:
        return given.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair: JSON can say so
        raise _malformed() from error


def _b64(value: bytes) -> str:
    return b64.encode(value)


def _unb64(text: object) -> bytes:
    if not isinstance(text, str):
        raise _malformed()
    try:
        return b64.decode(text)
    except ValueError as error:
        raise _malformed() from error
