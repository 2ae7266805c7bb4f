"""Any bytes are a manifest, an index or a configuration, or one error of ours; what was parsed is what was given."""

from __future__ import annotations

import contextlib
import json
import sys

import atheris

with atheris.instrument_imports():
    from adyton.errors import ImageError
    from adyton.image import describe, manifest
    from adyton.image.manifest import Index


DIGEST = "sha256:" + "0f" * 32
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 1, "annotations": {}}
PLATFORM = {"os": "linux", "architecture": "amd64", "variant": "v1"}
IMAGE = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}, "config": {}}
SEEDS = [
    json.dumps(value).encode()
    for value in (
        {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER]},
        {"mediaType": None, "schemaVersion": 2, "config": CONFIG, "layers": [LAYER]},
        {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER], **IMAGE},
        {"schemaVersion": 2, "manifests": [{**LAYER, "platform": PLATFORM}]},
    )
]
TOKENS = (
    *(b"null", b"true", b"-1", b"1e400", b"[]", b"{}", b'""', b'"\\ud800"', b",", b":", b"[[", b"}}", b'"Layers":[],'),
    *(b'"manifests":[],', b'"layers":[],', b'"schemaVersion":2,', b"+encrypted", b"99999999999999999999", b"NaN"),
)


def altered(data: bytes) -> bytes:
    """A document near a valid one: tokens put in, pieces cut out."""
    provider = atheris.FuzzedDataProvider(data)
    document: bytes = provider.PickValueInList(SEEDS)
    for _ in range(provider.ConsumeIntInRange(0, 6)):
        position = provider.ConsumeIntInRange(0, len(document))
        cut = provider.ConsumeIntInRange(0, 12)
        document = document[:position] + provider.PickValueInList(list(TOKENS)) + document[position + cut :]
    return document


def one(data: bytes) -> None:
    check(data)
    check(altered(data))


def check(data: bytes) -> None:
    try:
        parsed = manifest.parse(data)
    except ImageError:
        return
    assert parsed.raw == data
    if isinstance(parsed, Index):
        describe.describe_index(parsed)
        with contextlib.suppress(ImageError):
            manifest.choose_platform(parsed, "linux", "amd64")
        return
    assert len(parsed.layers) <= manifest.MAX_LAYERS
    for layer in parsed.layers:
        with contextlib.suppress(ImageError):
            describe.describe_layer(layer)
    with contextlib.suppress(ImageError):
        manifest.parse_config(data, parsed)


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
