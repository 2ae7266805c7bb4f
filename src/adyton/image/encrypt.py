"""Encrypting an image: SRC to DST, every layer under a key of its own, in constant memory.

The order is the promise: first the blobs, then ``register`` (which may talk to a broker and may fail), and the manifest
last. So an encrypted image that anybody can name is one whose key is where its annotations say. Configuration and diff
ids stay as they are; **the configuration is not encrypted**: environment, command and history are for all to read.

One platform at a time: of an index the manifest for ``platform`` is taken, and the destination names a single image.
An image with an encrypted layer is refused; its recipients cannot be extended without its keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from adyton.errors import UnsupportedImage
from adyton.image import jwe_recipient, keyprovider, ocicrypt
from adyton.image.jwe_recipient import PublicKey
from adyton.image.layer_cipher import LayerMac, LayerStream
from adyton.image.manifest import MAX_CONFIG, Descriptor, Manifest, Platform, parse_config
from adyton.image.media_types import ENCRYPTED, layer_format
from adyton.image.rewrite import copy_blob, with_layers
from adyton.image.source import ImageSink, ImageSource, image_manifest, read_blob
from adyton.protocol.resource import ResourcePath
from adyton.rats.ports import Progress
from adyton.rats.types import Digest
from adyton.wire import b64


@dataclass(frozen=True, slots=True)
class BrokerKey:
    """A recipient behind a broker: the URI of the key-encryption key, and its 32 bytes."""

    path: ResourcePath
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != 32:
            raise ValueError("a key-encryption key has 32 bytes")


@dataclass(frozen=True, slots=True)
class Recipients:
    """Who can open the image: at least one. ``public_keys`` share one JWE per layer."""

    broker_keys: tuple[BrokerKey, ...] = ()
    public_keys: tuple[PublicKey, ...] = ()

    def __post_init__(self) -> None:
        if not self.broker_keys and not self.public_keys:
            raise ValueError("an image that nobody can open is not encrypted but lost")


@dataclass(frozen=True, slots=True)
class EncryptedImage:
    """What was published. ``converted``: the source was a Docker schema 2 manifest and is an OCI one now."""

    digest: Digest
    layers: tuple[Descriptor, ...]
    converted: bool


def encrypt(
    source: ImageSource,
    sink: ImageSink,
    recipients: Recipients,
    *,
    platform: Platform,
    register: Callable[[Digest], None] | None = None,
    progress: Progress | None = None,
) -> EncryptedImage:
    """Encrypt ``source`` into ``sink``. ``register`` is given the new manifest's digest before it is published."""
    manifest = image_manifest(source, platform)
    _check(source, manifest)
    copy_blob(source, sink, manifest.config, label="configuration", progress=progress)
    layers = tuple(
        _encrypt_layer(source, sink, layer, recipients, label=f"layer {number}", progress=progress)
        for number, layer in enumerate(manifest.layers, 1)
    )
    rewritten = with_layers(manifest, layers)
    if register is not None:
        register(rewritten.digest)
    sink.put_manifest(rewritten.raw, rewritten.media_type)
    return EncryptedImage(rewritten.digest, layers, rewritten.converted)


def _check(source: ImageSource, manifest: Manifest) -> None:
    """Everything that could be wrong with the source is found before anything is written."""
    parse_config(read_blob(source, manifest.config, MAX_CONFIG), manifest)
    if not manifest.layers:
        raise UnsupportedImage("the image has no layers: there is nothing to encrypt", code="no_layers")
    for layer in manifest.layers:
        if ocicrypt.is_encrypted(layer):
            raise UnsupportedImage(
                "the image is encrypted already",
                code="already_encrypted",
                field="layers.mediaType",
                got=layer.media_type,
                hint="decrypt it first (adyton image decrypt), or start from the plain image",
            )


def _encrypt_layer(
    source: ImageSource,
    sink: ImageSink,
    layer: Descriptor,
    recipients: Recipients,
    *,
    label: str,
    progress: Progress | None,
) -> Descriptor:
    symkey, nonce = os.urandom(32), os.urandom(16)
    stream, mac = LayerStream(symkey, nonce), LayerMac(symkey)

    def seal(piece: bytes) -> bytes:
        ciphertext = stream.update(piece)
        mac.update(ciphertext)
        return ciphertext

    digest = copy_blob(source, sink, layer, label=label, progress=progress, transform=seal)
    options = ocicrypt.private_options(symkey, nonce, layer.digest)
    annotations = dict(layer.annotations)
    annotations[ocicrypt.PUBLIC_OPTIONS] = ocicrypt.public_options(mac.value())
    if recipients.broker_keys:
        entries = [keyprovider.wrap(options, recipient.path, recipient.key) for recipient in recipients.broker_keys]
        annotations[f"{ocicrypt.KEYS}{ocicrypt.PROVIDER}{keyprovider.NAME}"] = ",".join(map(b64.encode, entries))
    if recipients.public_keys:
        entry = jwe_recipient.wrap(options, recipients.public_keys)
        annotations[f"{ocicrypt.KEYS}{ocicrypt.JWE}"] = b64.encode(entry)
    return Descriptor(layer_format(layer.media_type).oci + ENCRYPTED, digest, layer.size, annotations)
