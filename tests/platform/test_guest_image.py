"""The guest stack: the same file from the same inputs, another measurement for any other byte, complete in itself."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from tests.platform.conftest import Starter
from tests.platform.services import Running

from adyton.errors import ConfigError, PlatformError
from adyton.platform import guest, guest_contents, guest_image, launcher
from adyton.platform.guest_contents import Item
from adyton.protocol import devtee


def few(directory: Path) -> list[Item]:
    """A small tree of each kind of file."""
    directory.mkdir(parents=True)
    (directory / "module.py").write_text("def f(x={1, 'a', 'b'}):\n    return frozenset({'q', 'r', 's', 't'}), x\n")
    (directory / "data").write_bytes(os.urandom(10_000))
    (directory / "tool").write_text("#!/bin/sh\n")
    return [
        Item("lib/module.py", directory / "module.py"),
        Item("share/data", directory / "data"),
        Item("bin/tool", directory / "tool", True),
    ]


def extract(image: Path, into: Path) -> Path:
    subprocess.run(["fsck.erofs", f"--extract={into}", str(image)], check=True, capture_output=True)
    return into


def test_one_changed_byte_anywhere_is_another_measurement(tmp_path: Path) -> None:
    image = guest_image.build(tmp_path / "g.erofs", items=few(tmp_path / "src")).path
    original = image.read_bytes()
    measured = guest.measure(image)
    for at in (0, 1030, 4096, len(original) - 1):
        if 1024 <= at < 1028:
            continue
        image.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
        assert guest.measure(image) != measured
    image.write_bytes(original + b"\0")
    assert guest.measure(image) != measured
    image.write_bytes(original)
    assert guest.measure(image) == measured
    assert len(measured) == 48


def test_another_launcher_is_another_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = guest_image.build(tmp_path / "g.erofs", items=few(tmp_path / "src")).path
    measured = guest.measure(image)
    changed = tmp_path / "launcher.py"
    changed.write_bytes(guest.launcher_bytes() + b"\n")
    monkeypatch.setattr(launcher, "__file__", str(changed))
    assert guest.measure(image) != measured


@pytest.mark.parametrize("content", [b"", b"not erofs" * 1000])
def test_what_is_no_guest_stack_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "g"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        guest.measure(path)
    assert caught.value.code == "guest_invalid"
    with pytest.raises(ConfigError) as caught:
        guest.measure(tmp_path / "absent")
    assert caught.value.code == "guest_unreadable"
    assert "build-guest" in str(caught.value.hint)


def test_place_time_owner_and_mode_of_the_inputs_do_not_matter(tmp_path: Path) -> None:
    one = few(tmp_path / "one")
    other = [Item(item.path, tmp_path / "far" / "away" / item.source.name, item.executable) for item in reversed(one)]
    (tmp_path / "far" / "away").mkdir(parents=True)
    for item, copy in zip(one, reversed(other), strict=True):
        shutil.copyfile(item.source, copy.source)
        copy.source.chmod(0o600)
        os.utime(copy.source, (1, 1))
    other.sort(key=lambda item: item.path)
    one.sort(key=lambda item: item.path)
    first = guest_image.build(tmp_path / "1.erofs", items=one)
    second = guest_image.build(tmp_path / "deep" / "er" / "2.erofs", items=other)
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    items = few(tmp_path / "src")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError) as caught:
        guest_image.build(tmp_path / "pipe", items=items)
    assert caught.value.code == "not_a_file" and (tmp_path / "pipe").is_fifo()
    (tmp_path / "g.erofs.inputs").mkdir()  # what remembers the inputs cannot be written: built all the same
    assert guest_image.build(tmp_path / "g.erofs", items=items).rebuilt


def test_nothing_is_done_when_nothing_changed(tmp_path: Path) -> None:
    items = few(tmp_path / "src")
    first = guest_image.build(tmp_path / "g.erofs", items=items)
    assert first.rebuilt
    kept = guest_image.build(tmp_path / "g.erofs", items=items)
    assert not kept.rebuilt
    assert kept.sha256 == first.sha256
    items[1].source.write_bytes(b"changed")
    assert guest_image.build(tmp_path / "g.erofs", items=items).rebuilt
    (tmp_path / "g.erofs").write_bytes(b"tampered")
    again = guest_image.build(tmp_path / "g.erofs", items=items)
    assert again.rebuilt
    assert again.sha256 != first.sha256
    (tmp_path / "g.erofs.inputs").write_text("{")
    assert guest_image.build(tmp_path / "g.erofs", items=items).sha256 == again.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.erofs", "g.erofs.inputs", "src"]


def test_sources_that_do_not_compile_are_named(tmp_path: Path) -> None:
    items = few(tmp_path / "src")
    items[0].source.write_text("def broken(:\n")
    with pytest.raises(PlatformError) as caught:
        guest_image.build(tmp_path / "g.erofs", items=items)
    assert "module.py" in str(caught.value.got)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]


def test_without_its_tools_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(PlatformError) as caught:
        guest_image.build(tmp_path / "g.erofs", items=[])
    assert "erofs-utils" in str(caught.value.hint)
    with pytest.raises(PlatformError) as caught:
        list(guest_contents.programs())
    assert "install" in str(caught.value.hint)
    assert "runc" in str(caught.value.hint)


def test_everything_in_it_is_measured_byte_code(probe_guest: Path, tmp_path: Path) -> None:
    tree = extract(probe_guest, tmp_path / "tree")
    files = [path.relative_to(tree) for path in tree.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".py" or "__pycache__" in path.parts]
    compiled = [tree / path for path in files if path.suffix == ".pyc"]
    assert len(compiled) > 300
    for path in compiled:
        assert path.read_bytes()[4:8] == b"\x01\0\0\0", (
            path
        )  # hash-based, unchecked: never looked at again, never written
    rooms = {path.parts[3] for path in files if path.parts[:3] == ("lib", guest_contents.PYTHON, "adyton")}
    assert not {name.removesuffix(".pyc") for name in rooms} & {
        *("broker", "platform", "runtime", "cli", "demo", "devtee", "stores"),
    }
    assert all((path.stat().st_mode & 0o777) in {0o644, 0o755} for path in tree.rglob("*") if path.is_file())
    assert all(path.stat().st_mtime == 0 for path in compiled)


@pytest.mark.root
def test_the_agent_and_all_it_imports_come_from_it(shared: Running) -> None:
    agent = Path(guest_contents.__file__).parent.parent / "agent"
    names = [f"adyton.agent.{path.stem}" for path in agent.glob("*.py") if path.stem not in {"__init__", "__main__"}]
    failed, outside, foreign = shared.probe(
        f"""
import importlib, pkgutil, adyton.client, adyton.image, adyton.attesters, adyton.tee, adyton.crypto
failed = []
for name in {names!r}:
    try: importlib.import_module(name)
    except ImportError as error: failed.append(repr(error))
for room in (adyton.client, adyton.image, adyton.attesters, adyton.tee, adyton.crypto):
    for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
        try: importlib.import_module(module.name)
        except ImportError as error: failed.append(repr(error))
host.say(failed)
files = [m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)]
host.say([file for file in files if not file.startswith("/guest/")])
host.say(sorted(n for n in sys.modules if n.startswith(("adyton.broker", "adyton.platform", "adyton.devtee", "adyton.cli."))))
""",
    )
    assert failed == []
    assert outside == []
    assert foreign == []


@pytest.mark.root
def test_its_oci_runtime_starts_inside(shared: Running) -> None:
    (said,) = shared.probe(
        "import subprocess; host.say(subprocess.run(['/guest/bin/runc', '--version'], capture_output=True, text=True).stdout)"
    )
    assert "runc version" in cast("str", said)


@pytest.mark.root
def test_what_runs_is_the_sealed_copy(start_service: Starter, probe_guest: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.erofs"
    shutil.copyfile(probe_guest, copy)
    service = start_service(guest=copy)
    before = service.connect().ask(devtee.About())
    copy.write_bytes(b"gone")
    copy.unlink()
    assert service.probe("host.say(1)") == [1]
    assert service.connect().ask(devtee.About()) == before
    assert isinstance(before, devtee.Platform)
    assert before.measurement == guest.measure(probe_guest).hex()


@pytest.mark.slow
def test_two_whole_builds_are_equal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "adyton", "devtee", "build-guest", "--force", "-o"]
    prints = [
        subprocess.run([*command, str(tmp_path / name)], check=True, capture_output=True, text=True).stdout
        for name in "ab"
    ]
    assert prints[0] == prints[1]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert guest.measure(tmp_path / "a").hex() == prints[0].strip()


def test_what_is_imported_late_is_in_it_as_well() -> None:
    items = guest_contents.contents()
    prefix = f"lib/{guest_contents.PYTHON}/"
    within = {
        item.path.removeprefix(prefix).removeprefix("lib-dynload/") for item in items if item.path.startswith(prefix)
    }
    from_3_14_on = {"compression"}  # imported there only, where it is in the standard library
    there = from_3_14_on | set(sys.builtin_module_names) | {path.split("/")[0].split(".")[0] for path in within}
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in within}
    missing = set()
    offered = ("adyton/__init__.py", "adyton.verification")  # imported when somebody calls ``adyton.verify``
    for item in items:
        if not item.path.startswith(f"{prefix}adyton/"):
            continue
        for node in ast.walk(ast.parse(item.source.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
                names = [node.module]
            for name in names:
                own = name.startswith("adyton.")
                if (own and name not in modules) or (not own and name.split(".")[0] not in there):
                    missing.add((item.path.removeprefix(prefix), name))
    assert not missing - {offered}
    assert not {path for path in within if path.startswith("adyton/tee/") and path.count("/") > 2} - {
        path for path in within if path.startswith("adyton/tee/snp/")
    }
