"""Encrypting and decrypting whole images: what is refused leaves nothing usable, what is written opens again."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.image.building import Built, MemorySink, MemorySource, image, index_of, layer

from adyton.errors import (
    AdytonError,
    DecryptionFailed,
    DigestMismatch,
    ImageError,
    MalformedImage,
    NotFound,
    Unavailable,
    UnsupportedImage,
)
from adyton.image import media_types
from adyton.image.archive import ArchiveSink, ArchiveSource
from adyton.image.decrypt import decrypt
from adyton.image.describe import describe
from adyton.image.dir_layout import DirectorySink, DirectorySource
from adyton.image.encrypt import BrokerKey, Recipients, encrypt
from adyton.image.manifest import Platform, parse_config, parse_manifest
from adyton.image.oci_layout import LayoutSink, LayoutSource
from adyton.image.ocicrypt import ImageKeys
from adyton.image.source import ImageSink, ImageSource
from adyton.protocol.resource import ResourcePath
from adyton.rats.types import Digest

LINUX = Platform("amd64", "linux")
PATH = ResourcePath.parse("kbs:///default/key/app")
KEK = bytes(range(32))
BROKER = Recipients(broker_keys=(BrokerKey(PATH, KEK),))
EC_KEY = ec.generate_private_key(ec.SECP256R1())
MARKER = b"the-recipe-is-here" * 20


class Keys:
    """A key source that knows one key."""

    def __init__(self, key: bytes = KEK) -> None:
        self._key = key

    def key(self, uri: str) -> bytes:
        if uri != PATH.uri:
            raise NotFound(uri)
        return self._key


def plain(**options: bool) -> Built:
    return image(
        [
            layer({"a": b"first", "secret": MARKER}, "gzip", **options),
            layer({"b": MARKER}, "zstd", **options),
            layer({"c": MARKER}, "none", **options),
        ],
        Cmd=["/bin/sh"],
        **options,  # type: ignore[arg-type]
    )


def encrypted(built: Built | None = None, recipients: Recipients = BROKER) -> Built:
    sink = MemorySink()
    encrypt((built or plain()).source, sink, recipients, platform=LINUX)
    return sink.built


def altered(built: Built, change: Callable[[dict[str, object]], None]) -> Built:
    document = json.loads(built.raw)
    change(document)
    return Built(json.dumps(document).encode(), built.blobs)


def opened(built: Built, keys: ImageKeys | None = None) -> Built:
    sink = MemorySink()
    decrypt(built.source, sink, keys or ImageKeys(source=Keys()), platform=LINUX)
    return sink.built


# --- refused --------------------------------------------------------------------------------------------------------


def test_a_registration_that_fails_leaves_no_image() -> None:
    sink = MemorySink()

    def register(digest: Digest) -> None:
        raise Unavailable("the broker is away")

    with pytest.raises(Unavailable, match="broker"):
        encrypt(plain().source, sink, BROKER, platform=LINUX, register=register)
    assert sink.published is None


def test_registration_comes_after_every_blob_and_before_the_manifest() -> None:
    sink = MemorySink()
    seen: list[Digest] = []

    def register(digest: Digest) -> None:
        sink.log.append("registered")
        seen.append(digest)

    result = encrypt(plain().source, sink, BROKER, platform=LINUX, register=register)
    assert sink.log == ["blob"] * 4 + ["registered", "manifest"]
    assert seen == [result.digest] == [sink.built.digest]


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_a_source_blob_that_is_not_its_digest_is_never_published(which: int) -> None:
    built = plain()
    digest = list(built.blobs)[which]
    for lie in (built.blobs[digest][:-1], built.blobs[digest] + b"x", bytes(len(built.blobs[digest]))):
        source = MemorySource(built)
        source.blobs = {**built.blobs, digest: lie}
        sink = MemorySink()
        with pytest.raises(DigestMismatch):
            encrypt(source, sink, BROKER, platform=LINUX)
        assert sink.published is None
        assert "blob" not in sink.log or which > 0


def test_nobody_is_no_recipient() -> None:
    with pytest.raises(ValueError, match="lost"):
        Recipients()


def test_an_encrypted_image_is_not_encrypted_again() -> None:
    with pytest.raises(UnsupportedImage) as caught:
        encrypt(encrypted().source, MemorySink(), BROKER, platform=LINUX)
    assert caught.value.code == "already_encrypted"


def test_a_plain_image_is_not_decrypted() -> None:
    with pytest.raises(UnsupportedImage) as caught:
        opened(plain())
    assert caught.value.code == "not_encrypted"


def test_every_flipped_byte_of_a_small_layer_is_noticed() -> None:
    """Flipped where the digest says so too: a registry that alters blob and descriptor together."""
    built = encrypted(image([layer({"a": b"x"})]))
    digest = built.manifest.layers[0].digest
    for position in range(0, len(built.blobs[digest]), 7):
        blob = bytearray(built.blobs[digest])
        blob[position] ^= 0x80
        lie = Digest.of(bytes(blob))

        def swap(document: dict[str, object], lie: Digest = lie) -> None:
            document["layers"][0]["digest"] = str(lie)  # type: ignore[index]

        forged = altered(built, swap)
        forged.blobs[lie] = bytes(blob)
        sink = MemorySink()
        with pytest.raises(DecryptionFailed):
            decrypt(forged.source, sink, ImageKeys(source=Keys()), platform=LINUX)
        assert sink.published is None
        assert lie not in sink.blobs
        assert len(sink.blobs) == 1  # the configuration, and nothing of the layer


def layers_of(document: dict[str, object]) -> list[dict[str, dict[str, str]]]:
    return document["layers"]  # type: ignore[return-value]


def _strip_mac(document: dict[str, object]) -> None:
    del layers_of(document)[1]["annotations"]["org.opencontainers.image.enc.pubopts"]


def _strip_keys(document: dict[str, object]) -> None:
    del layers_of(document)[1]["annotations"]["org.opencontainers.image.enc.keys.provider.attestation-agent"]


def _downgrade(document: dict[str, object]) -> None:
    document["layers"][1]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd"  # type: ignore[index]


def _swap_annotations(document: dict[str, object]) -> None:
    layers = layers_of(document)
    layers[0]["annotations"], layers[1]["annotations"] = layers[1]["annotations"], layers[0]["annotations"]


def _other_cipher(document: dict[str, object]) -> None:
    annotations = layers_of(document)[0]["annotations"]
    annotations["org.opencontainers.image.enc.pubopts"] = "eyJjaXBoZXIiOiJST1QxMyJ9"


@pytest.mark.parametrize("change", [_strip_mac, _strip_keys, _downgrade, _swap_annotations, _other_cipher])
def test_altered_manifests(change: Callable[[dict[str, object]], None]) -> None:
    sink = MemorySink()
    with pytest.raises(ImageError):
        decrypt(altered(encrypted(), change).source, sink, ImageKeys(source=Keys()), platform=LINUX)
    assert sink.published is None


def test_a_layer_that_is_authentic_and_not_the_configurations() -> None:
    """The owner's own mistake, or another configuration put beside the layers: the diff id says so."""
    first, second = plain(), image([layer({"x": b"1"}), layer({"y": b"2"}), layer({"z": b"3"})])
    sealed = encrypted(first)

    def other_configuration(document: dict[str, object]) -> None:
        document["config"] = json.loads(second.raw)["config"]

    forged = altered(sealed, other_configuration)
    forged.blobs.update(second.blobs)
    sink = MemorySink()
    with pytest.raises(DigestMismatch) as caught:
        decrypt(forged.source, sink, ImageKeys(source=Keys()), platform=LINUX)
    assert caught.value.code == "diff_id_mismatch"
    assert sink.published is None
    assert len(sink.blobs) == 1


def test_duplicate_annotations() -> None:
    built = encrypted()
    name = b'"org.opencontainers.image.enc.pubopts"'
    raw = built.raw.replace(name, name + b':"",' + name, 1)
    with pytest.raises(MalformedImage, match="two members"):
        opened(Built(raw, built.blobs))


@pytest.mark.parametrize(
    "keys",
    [
        ImageKeys(),
        ImageKeys(source=Keys(bytes(32))),
        ImageKeys(private_keys=(EC_KEY, rsa.generate_private_key(public_exponent=65537, key_size=2048))),
    ],
)
def test_without_the_key_nothing_is_written(keys: ImageKeys) -> None:
    sink = MemorySink()
    with pytest.raises(DecryptionFailed):
        decrypt(encrypted().source, sink, keys, platform=LINUX)
    assert sink.log == []


def test_an_index_without_the_platform() -> None:
    built = plain()
    source = MemorySource(built, top=index_of({"linux/arm64": built}))
    with pytest.raises(UnsupportedImage) as caught:
        encrypt(source, MemorySink(), BROKER, platform=LINUX)
    assert caught.value.code == "platform_missing"


# --- written and read again -----------------------------------------------------------------------------------------


def test_encrypted_and_back() -> None:
    built = plain()
    sealed = encrypted(built)
    manifest = sealed.manifest
    assert all(entry.media_type.endswith("+encrypted") for entry in manifest.layers)
    assert sealed.config == built.config
    assert manifest.config.digest == built.manifest.config.digest
    assert [entry.size for entry in manifest.layers] == [entry.size for entry in built.manifest.layers]
    assert not any(MARKER in blob for blob in sealed.blobs.values())
    again = opened(sealed)
    assert [entry.digest for entry in again.manifest.layers] == [entry.digest for entry in built.manifest.layers]
    assert {**again.blobs} == built.blobs
    assert not any(entry.annotations for entry in again.manifest.layers)


def test_the_same_image_never_has_the_same_ciphertext() -> None:
    built = plain()
    first, second = encrypted(built), encrypted(built)
    assert not {entry.digest for entry in first.manifest.layers} & {entry.digest for entry in second.manifest.layers}


def test_for_a_broker_and_for_a_person() -> None:
    both = Recipients(BROKER.broker_keys, (EC_KEY.public_key(),))
    sealed = encrypted(recipients=both)
    assert opened(sealed).blobs == opened(sealed, ImageKeys((EC_KEY,))).blobs == plain().blobs


def test_docker_schema_2_becomes_oci() -> None:
    sink = MemorySink()
    result = encrypt(plain(docker=True).source, sink, BROKER, platform=LINUX)
    assert result.converted
    manifest = sink.built.manifest
    assert (manifest.media_type, sink.media_type) == (media_types.OCI_MANIFEST, media_types.OCI_MANIFEST)
    assert manifest.config.media_type == media_types.OCI_CONFIG
    assert [entry.media_type for entry in manifest.layers] == [
        f"application/vnd.oci.image.layer.v1.tar{suffix}+encrypted" for suffix in ("+gzip", "+zstd", "")
    ]


def test_what_a_manifest_says_besides_stays_and_embedded_data_goes() -> None:
    def change(document: dict[str, object]) -> None:
        document["annotations"] = {"note": "kept"}
        document["future"] = [1, "\U0001f600"]
        document["layers"][0].update(data="cGxhaW50ZXh0", urls=["http://elsewhere"])  # type: ignore[index]

    sealed = encrypted(altered(plain(), change))
    document = json.loads(sealed.raw)
    assert (document["annotations"], document["future"]) == ({"note": "kept"}, [1, "\U0001f600"])
    assert set(document["layers"][0]) == {"mediaType", "digest", "size", "annotations"}


def test_one_platform_of_an_index() -> None:
    arm, intel = image([layer({"a": b"arm"})], architecture="arm64"), plain()
    source = MemorySource(arm, intel, top=index_of({"linux/arm64": arm, "linux/amd64": intel}))
    sink = MemorySink()
    encrypt(source, sink, BROKER, platform=LINUX)
    assert sink.built.config == intel.config


def places(base: Path) -> list[tuple[Callable[[], ImageSink], Callable[[], ImageSource]]]:
    return [
        (lambda: LayoutSink(base / "layout", "v1"), lambda: LayoutSource(base / "layout", "v1")),
        (lambda: ArchiveSink(base / "a.tar", "v1"), lambda: ArchiveSource(base / "a.tar", None)),
        (lambda: DirectorySink(base / "dir"), lambda: DirectorySource(base / "dir")),
    ]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_on_disk(tmp_path: Path, which: int) -> None:
    open_sink, open_source = places(tmp_path)[which]
    for _ in range(2):  # over itself as well
        sink = open_sink()
        encrypt(plain().source, sink, BROKER, platform=LINUX)
        sink.close()
        back = MemorySink()
        decrypt(open_source(), back, ImageKeys(source=Keys()), platform=LINUX)
        assert back.blobs == plain().blobs
    left = [path.name for path in tmp_path.rglob("*") if path.name.startswith(".")]
    assert left == []


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_failure_on_disk_leaves_no_image_and_no_scraps(tmp_path: Path, which: int) -> None:
    open_sink, open_source = places(tmp_path)[which]
    built = plain()
    source = MemorySource(built)
    source.blobs[built.manifest.layers[2].digest] = b"another"
    sink = open_sink()
    with pytest.raises(DigestMismatch):
        encrypt(source, sink, BROKER, platform=LINUX)
    sink.close()
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".")] == []
    with pytest.raises(AdytonError):
        open_source().manifest()


def test_a_large_layer_in_constant_memory(tmp_path: Path) -> None:
    size = 64 << 20
    built = image([layer(bytes(size), "none")])
    built.write_layout(tmp_path / "in")
    source, sink = LayoutSource(tmp_path / "in", None), LayoutSink(tmp_path / "out", None)
    tracemalloc.start()
    try:
        encrypt(source, sink, BROKER, platform=LINUX)
        decrypt(
            LayoutSource(tmp_path / "out", None),
            LayoutSink(tmp_path / "back", None),
            ImageKeys(source=Keys()),
            platform=LINUX,
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20  # two queues of 1 MiB pieces


def test_description() -> None:
    both = Recipients(BROKER.broker_keys, (EC_KEY.public_key(),))
    sealed = encrypted(recipients=both)
    value = describe(sealed.manifest, sealed.config)
    assert value["encrypted"] == "all"
    first = json.loads(json.dumps(value))["layers"][0]
    assert first["recipients"] == [
        {"scheme": "provider.attestation-agent", "wrap": "A256GCM", "key": PATH.uri},
        {"scheme": "jwe", "wrap": "ECDH-ES+A256KW"},
    ]
    assert describe(plain().manifest, plain().config)["encrypted"] == "none"
    manifest = parse_manifest(sealed.raw)
    assert parse_config(sealed.blobs[manifest.config.digest], manifest) == sealed.config
