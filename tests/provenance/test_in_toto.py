"""in-toto: each way to be refused, agreement with the reference library, then what is read."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import in_toto.exceptions
import pytest
import securesystemslib.exceptions
from hypothesis import given, settings
from hypothesis import strategies as st
from in_toto import rulelib, verifylib
from in_toto.models.layout import Inspection, Layout, Step
from in_toto.models.link import Link
from in_toto.models.metadata import Metadata
from securesystemslib.formats import encode_canonical
from tests.provenance import signing
from tests.provenance.signing import HASH, NOW, OTHER, OWNER, P256, P384, RSA, STRANGER, Chain

from adyton.errors import AdytonError, DocumentInvalid
from adyton.provenance import olpc, read
from adyton.provenance.in_toto_rules import Recorded, apply, parse
from adyton.provenance.provider import NO_INSPECTIONS


@pytest.fixture(params=[False, True], ids=["metablock", "dsse"])
def chain(tmp_path: Path, request: pytest.FixtureRequest) -> Chain:
    return Chain(tmp_path, dsse=request.param)


def refused(document: bytes, code: str, **entry: Any) -> AdytonError:
    with pytest.raises(AdytonError) as caught:
        read(document, signing.entry(**entry), now=NOW)
    assert caught.value.code == code, caught.value.as_dict()
    return caught.value


def library(folder: Path, owner: signing.Private = OWNER) -> Any:
    """The reference library's word on the same folder; it reads the clock, so layouts expire in 2099."""
    key = signing.in_toto_key(owner)
    return verifylib.in_toto_verify(Metadata.load(str(folder / "root.layout")), {key["keyid"]: key}, str(folder))


def test_a_strangers_layout_is_refused_though_its_key_comes_with_it(tmp_path: Path) -> None:
    folder = Chain(tmp_path, STRANGER).write()
    refused(signing.bundle(folder, **{"alice.pub": signing.pem(STRANGER).encode()}), "provenance_unsigned")


def test_an_expired_layout(chain: Chain) -> None:
    chain.layout.expires = "2026-05-31T23:59:59Z"
    refused(chain.document(), "document_expired")
    chain.layout.expires = "2026-06-01T00:00:00Z"
    refused(chain.document(), "document_expired")


def test_a_missing_link(chain: Chain) -> None:
    del chain.links[0]
    refused(chain.document(), "in_toto_threshold")


def test_a_link_by_someone_who_may_not(chain: Chain) -> None:
    folder = chain.write()
    stranger = chain.wrapped(chain.links[1][0], STRANGER)
    keyid = signing.in_toto_key(chain.build)["keyid"]
    stranger.dump(str(folder / f"build.{keyid[:8]}.link"))
    refused(signing.bundle(folder), "in_toto_threshold")


def test_a_link_of_another_step_under_this_steps_name(chain: Chain) -> None:
    chain.layout.steps[0].pubkeys.append(signing.in_toto_key(RSA)["keyid"])
    folder = chain.write()
    (folder / f"write.{signing.in_toto_key(P256)['keyid'][:8]}.link").unlink()
    keyid = signing.in_toto_key(RSA)["keyid"][:8]
    (folder / f"build.{keyid}.link").rename(folder / f"write.{keyid}.link")
    chain.wrapped(chain.links[1][0], RSA).dump(str(folder / f"build.{keyid}.link"))
    refused(signing.bundle(folder), "in_toto_malformed")


def test_changed_products(chain: Chain) -> None:
    folder = chain.write()
    path = folder / f"build.{signing.in_toto_key(chain.build)['keyid'][:8]}.link"
    content = json.loads(path.read_bytes())
    if chain.dsse:
        payload = base64.b64decode(content["payload"]).replace(HASH.encode(), OTHER.encode())
        content["payload"] = base64.b64encode(payload).decode()
    else:
        content["signed"]["products"]["out/guest.erofs"]["sha256"] = OTHER
    path.write_text(json.dumps(content))
    refused(signing.bundle(folder), "in_toto_threshold")


def test_materials_that_the_first_step_did_not_make(chain: Chain) -> None:
    chain.links[0][0].products["src/main.c"]["sha256"] = HASH
    refused(chain.document(), "in_toto_rule")


def test_more_came_out_than_the_layout_allows(chain: Chain) -> None:
    chain.links[1][0].products["other/backdoor"] = {"sha256": HASH}
    refused(chain.document(), "in_toto_rule")


def test_inspections_are_not_run(chain: Chain, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    chain.layout.inspect = [Inspection(name="touch", run=["touch", str(marker)])]
    document = chain.document()
    refused(document, "in_toto_inspections")
    statement = read(document, signing.entry(accept=[NO_INSPECTIONS]), now=NOW)
    assert statement.warnings == ("inspection 'touch' was not run",)
    assert not marker.exists()


def two(chain: Chain, threshold: int = 2) -> signing.Private:
    """The second step done by two."""
    other = P384
    key = signing.in_toto_key(other)
    chain.layout.keys[key["keyid"]] = key
    chain.layout.steps[1].pubkeys.append(key["keyid"])
    chain.layout.steps[1].threshold = threshold
    return other


def test_threshold(chain: Chain) -> None:
    other = two(chain)
    refused(chain.document(), "in_toto_threshold")
    chain.links.append((chain.links[1][0], other))
    folder = chain.write()
    library(folder)
    assert read(signing.bundle(folder), signing.entry(), now=NOW).values["guest.erofs"].value == [HASH]


@pytest.mark.parametrize("threshold", [1, 2])
def test_functionaries_who_disagree(chain: Chain, threshold: int) -> None:
    other = two(chain, threshold)
    differs = Link(name="build", materials=chain.links[1][0].materials, products={"out/guest.erofs": {"sha256": OTHER}})
    chain.links.append((differs, other))
    refused(chain.document(), "in_toto_disagree")


def test_one_key_under_two_ids_is_one_functionary(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    key = signing.in_toto_key(RSA)
    twin = key | {"keyid": "0f" * 32}
    chain.layout.keys["0f" * 32] = twin
    chain.layout.steps[1].pubkeys.append("0f" * 32)
    chain.layout.steps[1].threshold = 2
    folder = chain.write()
    link = json.loads((folder / f"build.{key['keyid'][:8]}.link").read_bytes())
    link["signatures"][0]["keyid"] = "0f" * 32
    (folder / "build.0f0f0f0f.link").write_text(json.dumps(link))
    library(folder)  # the reference library counts ids
    refused(signing.bundle(folder), "in_toto_threshold")


def test_a_layout_in_a_links_place(chain: Chain) -> None:
    folder = chain.write()
    keyid = signing.in_toto_key(chain.build)["keyid"]
    chain.wrapped(Layout(expires="2099-12-01T00:00:00Z"), chain.build).dump(str(folder / f"build.{keyid[:8]}.link"))
    assert "delegation" in str(refused(signing.bundle(folder), "in_toto_malformed").hint)


def test_a_layout_without_steps(chain: Chain) -> None:
    chain.layout.steps = []
    refused(chain.document(), "in_toto_malformed")


def test_a_step_that_anybody_may_do(chain: Chain) -> None:
    chain.layout.steps[1].pubkeys = []
    refused(chain.document(), "in_toto_malformed")


def test_a_threshold_of_nobody(tmp_path: Path) -> None:
    for threshold in (0, -1, True, "1"):
        chain = Chain(tmp_path)
        content = json.loads(json.dumps(chain.wrapped(chain.layout, OWNER).to_dict()["signed"]))
        content["steps"][1]["threshold"] = threshold
        signed = signing.sign(OWNER, encode_canonical(content).encode())
        root = {"signed": content, "signatures": [{"keyid": signing.in_toto_key(OWNER)["keyid"], "sig": signed.hex()}]}
        folder = chain.write()
        (folder / "root.layout").write_text(json.dumps(root))
        refused(signing.bundle(folder), "in_toto_malformed")


def test_rules_that_would_take_hours(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.layout.steps[1].expected_products = [["ALLOW", f"*{number}*"] for number in range(500)]
    chain.links[1][0].products = {f"out/{number}": {"sha256": HASH} for number in range(5000)}
    assert refused(chain.document(), "in_toto_malformed").field == "steps"


def test_gpg_keys(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    (keyid,) = chain.layout.steps[1].pubkeys
    chain.layout.keys[keyid] = chain.layout.keys[keyid] | {"scheme": "pgp+rsa-pkcsv1.5"}
    refused(chain.document(), "provider_key_invalid")


@pytest.mark.parametrize(
    "change",
    [
        {"version": "0.8"},
        {"line_normalization": 1},
        {"files": []},
        {"files": {}},
        {"files": {"a.layout": "!"}},
        {"files": {"a.layout": "e30=", "b.layout": "e30="}},
        {"files": {"a.layout": "e30=", "x/a.layout": "e30="}},
    ],
)
def test_malformed_documents(change: dict[str, Any]) -> None:
    document = {"version": "0.9", "line_normalization": False, "files": {"a.layout": "e30="}} | change
    refused(json.dumps(document).encode(), "in_toto_malformed")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = Chain(tmp_path_factory.mktemp("chain")).write()
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@settings(deadline=None)
@given(st.integers(0, 2), st.integers(0, 2**20), st.integers(0, 7))
def test_one_flipped_bit_in_any_file_never_says_anything_else(
    written: dict[str, bytes], which: int, at: int, bit: int
) -> None:
    whole = read(signing.bundle(Path("/nowhere"), **written), signing.entry(), now=NOW)
    name = list(written)[which]
    changed = bytearray(written[name])
    changed[at % len(changed)] ^= 1 << bit
    try:
        found = read(signing.bundle(Path("/nowhere"), **written | {name: bytes(changed)}), signing.entry(), now=NOW)
    except AdytonError:
        return
    assert (found.values, found.proof) == (whole.values, whole.proof)


@pytest.mark.parametrize("owner", [OWNER, P256, P384, RSA], ids=["ed25519", "p256", "p384", "rsa"])
@pytest.mark.parametrize("dsse", [False, True], ids=["metablock", "dsse"])
def test_what_the_library_writes_is_read_and_what_is_read_it_verifies(
    tmp_path: Path, owner: signing.Private, dsse: bool
) -> None:
    chain = Chain(tmp_path, owner, dsse=dsse)
    folder = chain.write()
    summary = library(folder, owner)
    statement = read(signing.bundle(folder), signing.entry(owner), now=NOW)
    assert {name: stated.value for name, stated in statement.values.items()} == {
        Path(path).name: list(digest.values()) for path, digest in summary.products.items()
    }
    assert statement.not_after is not None and statement.not_after.year == 2099
    assert statement.kind == "in-toto" and len(statement.signers) == 1


# Canonical JSON and rules: the same as the reference library, whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(JSON)
def test_canonical_json_is_the_librarys(value: Any) -> None:
    theirs = encode_canonical(value)
    assert theirs is not None
    assert olpc.canonical(value) == theirs.encode()


def test_no_canonical_form() -> None:
    for value in (1.5, {1: 2}, {"a": b""}):
        with pytest.raises((ValueError, AttributeError, TypeError)):
            olpc.canonical(value)


PATHS = st.sampled_from(["a", "b", "a/b", "a/c", "x/a", "x/y/b", "[a]", "a*"])
GLOBS = st.sampled_from(["*", "a", "a/*", "?", "[ab]", "x/*/b", "*/b", "[!a]", "[", "a*", "[]a]"])
PREFIX = st.sampled_from(["", "a", "a/", "x", "x/y", "/"])
ARTIFACTS = st.dictionaries(PATHS, st.sampled_from([{"sha256": HASH}, {"sha256": OTHER}]))
MATCH = st.tuples(
    GLOBS, PREFIX, st.sampled_from(["MATERIALS", "products"]), PREFIX, st.sampled_from(["one", "two", "none"])
).map(lambda it: rulelib.pack_rule("MATCH", it[0], it[1] or None, it[2], it[3] or None, it[4]))
RULES = st.lists(
    MATCH | st.tuples(st.sampled_from(["CREATE", "delete", "MODIFY", "Allow", "DISALLOW", "REQUIRE"]), GLOBS).map(list),
    max_size=6,
)


@settings(max_examples=400, deadline=None)
@given(RULES, ARTIFACTS, ARTIFACTS, ARTIFACTS, ARTIFACTS, st.sampled_from(["materials", "products"]))
def test_rules_are_the_librarys(rules: Any, a: Any, b: Any, c: Any, d: Any, kind: str) -> None:  # noqa: PLR0917
    links = {"one": Link(name="one", materials=a, products=b), "two": Link(name="two", materials=c, products=d)}
    try:
        verifylib.verify_item_rules("one", kind, rules, links)
        theirs = True
    except (securesystemslib.exceptions.FormatError, in_toto.exceptions.RuleVerificationError):
        theirs = False
    try:
        apply([parse(rule, "x") for rule in rules], "one", kind, {"one": Recorded(a, b), "two": Recorded(c, d)})
        ours = True
    except DocumentInvalid:
        ours = False
    assert ours == theirs


@given(
    st.lists(
        st.sampled_from(["MATCH", "a", "IN", "WITH", "PRODUCTS", "materials", "FROM", "s", "CREATE", "x"]), max_size=9
    )
)
def test_what_is_a_rule_is_the_librarys_word(words: list[str]) -> None:
    try:
        rulelib.unpack_rule(list(words))
        theirs = True
    except (securesystemslib.exceptions.FormatError, in_toto.exceptions.RuleVerificationError):
        theirs = False
    try:
        parse(words, "x")
        ours = True
    except DocumentInvalid:
        ours = False
    assert ours == theirs


def test_steps_of_the_library_are_steps() -> None:
    assert Step(name="x").expected_materials == []
