"""Names of images: what is refused, what is completed, and that printing and reading are inverse."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton.errors import AdytonError, ConfigError
from adyton.image.reference import ImageReference, Transport

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "docker://",
        "Upper/case",
        "docker://host.example/Upper",
        "a b",
        "a\n",
        "a\x00b",
        "name@sha256:abcd",
        "name@sha256:" + "AB" * 32,
        "name@md5:" + "ab" * 16,
        "name:" + "t" * 129,
        "name:.dot",
        "name:",
        "host.example:99999/name",
        "host.example:0/name",
        "host.example:port/name",
        "host.example/",
        "host.example//name",
        "../escape",
        "host.example/../escape",
        "host.example/a__-b",
        "-host.example/a",
        "https://host.example/name",
        "docker-archive://x",
        "oci:",
        "oci::tag",
        "oci:path:bad tag",
        "oci:path:a//b",
        "dir:",
        "oci-archive:",
        "x" * 5000,
        "host.example/" + "a" * 250,
        "user@host.example/name",
        "docker-daemon:app",
        "docker-archive:/tmp/app.tar",
        "containers-storage:app",
        "ostree:app@/repo",
        "name@" + DIGEST + "@" + DIGEST,
    ],
)
def test_names_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        ImageReference.parse(text)


@pytest.mark.parametrize(
    ("text", "printed", "host"),
    [
        ("busybox", "docker://docker.io/library/busybox:latest", "registry-1.docker.io"),
        ("docker://busybox:1.36", "docker://docker.io/library/busybox:1.36", "registry-1.docker.io"),
        ("team/app", "docker://docker.io/team/app:latest", "registry-1.docker.io"),
        ("index.docker.io/team/app", "docker://docker.io/team/app:latest", "registry-1.docker.io"),
        ("localhost/app", "docker://localhost/app:latest", "localhost"),
        ("localhost:5000/app", "docker://localhost:5000/app:latest", "localhost:5000"),
        ("127.0.0.1:5000/a/b:c", "docker://127.0.0.1:5000/a/b:c", "127.0.0.1:5000"),
        ("[::1]:5000/a", "docker://[::1]:5000/a:latest", "[::1]:5000"),
        ("host.example/a_b/c__d/e--f/g.h", "docker://host.example/a_b/c__d/e--f/g.h:latest", "host.example"),
        (f"host.example/a@{DIGEST}", f"docker://host.example/a@{DIGEST}", "host.example"),
        (f"host.example/a:tag@{DIGEST}", f"docker://host.example/a:tag@{DIGEST}", "host.example"),
        ("Host.Example/a", "docker://Host.Example/a:latest", "Host.Example"),
    ],
)
def test_registry_names(text: str, printed: str, host: str) -> None:
    reference = ImageReference.parse(text)
    assert (reference.transport, str(reference), reference.host) == (Transport.REGISTRY, printed, host)
    assert ImageReference.parse(printed) == reference


def test_a_digest_decides_over_a_tag() -> None:
    assert ImageReference.parse(f"host.example/a:tag@{DIGEST}").locator == DIGEST
    assert ImageReference.parse("host.example/a:tag").locator == "tag"


@pytest.mark.parametrize(
    ("text", "path", "tag"),
    [
        ("oci:./layout", "./layout", None),
        ("oci:/a/b:v1", "/a/b", "v1"),
        ("oci:rel:host.example/team/app:v1", "rel", "host.example/team/app:v1"),
        ("oci-archive:a.tar:v1", "a.tar", "v1"),
        ("oci-archive:a.tar", "a.tar", None),
        ("dir:/a/b:c", "/a/b:c", None),
    ],
)
def test_names_on_disk(text: str, path: str, tag: str | None) -> None:
    reference = ImageReference.parse(text)
    assert (reference.path, reference.tag, str(reference)) == (path, tag, text)


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_an_error_of_ours(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except AdytonError:
        return
    assert ImageReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "docker://ada:hunter2@host.example/name:v1",
        "ada:hunter2@host.example/name",
        "docker://ada:hunter2/h@u@h.example/n",
    ],
)
def test_a_password_in_a_name_is_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ImageReference.parse(text)
    said = str(caught.value.as_dict())
    assert "hunter2" not in said and "--authfile" in said


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("oci:a:1", "oci:./a:2", True),
        ("oci:a:1", "oci:b:1", False),
        ("host.example/a:1", "docker://host.example/a:2", True),
        ("host.example/a:1", "host.example/b:1", False),
        ("oci:a:1", "oci-archive:a:1", False),
        ("dir:a", "dir:a", False),  # refused elsewhere
    ],
)
def test_whether_layers_lie_in_one_place(one: str, other: str, shared: bool) -> None:
    assert ImageReference.parse(one).shares_blobs(ImageReference.parse(other)) is shared


def test_a_path_may_hold_spaces() -> None:
    for text in ("oci:/my images/app:v1", "dir:/my images/app", "oci-archive:an app.tar:v1"):
        assert str(ImageReference.parse(text)) == text


def test_a_long_name_of_nothing_is_refused_quickly() -> None:
    for text in ("//:" * 3000, "a:" * 50_000, "//" + "u:p@" * 30_000 + " "):
        began = time.process_time()
        with pytest.raises(ConfigError) as caught:
            ImageReference.parse(text)
        assert time.process_time() - began < 0.5
        assert len(str(caught.value.got)) <= 200 and "u:p" not in str(caught.value.got)


@pytest.mark.parametrize("text", ["u:p@registry.example//app", "docker://u:p@registry.example//app", "u:p@@x y"])
def test_a_password_is_not_repeated_wherever_the_slashes_are(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ImageReference.parse(text)
    assert "u:p" not in str(caught.value.got) and "u:p" not in str(caught.value)
