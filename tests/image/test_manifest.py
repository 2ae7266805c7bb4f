"""Manifests from strangers: each broken or two-faced document is refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import AdytonError, MalformedImage, UnsupportedImage
from adyton.image import manifest as manifests
from adyton.image import media_types
from adyton.image.manifest import Index, Manifest
from adyton.image.media_types import layer_format

DIGEST = "sha256:" + "0f" * 32
CONFIG = {"mediaType": media_types.OCI_CONFIG, "digest": DIGEST, "size": 10}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 20}


def document(**changes: object) -> bytes:
    value = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
    value.update(changes)
    return json.dumps({name: member for name, member in value.items() if member is not ...}).encode()


def index(*platforms: tuple[str, str, str | None]) -> bytes:
    entries = [
        {
            "mediaType": media_types.OCI_MANIFEST,
            "digest": f"sha256:{number:064x}",
            "size": 1,
            "platform": {"os": os, "architecture": architecture, **({"variant": variant} if variant else {})},
        }
        for number, (os, architecture, variant) in enumerate(platforms)
    ]
    return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "manifest_malformed"),
        (b"[]", "manifest_malformed"),
        (b"null", "manifest_malformed"),
        (b"\xff{}", "manifest_malformed"),
        (b"{}", "manifest_malformed"),
        (document()[:-1] + b', "schemaVersion": 2}', "manifest_malformed"),
        (document(note="\ud800"), "manifest_malformed"),
        (document(layers=...), "manifest_malformed"),
        (document(layers={}), "manifest_malformed"),
        (document(layers=[1]), "manifest_malformed"),
        (document(config=...), "manifest_malformed"),
        (document(config=[]), "manifest_malformed"),
        (document(schemaVersion="2"), "manifest_malformed"),
        (document(schemaVersion=3), "manifest_invalid"),
        (document(schemaVersion=True), "manifest_malformed"),
        (document(manifests=[]), "manifest_ambiguous"),
        (document(Layers=[]), "manifest_ambiguous"),
        (document(layers=[{**LAYER, "Digest": DIGEST}]), "manifest_ambiguous"),
        (document(config={**CONFIG, "MEDIATYPE": "x"}), "manifest_ambiguous"),
        (document(mediaType=media_types.OCI_INDEX), "manifest_invalid"),
        (document(mediaType="text/html"), "manifest_invalid"),
        (document(mediaType=7), "manifest_invalid"),
        (document(mediaType=[]), "manifest_invalid"),
        (document(mediaType={}), "manifest_invalid"),
        (document(LAYERS=[]).replace(b"LAYERS", "layerſ".encode()), "manifest_ambiguous"),  # Go folds it
        (document(layers=[{**LAYER, "platform": {"OS": "linux"}}]), "manifest_ambiguous"),
        (document(layers=[{**LAYER, "size": 1e999}]).replace(b"Infinity", b"1e999"), "manifest_malformed"),
        (document(layers=[{**LAYER, "digest": "sha256:../../etc/passwd"}]), "manifest_invalid"),
        (document(layers=[{**LAYER, "digest": DIGEST.upper()}]), "manifest_invalid"),
        (document(layers=[{**LAYER, "digest": "md5:" + "00" * 16}]), "manifest_invalid"),
        (document(layers=[{**LAYER, "size": -1}]), "manifest_invalid"),
        (document(layers=[{**LAYER, "size": 2**63}]), "manifest_invalid"),
        (document(layers=[{**LAYER, "size": 1.5}]), "manifest_malformed"),
        (document(layers=[{**LAYER, "size": "20"}]), "manifest_malformed"),
        (document(layers=[{**LAYER, "annotations": {"a": 1}}]), "manifest_malformed"),
        (document(layers=[LAYER] * 513), "manifest_invalid"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "manifest_malformed"),
        (document(annotations={"x": "y" * manifests.MAX_MANIFEST}), "manifest_malformed"),
    ],
)
def test_broken_manifests(raw: bytes, code: str) -> None:
    with pytest.raises(MalformedImage) as caught:
        manifests.parse(raw)
    assert caught.value.code == code


def test_schema_1_has_a_hint() -> None:
    with pytest.raises(UnsupportedImage, match="schema 1"):
        manifests.parse(b'{"schemaVersion": 1, "fsLayers": []}')


def test_the_registry_and_the_document_must_agree_on_the_type() -> None:
    with pytest.raises(MalformedImage):
        manifests.parse(document(), media_types.DOCKER_MANIFEST)
    with pytest.raises(MalformedImage):
        manifests.parse(document(mediaType=...), media_types.OCI_INDEX)
    parsed = manifests.parse(document(mediaType=...), media_types.DOCKER_MANIFEST)
    assert parsed.media_type == media_types.DOCKER_MANIFEST


def test_unknown_members_are_ignored_as_the_specification_asks() -> None:
    parsed = manifests.parse(document(future={"a": [1]}))
    assert isinstance(parsed, Manifest)
    assert [str(layer.digest) for layer in parsed.layers] == [DIGEST]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}},
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIGEST, DIGEST]}},
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:zz"]}},
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "other", "diff_ids": [DIGEST]}},
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}, "config": 1},
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
            "config": {"Cmd": "sh"},
        },
        {"architecture": 1, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}},
    ],
)
def test_broken_configurations(config: object) -> None:
    parsed = manifests.parse_manifest(document())
    with pytest.raises(MalformedImage):
        manifests.parse_config(json.dumps(config).encode(), parsed)


def test_configuration_with_nulls_as_docker_writes_them() -> None:
    raw = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": None, "Env": ["A=b"], "Volumes": None, "Entrypoint": ["/x"], "Image": ""},
            "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        }
    ).encode()
    config = manifests.parse_config(raw, manifests.parse_manifest(document()))
    assert (config.run.cmd, config.run.env, config.run.entrypoint) == (None, ["A=b"], ["/x"])
    assert str(config.diff_ids[0]) == DIGEST


def test_an_artifact_is_not_an_image() -> None:
    parsed = manifests.parse_manifest(document(config={**CONFIG, "mediaType": "application/vnd.unknown"}))
    with pytest.raises(UnsupportedImage):
        manifests.parse_config(b"{}", parsed)


def test_platforms() -> None:
    parsed = manifests.parse(index(("unknown", "unknown", None), ("linux", "arm", "v6"), ("linux", "arm", "v7")))
    assert isinstance(parsed, Index)
    assert manifests.choose_platform(parsed, "linux", "arm").digest.hex.endswith("1")
    assert manifests.choose_platform(parsed, "linux", "arm", "v7").digest.hex.endswith("2")
    with pytest.raises(UnsupportedImage) as caught:
        manifests.choose_platform(parsed, "linux", "amd64")
    assert "linux/arm/v7" in str(caught.value.got)
    with pytest.raises(UnsupportedImage, match="index"):
        manifests.parse_manifest(parsed.raw)


@pytest.mark.parametrize("text", ["", "+encrypted", "text/html", "application/vnd.oci.image.layer.v1.tar+lzma"])
def test_unknown_layer_types(text: str) -> None:
    with pytest.raises(UnsupportedImage):
        layer_format(text)


def test_layer_types() -> None:
    docker = layer_format("application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted")
    assert (docker.compression, docker.encrypted) == ("gzip", True)
    assert docker.media_type == "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
    assert layer_format("application/vnd.oci.image.layer.v1.tar+zstd").compression == "zstd"


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["schemaVersion", "layers", "config", "manifests", "digest", "x"]), inner)
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_a_manifest_or_an_error_of_ours(raw: bytes) -> None:
    try:
        parsed = manifests.parse(raw)
    except AdytonError:
        return
    assert parsed.raw == raw
