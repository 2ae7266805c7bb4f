"""What an image is, as JSON values for people and programs: layers, how they are encrypted, and for whom."""

from __future__ import annotations

from adyton.errors import AdytonError
from adyton.image import jwe_recipient, ocicrypt
from adyton.image.keyprovider import Packet
from adyton.image.manifest import Descriptor, ImageConfig, Index, Manifest
from adyton.image.media_types import layer_format
from adyton.rats.types import JsonValue


def describe(manifest: Manifest, config: ImageConfig) -> dict[str, JsonValue]:
    """One image. ``encrypted`` is ``all``, ``some`` or ``none`` of its layers. No key material is shown."""
    layers: list[dict[str, JsonValue]] = [describe_layer(layer) for layer in manifest.layers]
    number = sum(bool(layer["encrypted"]) for layer in layers)
    run = config.run
    return {
        "digest": str(manifest.digest),
        "media_type": manifest.media_type,
        "platform": "/".join(part for part in (config.os, config.architecture, config.variant) if part),
        "encrypted": "none" if number == 0 else "all" if number == len(layers) else "some",
        "config": {
            "digest": str(manifest.config.digest),
            "entrypoint": list(run.entrypoint or []),
            "cmd": list(run.cmd or []),
            "env": list(run.env or []),
            "user": run.user or "",
            "working_dir": run.working_dir or "/",
            "exposed_ports": list[JsonValue](sorted(run.exposed_ports or {})),
        },
        "layers": list[JsonValue](layers),
    }


def describe_layer(layer: Descriptor) -> dict[str, JsonValue]:
    """One layer and its recipients."""
    encrypted = ocicrypt.is_encrypted(layer)
    return {
        "digest": str(layer.digest),
        "size": layer.size,
        "compression": layer_format(layer.media_type).compression,
        "encrypted": encrypted,
        "recipients": list[JsonValue](recipients(layer) if encrypted else []),
    }


def recipients(layer: Descriptor) -> list[dict[str, JsonValue]]:
    """Who can open a layer, as far as its annotations say. An entry that cannot be read says so."""
    found: list[dict[str, JsonValue]] = []
    for scheme, entries in ocicrypt.schemes(layer.annotations).items():
        for entry in entries:
            try:
                if scheme == ocicrypt.JWE:
                    found += [{"scheme": scheme, "wrap": kind} for kind in jwe_recipient.recipient_kinds(entry)]
                elif scheme.startswith(ocicrypt.PROVIDER):
                    packet = Packet.parse(entry)
                    found.append({"scheme": scheme, "wrap": packet.wrap_type, "key": packet.kid})
                else:
                    found.append({"scheme": scheme, "wrap": "not supported here"})
            except AdytonError as error:
                found.append({"scheme": scheme, "wrap": f"unreadable: {error.message}"})
    return found


def describe_index(index: Index) -> dict[str, JsonValue]:
    """An index: its platforms and their digests."""
    return {
        "digest": str(index.digest),
        "media_type": index.media_type,
        "manifests": [
            {"platform": str(entry.platform) if entry.platform else None, "digest": str(entry.digest)}
            for entry in index.manifests
        ],
    }
