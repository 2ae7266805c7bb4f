"""Documents on the operator's side: podman's rules when one is written, the document's when one is brought."""

from __future__ import annotations

from typing import Any

import pytest

from adyton.errors import DocumentInvalid
from adyton.image.manifest import ImageConfig, RootFs, RunConfig
from adyton.protocol.devtee import Publish
from adyton.protocol.workload import EnvPattern, Mount, Port, Workload
from adyton.rats.types import Digest
from adyton.runtime import documents
from adyton.runtime.options import RunOptions, Volume

DIGEST = Digest.of(b"image")


def config(**members: Any) -> ImageConfig:
    return ImageConfig("amd64", "linux", RootFs("layers", []), RunConfig(**members))


def options(**members: Any) -> RunOptions:
    return RunOptions(image="image", **members)


def written(image: ImageConfig, **members: Any) -> Workload:
    return documents.from_image(DIGEST, image, options(**members))


def test_an_image_without_a_command_has_nothing_to_run() -> None:
    with pytest.raises(DocumentInvalid) as caught:
        written(config())
    assert caught.value.code == "command_missing"


@pytest.mark.parametrize(
    ("image", "given", "expected"),
    [
        (config(cmd=["a"]), {}, ["a"]),
        (config(entrypoint=["e"], cmd=["a"]), {}, ["e", "a"]),
        (config(entrypoint=["e"], cmd=["a"]), {"command": ("b", "c")}, ["e", "b", "c"]),
        (config(entrypoint=["e"], cmd=["a"]), {"entrypoint": ("f",)}, ["f"]),
        (config(entrypoint=["e"], cmd=["a"]), {"entrypoint": ("f",), "command": ("b",)}, ["f", "b"]),
        (config(entrypoint=["e"], cmd=["a"]), {"entrypoint": (), "command": ("b",)}, ["b"]),
    ],
)
def test_entry_point_and_command(image: ImageConfig, given: dict[str, Any], expected: list[str]) -> None:
    assert written(image, **given).command == expected


@pytest.mark.parametrize("spelled", ["/v/", "//v", "/./v"])
def test_one_place_spelled_in_two_ways_is_one_mount(spelled: str) -> None:
    image = config(cmd=["a"], volumes={spelled: {}})
    assert written(image).mounts == [Mount("/v", "volume")]
    assert written(image, volumes=(Volume("/h", "/v"),)).mounts == [Mount("/v", "host")]


def test_the_image_speaks_where_the_options_do_not() -> None:
    image = config(cmd=["a"], env=["A=1", "B=2", "odd", "=x"], working_dir="/w", user="app", volumes={"/v": {}})
    workload = written(image, env={"B": "3"})
    assert workload.env == {"A": "1", "B": "3"}
    assert (workload.cwd, workload.user, workload.network, workload.logs) == ("/w", "app", "none", "host")
    assert workload.mounts == [Mount("/v", "volume")]
    workload = written(image, workdir="/x", user="0", publish=(Publish(80),), volumes=(Volume("/h", "/v", "ro"),))
    assert (workload.cwd, workload.user, workload.network) == ("/x", "0", "bridge")
    assert workload.mounts == [Mount("/v", "host", "ro")]
    assert workload.ports == [Port(80)]


DOCUMENT = Workload(
    image=str(DIGEST),
    command=["serve", "--fast"],
    cwd="/w",
    user="app",
    env={"A": "1", "B": EnvPattern("[0-9]+")},
    mounts=[Mount("/h", "host"), Mount("/r", "host", "ro"), Mount("/t", "tmpfs"), Mount("/v", "volume")],
    ports=[Port(80)],
    network="bridge",
)
HOST = (Volume("/x", "/h"), Volume("/y", "/r", "ro"))


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"command": ("serve",)}, "command"),
        ({"command": ("serve", "--fast", "--more")}, "command"),
        ({"entrypoint": ("other",)}, "command"),
        ({"workdir": "/"}, "cwd"),
        ({"user": "root"}, "user"),
        ({"network": "host"}, "network"),
        ({"debug": True}, "debug"),
        ({"terminal": True}, "terminal"),
        ({"volumes": (*HOST, Volume("/z", "/elsewhere"))}, "mounts"),
        ({"volumes": (*HOST, Volume("/z", "/t"))}, "mounts"),
        ({"volumes": (*HOST, Volume("/z", "/v"))}, "mounts"),
        ({"volumes": (Volume("name", "/h"), HOST[1])}, "mounts"),
        ({"volumes": (Volume("/x", "/h", "ro"), HOST[1])}, "mounts"),
        ({"volumes": ()}, "mounts"),
        ({"tmpfs": ("/h",)}, "mounts"),
        ({"tmpfs": ("/elsewhere",)}, "mounts"),
        ({"publish": (Publish(81),)}, "ports"),
        ({"env": {"C": "1"}}, "env.C"),
        ({"env": {"A": "2"}}, "env.A"),
        ({"env": {"B": "x"}}, "env.B"),
    ],
)
def test_what_the_document_does_not_allow_is_refused(given: dict[str, Any], field: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        documents.hold_to(DOCUMENT, options(**{"volumes": HOST, **given}))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"command": ("serve", "--fast"), "workdir": "/w", "user": "app", "network": "bridge"},
        {"entrypoint": ("serve",), "env": {"A": "1", "B": "42"}},
        {"tmpfs": ("/t",), "publish": (Publish(80, 8080),), "interactive": True, "detach": True},
        {"volumes": (*HOST, Volume("name", "/v"))},
        {"volumes": (HOST[0], Volume("/y", "/r"))},  # the document's read-only stands
    ],
)
def test_what_it_allows_passes(given: dict[str, Any]) -> None:
    documents.hold_to(DOCUMENT, options(**{"volumes": HOST, **given}))
