"""Documents that their provider signed, and that say something which cannot be taken: each part, refused by name."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.formats import encode_canonical
from tests.provenance import signing
from tests.provenance.signing import HASH, IN_TOTO, NOW, OWNER, P256, RSA, SLSA, Chain

from adyton.errors import AdytonError, DocumentInvalid
from adyton.provenance import Settings, keys, plain, provider, read
from adyton.provenance.provider import UNSIGNED


def refused(document: bytes, *, code: str | None = None, **entry: Any) -> DocumentInvalid:
    with pytest.raises(AdytonError) as caught:
        read(document, signing.entry(**entry), now=NOW)
    assert isinstance(caught.value, DocumentInvalid), caught.value
    assert code is None or caught.value.code == code, caught.value.as_dict()
    return caught.value


@cache
def written() -> dict[str, bytes]:
    with TemporaryDirectory() as name:
        return {path.name: path.read_bytes() for path in Chain(Path(name)).write().iterdir()}


def resigned(name: str, content: Any, key: signing.Private) -> bytes:
    text = encode_canonical(content)
    assert text is not None
    signature = {"keyid": signing.in_toto_key(key)["keyid"], "sig": signing.sign(key, text.encode()).hex()}
    block = json.dumps({"signed": content, "signatures": [signature]}).encode()
    return signing.bundle(Path("/nowhere"), **written() | {name: block})


def changed(content: Any, path: str, value: Any) -> Any:
    """A copy with one member replaced, or removed where ``value`` is ``...``."""
    copied = copy.deepcopy(content)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place = copied
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return copied


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("_type", "link"),
        ("_type", ...),
        ("expires", "2099-12-01"),
        ("expires", "2099-12-01T00:00:00+00:00"),
        ("expires", "2099-13-01T00:00:00Z"),
        ("expires", None),
        ("keys", []),
        ("keys", {f"{number:064x}": {} for number in range(65)}),
        ("steps", {}),
        ("steps", ["x"]),
        ("steps", ...),
        ("inspect", None),
        ("inspect", ["x"]),
        ("steps/0/_type", "inspection"),
        ("steps/0/name", "../write"),
        ("steps/0/name", 5),
        ("steps/0/name", "build"),
        ("steps/0/threshold", 2**70),
        ("steps/0/threshold", None),
        ("steps/0/pubkeys", "x"),
        ("steps/0/pubkeys", ["unknown"]),
        ("steps/0/pubkeys", [5]),
        ("steps/0/expected_products", {}),
        ("steps/0/expected_products", [["CREATE", "*"]] * 501),
        ("steps/0/expected_products", [["CREATE"]]),
        ("steps/0/expected_products", [["MATCH", "*", "WITH", "PRODUCTS"]]),
        ("steps/0/expected_products", [["MATCH", "*", "WITH", "PRODUCTS", "FROM", ""]]),
        ("steps/0/expected_products", [["DESTROY", "*"]]),
        ("steps/0/expected_materials", [5]),
    ],
)
def test_layouts(path: str, value: Any) -> None:
    content = json.loads(written()["root.layout"])["signed"]
    refused(resigned("root.layout", changed(content, path, value), OWNER))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("_type", "statement"),
        ("name", "other"),
        ("materials", []),
        ("products", None),
        ("products", {}),
        ("products", {"out/": {"sha256": HASH}}),
        ("products/out~guest.erofs", {}),
        ("products/out~guest.erofs", {"sha256": 5}),
        ("products/out~guest.erofs", {"md5": "00" * 16}),
        ("products/out~guest.erofs", {"sha256": HASH[:-1]}),
        ("products/elsewhere~guest.erofs", {"sha256": HASH}),
    ],
)
def test_links(path: str, value: Any) -> None:
    (name,) = [name for name in written() if name.startswith("build.")]
    content = json.loads(written()[name])["signed"]
    head, slash, last = path.partition("/")
    copied = copy.deepcopy(content)
    if slash:
        copied[head][last.replace("~", "/")] = value
    else:
        copied[head] = value
    refused(resigned(name, copied, RSA))


@pytest.mark.parametrize(
    "root",
    [
        [],
        {"signed": []},
        {"signed": {}, "signatures": {}},
        {"signed": {}, "signatures": [{}] * 17},
        {"signed": {}, "signatures": [{"keyid": "x", "sig": "zz"}]},
        {"signed": {}, "signatures": ["x"]},
        {"signed": {}, "signatures": [{"keyid": "x", "sig": "00", "other_headers": "00"}]},
        {"signed": {"x": 1.5}, "signatures": []},
        {"payload": "e30=", "payloadType": "text/plain", "signatures": []},
    ],
)
def test_blocks(root: Any) -> None:
    encoded = json.dumps(root).encode()
    refused(signing.bundle(Path("/nowhere"), **{"root.layout": encoded}), code="in_toto_malformed")


def test_files_that_are_no_json() -> None:
    refused(signing.bundle(Path("/nowhere"), **{"root.layout": b"{"}), code="document_malformed")


@pytest.mark.parametrize(
    "change",
    [
        {"payloadType": ""},
        {"payloadType": 5},
        {"payload": 5},
        {"payload": "e30"},
        {"payload": "e-_0="},
        {"signatures": {}},
        {"signatures": [5]},
        {"signatures": [{"sig": 5}]},
        {"signatures": [{"sig": ""}] * 17},
    ],
)
def test_envelopes(change: dict[str, Any]) -> None:
    for kind, document in ((plain.MEDIA_TYPE, signing.plain()), (IN_TOTO, signing.provenance())):
        value = json.loads(signing.envelope(document, kind, OWNER)) | change
        refused(json.dumps(value).encode(), **SLSA)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    "change",
    [
        {"predicate": 5},
        {"predicate": {"runDetails": 5, "metadata": 5, "builder": 5}},
        {"_type": "https://in-toto.io/Statement/v9"},
    ],
)
def test_statements(version: int, change: dict[str, Any]) -> None:
    refused(signing.envelope(signing.provenance(version) | change, IN_TOTO, OWNER), code="document_malformed", **SLSA)


@pytest.mark.parametrize("subject", [["x"], [{"digest": {"sha256": HASH}}], [{"name": "x"}], {}])
def test_subjects(subject: Any) -> None:
    refused(signing.envelope(signing.provenance(subject=subject), IN_TOTO, OWNER), **SLSA)


def test_links_are_not_statements() -> None:
    refused(signing.envelope({"_type": "link"}, IN_TOTO, OWNER), code="document_unrecognised", **SLSA)
    refused(signing.envelope(b"[", IN_TOTO, OWNER), code="document_unrecognised", **SLSA)


@pytest.mark.parametrize(
    "values", [{"x": 1.5, "y": [2.5, {"z": None}]}, {"x": [1, {"a": "b"}]}], ids=["floats", "whole"]
)
def test_unsigned_values_have_a_digest_whatever_they_hold(values: dict[str, Any]) -> None:
    who = signing.entry(accept=[UNSIGNED])
    first = read(json.dumps(signing.plain(values)).encode(), who, now=NOW)
    other = read(json.dumps(signing.plain(values | {"x": "1.5"})).encode(), who, now=NOW)
    assert first.proof != other.proof


def test_unsigned_documents_of_another_form() -> None:
    refused(b'{"values": 1, "issue": 2}', accept=[UNSIGNED], code="document_malformed")
    listed = signing.envelope([1], plain.MEDIA_TYPE, OWNER)
    refused(listed, code="document_malformed")


# Keys


def spki(public: Any) -> str:
    text: str = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return text


def test_keys_of_other_kinds() -> None:
    for public in (
        rsa.generate_private_key(65537, 1024).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ed448.Ed448PrivateKey.generate().public_key(),
    ):
        with pytest.raises(DocumentInvalid):
            keys.from_pem(spki(public))
    for text in ("", "x" * 20_000, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "ü"):
        with pytest.raises(DocumentInvalid):
            keys.from_pem(text)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("keyid", "another"),
        ("keytype", "gpg"),
        ("keytype", "ecdsa"),
        ("keytype", 5),
        ("scheme", "rsa-pkcs1v15-sha256"),
        ("scheme", "ed25519"),
        ("keyval", "x"),
        ("keyval/public", "zz"),
        ("keyval/private", "00"),
    ],
)
def test_keys_of_layouts(path: str, value: Any) -> None:
    for key in (OWNER, RSA, P256):
        member = signing.in_toto_key(key)
        if changed(member, path, value) == member or (path, value, key) in {
            ("keytype", "ecdsa", P256),
            ("scheme", "ed25519", OWNER),
        }:
            continue
        with pytest.raises(DocumentInvalid):
            keys.from_in_toto(changed(member, path, value), member["keyid"])
    with pytest.raises(DocumentInvalid):
        keys.from_in_toto([], "x")


def test_older_names_of_key_types() -> None:
    member = signing.in_toto_key(P256) | {"keytype": "ecdsa-sha2-nistp256"}
    assert keys.from_in_toto(member, member["keyid"]).id == keys.from_pem(signing.pem(P256)).id
    for scheme in ("rsassa-pss-sha384", "rsassa-pss-sha512"):
        member = signing.in_toto_key(RSA) | {"scheme": scheme}
        assert keys.from_in_toto(member, member["keyid"]).scheme == scheme


def test_signatures_of_another_length_do_not_raise() -> None:
    for key in (OWNER, P256, RSA):
        for signature in (b"", b"\x00" * 64, b"\x30\x00", b"\xff" * 256):
            assert not keys.from_pem(signing.pem(key)).verifies(signature, b"")


# CoMID's remaining corners


@pytest.mark.parametrize(
    "content",
    [
        5,
        {},
        {1: {0: "t"}, 4: {0: 5}},
        {1: {0: "t"}, 4: {0: [5]}},
        {1: {0: "t"}, 4: {0: [[{0: {1: "A"}}, []]]}},
        {1: {0: "t"}, 4: {0: [[{0: {1: "A"}}, [{0: [], 1: {1: 1}}]]]}},
        {1: {0: "t"}, 4: {0: [[{0: {1: "A"}}, [{1: {14: 5}}]]]}},
        {1: {0: "t"}, 4: {0: [[{0: {1: "A"}}, [{1: {2: 5}}]]]}},
        {1: {0: "t"}, 4: {0: [[{0: {1: "A"}}, [{1: {1: 1}, 0: "registers"}, {1: {14: {"svn": [[1, bytes(32)]]}}}]]]}},
    ],
)
def test_comids(content: Any) -> None:
    tag = cbor2.CBORTag(506, cbor2.dumps(content))
    refused(signing.cose(signing.corim(tag), OWNER), code="corim_malformed")


def test_too_many_values() -> None:
    many = [{0: number, 1: {1: 1}} for number in range(2001)]
    refused(signing.cose(signing.corim(signing.comid(*many)), OWNER), code="corim_malformed")
    names = {f"n{number}": 1 for number in range(10)}
    assert (
        len(read(signing.envelope(signing.plain(names), plain.MEDIA_TYPE, OWNER), signing.entry(), now=NOW).values)
        == 10
    )


def test_an_entry_without_keys_reads_nothing_signed() -> None:
    who = provider("x", Settings(names=["*"], kinds=["json"], accept=[UNSIGNED]))
    with pytest.raises(DocumentInvalid):
        read(signing.envelope(signing.plain(), plain.MEDIA_TYPE, OWNER), who, now=NOW)
