"""The workload document: what cannot be enforced is refused, what is written is read back, bytes decide the digest."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import DocumentInvalid
from adyton.protocol import initdata, workload
from adyton.protocol.workload import Broker, EnvPattern, Mount, Port, Workload

IMAGE = "sha256:" + "ab" * 32
PIN = "sha256:" + "cd" * 32


def document(**members: Any) -> Workload:
    return Workload(**{"image": IMAGE, "command": ["/bin/true"], **members})


def init(table: str, algorithm: str = "sha256") -> bytes:
    return initdata.write({workload.KEY: table}, algorithm)


TABLE = f'image = "{IMAGE}"\ncommand = ["/bin/true"]\n'

# Refused


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"image": "busybox:latest"}, "image"),
        ({"image": "sha256:" + "ab" * 31}, "image"),
        ({"image": "sha512:" + "ab" * 64}, "image"),
        ({"image": IMAGE.upper()}, "image"),
        ({"command": []}, "command"),
        ({"command": ["a\0b"]}, "command"),
        ({"cwd": "relative"}, "cwd"),
        ({"cwd": "/a/../b"}, "cwd"),
        ({"cwd": ""}, "cwd"),
        ({"mounts": [Mount(path="data", kind="host")]}, "mounts"),
        ({"mounts": [Mount(path="/a/..", kind="host")]}, "mounts"),
        ({"mounts": [Mount(path="/a\0", kind="host")]}, "mounts"),
        ({"mounts": [Mount(path="/", kind="volume")]}, "mounts"),
        ({"mounts": [Mount(path="//a", kind="volume")]}, "mounts"),
        ({"mounts": [Mount(path="/a/", kind="volume")]}, "mounts"),
        ({"mounts": [Mount(path="/a/./b", kind="volume")]}, "mounts"),
        ({"mounts": [Mount(path="/proc", kind="volume")]}, "mounts"),
        ({"mounts": [Mount(path="/proc/1", kind="volume")]}, "mounts"),
        ({"mounts": [Mount(path="/a", kind="host"), Mount(path="/a", kind="tmpfs")]}, "mounts"),
        ({"env": {"1A": "x"}}, "env"),
        ({"env": {"": "x"}}, "env"),
        ({"env": {"A=B": "x"}}, "env"),
        ({"env": {"A": "x\0"}}, "env"),
        ({"env": {"A": EnvPattern("(")}}, "env"),
        ({"env": {"A\n": "x"}}, "env"),
        ({"logs": True}, "logs"),
        ({"ports": [Port(0)], "network": "bridge"}, "ports"),
        ({"ports": [Port(65536)], "network": "bridge"}, "ports"),
        ({"ports": [Port(80)]}, "ports"),
        ({"broker": Broker("https://broker")}, "broker.pin"),
        ({"broker": Broker("https://broker", "sha256:00")}, "broker.pin"),
        ({"broker": Broker("ftp://broker", PIN)}, "broker.url"),
        ({"broker": Broker("", PIN)}, "broker.url"),
    ],
)
def test_what_cannot_be_enforced_is_not_written(members: dict[str, Any], field: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        workload.write(document(**members))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "table",
    [
        "",
        "image = 5",
        'image = "x',
        TABLE + "unknown = 1\n",
        TABLE + 'network = "wild"\n',
        TABLE + "debug = 1\n",
        TABLE + 'logs = "file"\n',
        TABLE + "logs = true\n",
        TABLE + "user = 0\n",
        TABLE + "[[mounts]]\npath = '/a'\nkind = 'nfs'\n",
        TABLE + "[[mounts]]\npath = '/a'\nkind = 'host'\nmode = 'rwx'\n",
        TABLE + "[[mounts]]\npath = '/a'\nkind = 'host'\nsource = '/etc'\n",
        TABLE + "[[ports]]\ncontainer = 80\nprotocol = 'udp'\n",
        TABLE + "[broker]\nurl = 'http://b'\ntenant = 'x'\n",
        TABLE + "[env]\nA = { pattern = 'x', also = 'y' }\n",
        TABLE + "[env]\nA = 1\n",
        TABLE + TABLE,
        "a = " + "[" * 5000,
    ],
)
def test_tables_that_are_no_workload(table: str) -> None:
    with pytest.raises(DocumentInvalid):
        workload.parse(init(table))


def test_every_truncation_of_a_document_is_refused_or_is_another_document() -> None:
    raw = workload.write(document(env={"A": "1"}, cwd="/w")).raw
    for length in range(len(raw)):
        try:
            cut = workload.parse(raw[:length])
        except DocumentInvalid:
            continue
        assert cut.digest != workload.parse(raw).digest


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_only_the_digest_that_fits_host_data(algorithm: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        workload.parse(init(TABLE, algorithm))
    assert caught.value.code == "workload_algorithm"


def test_init_data_of_others_is_no_workload() -> None:
    with pytest.raises(DocumentInvalid) as caught:
        workload.parse(initdata.write({"aa.toml": "x"}))
    assert caught.value.code == "workload_missing"


@pytest.mark.parametrize(
    ("pattern", "value"),
    [("[0-9]+", "12a"), ("[0-9]+", "a12"), ("[0-9]+", "12\n"), ("a|b", "ab"), ("", "x"), (".*", "a\n")],
)
def test_patterns_hold_for_the_whole_value(pattern: str, value: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        workload.allowed_env(document(env={"A": EnvPattern(pattern)}), {"A": value})
    assert (caught.value.code, caught.value.got) == ("env_not_allowed", None)  # values may be secrets


# Accepted


def test_what_is_not_listed_is_dropped_and_exact_values_stand() -> None:
    listed = document(env={"A": "1", "B": EnvPattern("[a-z]*"), "C": EnvPattern(".*")})
    assert workload.allowed_env(listed, {"A": "2", "B": "ok", "D": "x"}) == {"A": "1", "B": "ok"}
    assert workload.allowed_env(document(), {"A": "2"}) == {}


def test_the_digest_is_over_the_bytes() -> None:
    raw = workload.write(document()).raw
    assert workload.parse(raw).digest.value == hashlib.sha256(raw).digest()
    spaced = raw + b"\n"
    assert workload.parse(spaced).workload == workload.parse(raw).workload
    assert workload.parse(spaced).digest != workload.parse(raw).digest


def test_other_entries_stay_and_are_measured() -> None:
    written = workload.write(document(), {"aa.toml": "[token_configs]\n"})
    assert workload.parse(written.raw).data["aa.toml"] == "[token_configs]\n"
    assert written.digest != workload.write(document()).digest


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
names = st.from_regex(re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}"), fullmatch=True)
paths = st.lists(text.filter(lambda part: "/" not in part and part != ".."), max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)
mount_points = paths.map(workload.normal_path).filter(lambda path: path != "/" and path.split("/")[1] != "proc")
documents = st.builds(
    Workload,
    image=st.binary(min_size=32, max_size=32).map(lambda digest: f"sha256:{digest.hex()}"),
    command=st.lists(text, min_size=1, max_size=4),
    cwd=paths,
    user=text,
    env=st.dictionaries(names, text | text.map(re.escape).map(EnvPattern), max_size=4),
    mounts=st.lists(
        st.builds(
            Mount,
            path=mount_points,
            kind=st.sampled_from(["tmpfs", "volume", "host"]),
            mode=st.sampled_from(["ro", "rw"]),
        ),
        max_size=3,
        unique_by=lambda mount: mount.path,
    ),
    ports=st.lists(st.builds(Port, container=st.integers(1, 65535)), max_size=2),
    network=st.sampled_from(["host", "bridge"]),
    broker=st.none() | st.builds(Broker, url=text.map(lambda rest: f"https://{rest}"), pin=st.just(PIN)),
    terminal=st.booleans(),
    debug=st.booleans(),
    logs=st.sampled_from([False, "host"]),
)


@given(documents)
def test_parse_and_write_are_inverse(value: Workload) -> None:
    written = workload.write(value)
    read = workload.parse(written.raw)
    assert read.workload == value
    assert read.digest == written.digest
    assert workload.write(read.workload).raw == written.raw


@given(documents, documents)
def test_different_workloads_have_different_digests(one: Workload, other: Workload) -> None:
    assert (workload.write(one).digest == workload.write(other).digest) == (one == other)


@given(st.binary(max_size=300))
def test_garbage_gives_one_error(data: bytes) -> None:
    with pytest.raises(DocumentInvalid):
        workload.parse(data)


@given(st.text(max_size=300))
def test_any_table_gives_a_workload_or_one_error(table: str) -> None:
    try:
        workload.parse_table(table)
    except DocumentInvalid as error:
        assert error.field
