"""Encrypted layers (ocicrypt, ``coco-guest`` 5.1): what a descriptor's annotations say, and finding the layer's key.

An encrypted layer is AES-256-CTR of the layer blob; its key, nonce and the plain blob's digest (the *private options*)
are wrapped once per recipient in annotations ``org.opencontainers.image.enc.keys.<scheme>``; the *public options* hold
HMAC-SHA-256 over the ciphertext, under the same key. Configuration and diff ids of the image stay as they are.

Annotations are the registry's word. What makes a layer authentic is the MAC under a key that only the owner's wrapping
can give, then the diff id. ``layer_cipher`` does the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adyton.errors import AdytonError, DecryptionFailed, ImageError, MalformedImage, UnsupportedImage
from adyton.image.manifest import Descriptor
from adyton.image.media_types import layer_format
from adyton.rats.ports import KeySource
from adyton.rats.types import Digest
from adyton.wire import b64, strict_json

if TYPE_CHECKING:  # cryptography is loaded when there is a key to unwrap
    from adyton.image.jwe_recipient import PrivateKey

PREFIX = "org.opencontainers.image.enc."
KEYS = PREFIX + "keys."
PUBLIC_OPTIONS = PREFIX + "pubopts"
CIPHER = "AES_256_CTR_HMAC_SHA256"
JWE = "jwe"
PROVIDER = "provider."
MAX_ANNOTATION = 256 * 1024
MAX_RECIPIENTS = 64
_SPEC = "coco-guest 5.1"


@dataclass(frozen=True, slots=True)
class LayerKey:
    """All that opens one layer. ``hmac`` is over the ciphertext.

    ``digest`` is of the layer that the encrypting tool was given, which is not always the blob that it encrypted:
    skopeo compresses in between. It says what the owner meant; it is not what authenticates the layer.
    """

    symkey: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    digest: Digest
    hmac: bytes

    def __post_init__(self) -> None:
        if (len(self.symkey), len(self.nonce), len(self.hmac)) != (32, 16, 32):
            raise ValueError("a layer key has 32 bytes, its nonce 16, its MAC 32")


@dataclass(frozen=True, slots=True)
class ImageKeys:
    """What may open layers here: private keys of JWE recipients, and a source of keys named by ``kbs:///`` URIs.

    ``unauthenticated_wrap_accepted`` also reads keys that were wrapped with ``A256CTR``: such a wrapping can be altered
    without notice, so it is off unless somebody answers for it.
    """

    private_keys: tuple[PrivateKey, ...] = ()
    source: KeySource | None = None
    unauthenticated_wrap_accepted: bool = False


def is_encrypted(descriptor: Descriptor) -> bool:
    """Whether the layer is encrypted. A type and annotations that contradict each other are ``MalformedImage``.

    A registry that renames an encrypted layer's type to a plain one would otherwise have ciphertext unpacked as if it
    were plain, past every key.
    """
    encrypted = layer_format(descriptor.media_type).encrypted
    annotated = any(name.startswith(PREFIX) for name in descriptor.annotations)
    if encrypted != annotated:
        raise _malformed(
            "a layer's media type and its encryption annotations contradict each other",
            "layers.mediaType",
            "a type ending in +encrypted exactly where there are encryption annotations",
            descriptor.media_type[:200],
        )
    return encrypted


def schemes(annotations: Mapping[str, str]) -> dict[str, list[bytes]]:
    """The wrapped keys by scheme (``jwe``, ``provider.<name>``, ``pgp``, ``pkcs7``, …), in the order written."""
    found: dict[str, list[bytes]] = {}
    total = 0
    for name, value in annotations.items():
        if not name.startswith(KEYS):
            continue
        if len(value) > MAX_ANNOTATION:
            raise _malformed("an encryption annotation is too long", name[:200], MAX_ANNOTATION, len(value))
        parts = value.split(",")
        total += len(parts)
        if total > MAX_RECIPIENTS:
            raise _malformed("a layer has too many recipients", name[:200], MAX_RECIPIENTS, total)
        try:
            found[name.removeprefix(KEYS)] = [b64.decode(part) for part in parts]
        except ValueError as error:
            raise _malformed("an encryption annotation is not base64", name[:200], "base64, comma-separated") from error
    return found


def public_hmac(annotations: Mapping[str, str]) -> bytes:
    """The MAC over the ciphertext, 32 bytes, from the public options; no other cipher is known."""
    text = annotations.get(PUBLIC_OPTIONS)
    if text is None:
        raise _malformed("an encrypted layer has no public options, so no MAC", PUBLIC_OPTIONS, "present")
    document = _options(b64_or_refuse(text, PUBLIC_OPTIONS), PUBLIC_OPTIONS)
    if document.get("cipher") != CIPHER:
        raise UnsupportedImage(
            "a layer is encrypted with a cipher that is not known",
            code="layer_cipher",
            field=PUBLIC_OPTIONS,
            expected=CIPHER,
            got=str(document.get("cipher"))[:80],
            spec=_SPEC,
        )
    if document.get("cipheroptions") not in (None, {}):  # the nonce belongs to the wrapped options, nowhere else
        raise _malformed("public options hold cipher options", PUBLIC_OPTIONS, "an empty cipheroptions")
    return _bytes(document, "hmac", 32, PUBLIC_OPTIONS)


def private_options(symkey: bytes, nonce: bytes, digest: Digest) -> bytes:
    """The JSON that is wrapped for each recipient."""
    return (
        f'{{"symkey":"{b64.encode(symkey)}","digest":"{digest}","cipheroptions":{{"nonce":"{b64.encode(nonce)}"}}}}'
    ).encode("ascii")


def public_options(mac: bytes) -> str:
    """The value of the annotation ``pubopts``."""
    return b64.encode(f'{{"cipher":"{CIPHER}","hmac":"{b64.encode(mac)}","cipheroptions":{{}}}}'.encode("ascii"))


def unwrap(descriptor: Descriptor, keys: ImageKeys) -> LayerKey:
    """The key of an encrypted layer: private keys first, then the key source.

    ``DecryptionFailed`` where nothing held here opens it; where a key source was asked and refused, its own error.
    """
    if not is_encrypted(descriptor):
        raise ValueError("the layer is not encrypted")
    mac = public_hmac(descriptor.annotations)
    wrapped = schemes(descriptor.annotations)
    refusal: AdytonError | None = None
    for scheme, open_entry in _openers(wrapped, keys):
        for entry in wrapped[scheme]:
            try:
                opened = open_entry(entry)
            except AdytonError as error:
                # The key source's word (refused, absent, unreachable) says more than "no key fits".
                refusal = error if refusal is None or isinstance(refusal, ImageError) else refusal
                continue
            return _layer_key(opened, mac)
    if refusal is not None:
        raise refusal
    raise DecryptionFailed(
        "no key was given that could open this layer",
        code="no_key",
        field="layers.annotations",
        expected=sorted(wrapped) or "a wrapped key",
        hint=_hint(wrapped),
    )


def _openers(wrapped: Mapping[str, list[bytes]], keys: ImageKeys) -> list[tuple[str, Callable[[bytes], bytes]]]:
    from adyton.image import jwe_recipient, keyprovider

    openers: list[tuple[str, Callable[[bytes], bytes]]] = []
    source = keys.source
    if JWE in wrapped and keys.private_keys:
        openers.append((JWE, lambda entry: jwe_recipient.unwrap(entry, keys.private_keys)))
    if source is not None:
        # As CoCo's guests do: any provider's annotation that is a packet of theirs, whatever the provider was called.
        openers += [
            (name, lambda entry: keyprovider.unwrap(entry, source, keys.unauthenticated_wrap_accepted))
            for name in wrapped
            if name.startswith(PROVIDER)
        ]
    return openers


def _layer_key(opened: bytes, mac: bytes) -> LayerKey:
    where = "wrapped layer options"
    document = _options(opened, where)
    nested = document.get("cipheroptions")
    if not isinstance(nested, dict):
        raise _malformed("a layer's wrapped options have no cipher options", where, "cipheroptions.nonce")
    try:
        digest = Digest.parse(str(document.get("digest")))
    except ValueError as error:
        raise _malformed("a layer's wrapped options have no digest of the plain layer", where, "a digest") from error
    return LayerKey(
        symkey=_bytes(document, "symkey", 32, where),
        nonce=_bytes(nested, "nonce", 16, where),
        digest=digest,
        hmac=mac,
    )


def _options(raw: bytes, where: str) -> dict[str, object]:
    try:
        value = strict_json.parse(raw, max_size=16 * 1024, max_depth=4)
    except ValueError as error:
        raise _malformed("a layer's encryption options are not JSON", where, "a JSON object") from error
    if not isinstance(value, dict):
        raise _malformed("a layer's encryption options are not an object", where, "a JSON object")
    return value


def _bytes(document: Mapping[str, object], name: str, length: int, where: str) -> bytes:
    text = document.get(name)
    data = b64_or_refuse(text, where) if isinstance(text, str) else b""
    if len(data) != length:  # the length is not secret, the value is: it is never shown
        raise _malformed(f"{name} in a layer's encryption options has the wrong length", where, f"{length} bytes")
    return data


def b64_or_refuse(text: str, where: str) -> bytes:
    """Standard base64, or ``MalformedImage`` that names ``where`` and shows nothing."""
    if len(text) > MAX_ANNOTATION:
        raise _malformed("an encryption annotation is too long", where, MAX_ANNOTATION, len(text))
    try:
        return b64.decode(text)
    except ValueError as error:
        raise _malformed("a part of a layer's encryption options is not base64", where, "base64") from error


def _hint(wrapped: Mapping[str, list[bytes]]) -> str:
    if JWE in wrapped:
        return "give the recipient's private key (PEM, PKCS#8) with --decryption-key"
    if any(name.startswith(PROVIDER) for name in wrapped):
        return "the key is held by a broker: run the image with a broker, or decrypt with --key-file"
    return "recipients of these kinds cannot be opened; encrypt the image for jwe or for a broker's key"


def _malformed(message: str, where: str, expected: object, got: object = None) -> MalformedImage:
    return MalformedImage(message, code="encryption_malformed", field=where, expected=expected, got=got, spec=_SPEC)
