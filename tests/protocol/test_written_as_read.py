"""Every message and document that is written is read as the same, byte for byte again; a bit more in it is not read."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.errors import AdytonError, DocumentInvalid, MalformedRequest, PolicyInvalid
from adyton.protocol import backup, key_record, keys, peers, people, recording, release_rules, rules
from adyton.protocol.backup import LogState, Manifest
from adyton.protocol.recording import Appraised, Asked, Recording, RecordRules
from adyton.protocol.release import Binding
from adyton.rats.result import ELEMENTS

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: st.integers(-(2**63), 2**63 - 1),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bytes: st.binary(max_size=40),
    type(None): st.none(),
    Any: JSON,
    object: JSON,
    msgspec.Raw: JSON.map(lambda value: msgspec.Raw(msgspec.json.encode(value))),
}


def of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type as message structs use them."""
    if kind in PLAIN:
        return PLAIN[kind]
    origin, given_ = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return st.sampled_from(given_)
    if origin in {typing.Union, types.UnionType}:
        return st.one_of([of(one) for one in given_])
    if origin is list:
        return st.lists(of(given_[0]), max_size=3)
    if origin is tuple:
        if given_[-1] is Ellipsis:
            return st.lists(of(given_[0]), max_size=3).map(tuple)
        return st.tuples(*map(of, given_))
    if origin in {dict, Mapping}:
        return st.dictionaries(of(given_[0]), of(given_[1]), max_size=3)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{field.name: of(hints[field.name]) for field in msgspec.structs.fields(kind)})
    return st.from_type(kind)  # enumerations


STRUCTS: list[type[msgspec.Struct]] = [
    found
    for module in (keys, people, key_record, rules)
    for found in vars(module).values()
    if isinstance(found, type)
    and issubclass(found, msgspec.Struct)
    and found.__module__ == module.__name__
    and not found.__name__.startswith("_")
]


@pytest.mark.parametrize(
    "kind", [*STRUCTS, Binding, Manifest, LogState, peers.Hello, peers.Welcome], ids=lambda kind: kind.__name__
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_struct_is_read_as_it_was_written(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    value = data.draw(of(kind))
    written = msgspec.json.encode(value)
    read = msgspec.json.decode(written, type=kind)
    assert read == value and msgspec.json.encode(read) == written
    if kind.__struct_config__.forbid_unknown_fields:
        more = {**msgspec.json.decode(written), "one more": 1}
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(msgspec.json.encode(more), type=kind)


nonces = st.binary(min_size=32, max_size=32)
MESSAGES: list[tuple[Callable[[bytes], Any], st.SearchStrategy[Any]]] = [
    (peers.parse_hello, st.builds(peers.Hello, st.just("adyton-peer/1"), TEXTS, TEXTS)),
    (peers.parse_welcome, st.builds(peers.Welcome, nonces, TEXTS)),
    (peers.parse_join, st.builds(peers.Join, nonces, nonces, TEXTS, TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=3), of(msgspec.Raw))),
    (peers.parse_given, st.builds(peers.Given, TEXTS, of(msgspec.Raw), of(msgspec.Raw))),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(MESSAGES)))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_peers_messages(index: int, data: st.DataObject) -> None:
    parse, values = MESSAGES[index]
    written = peers.write(data.draw(values))
    assert peers.write(parse(written)) == written
    for wrong in (written[:-1], written + b"}", b"[" + written + b"]", written.replace(b"{", b'{"x":1,', 1)):
        with pytest.raises(MalformedRequest):
            parse(wrong)


@settings(max_examples=60, deadline=None)
@given(value=of(Manifest), key=nonces, other=nonces, data=st.data())
def test_a_backups_manifest(value: Manifest, key: bytes, other: bytes, data: st.DataObject) -> None:
    written = value.written()
    read = backup.parse(written)
    assert read == value and read.written() == written
    sealed = backup.parse(value.with_mac(key).written())
    assert sealed.is_authentic(key)
    assert key == other or not sealed.is_authentic(other)
    field = data.draw(st.sampled_from([one.name for one in msgspec.structs.fields(Manifest) if one.name != "format"]))
    changed = msgspec.structs.replace(sealed, **{field: getattr(data.draw(of(Manifest)), field)})
    assert changed == sealed or not changed.is_authentic(key)
    assert not msgspec.structs.replace(sealed, mac="\u00e9").is_authentic(key)  # whatever it is made of
    with pytest.raises(DocumentInvalid):
        backup.parse(written.replace(b"{", b'{"x": 1,', 1))


vectors = st.just(()) | st.lists(st.integers(-128, 127), min_size=len(ELEMENTS), max_size=len(ELEMENTS)).map(tuple)
appraised = st.builds(
    Appraised,
    TEXTS,
    TEXTS,
    TEXTS,
    st.dictionaries(TEXTS, JSON, max_size=3),
    vectors,
    st.lists(TEXTS, max_size=2).map(tuple),
)
recordings = st.builds(
    Recording,
    kind=st.just("attestation"),
    time=TEXTS,
    sequence=st.integers(0, 2**53),
    appraised=st.lists(appraised, max_size=2).map(tuple),
) | st.builds(Recording, kind=st.just("resource"), time=TEXTS, asked=of(Asked))


@settings(max_examples=60, deadline=None)
@given(value=recordings)
def test_a_recording(value: Recording) -> None:
    line = recording.encode(value)
    assert b"\n" not in line  # one line each, in a file
    read = recording.decode(line)
    assert read == value and recording.encode(read) == line
    with pytest.raises(DocumentInvalid):
        recording.decode(line[:-1])


@given(keep=st.integers(0, recording.MAX_KEPT), days=st.integers(1, recording.MAX_DAYS))
def test_rules_of_recording(keep: int, days: int) -> None:
    assert recording.parse(recording.written(RecordRules(keep, days))) == RecordRules(keep, days)
    for wrong in ((-1, days), (recording.MAX_KEPT + 1, days), (keep, 0), (keep, recording.MAX_DAYS + 1)):
        with pytest.raises(PolicyInvalid):
            recording.parse(recording.written(RecordRules(*wrong)))


names = st.from_regex(r"\A" + release_rules.POLICY_SET.pattern)
devices = st.dictionaries(st.sampled_from(sorted(release_rules.DEVICE_CLASSES)), st.integers(1, 64), max_size=3)
rule_documents = st.builds(release_rules.Rule, st.none() | names, devices)


@settings(max_examples=60, deadline=None)
@given(
    top=rule_documents,
    repositories=st.dictionaries(TEXTS, rule_documents, max_size=3),
    own=devices,
    named=st.none() | names,
)
def test_rules_of_release(
    top: release_rules.Rule,
    repositories: dict[str, release_rules.Rule],
    own: dict[str, int],
    named: str | None,
) -> None:
    document = {**msgspec.to_builtins(top), "repositories": msgspec.to_builtins(repositories)}
    read = release_rules.parse(msgspec.json.encode(document).decode())
    assert read.all == top and read.repositories == repositories
    for repository in (*repositories, "none such"):
        found = read.demand(repository, named, own)
        for demanded in (top.devices, own, repositories[repository].devices if repository in repositories else {}):
            assert all(found.devices[name] >= count for name, count in demanded.items())  # never fewer
        assert named is None or found.attestation == named  # the nearest counts
    for wrong in ({**document, "x": 1}, {**document, "devices": {"gpu": 0}}, {**document, "devices": {"tpu": 1}}):
        with pytest.raises(PolicyInvalid):
            release_rules.parse(msgspec.json.encode(wrong).decode())


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=200))
def test_any_bytes_give_a_value_or_an_error_of_ours(raw: bytes) -> None:
    readers: list[Callable[[bytes], Any]] = [
        *(parse for parse, _ in MESSAGES), backup.parse, recording.decode,
        lambda data: recording.parse(data.decode("latin-1")), lambda data: release_rules.parse(data.decode("latin-1")),
    ]  # fmt: skip
    for reader in readers:
        try:
            reader(raw)
        except AdytonError as error:
            assert error.code
