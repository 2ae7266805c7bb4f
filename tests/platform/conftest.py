"""A real platform service per test, over a guest stack whose agent does what the test tells it to."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.platform.services import Running
from tests.waiting import LONG

from adyton.devtee.root import DevelopmentRoot
from adyton.platform import guest_contents, guest_image
from adyton.platform.guest_contents import Item


@pytest.fixture(scope="session")
def root_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("root") / "devtee"
    DevelopmentRoot.create(directory, datetime.now(UTC))  # noqa: TID251
    return directory


@pytest.fixture(scope="session")
def probe_guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = guest_contents.contents()
    place = f"lib/{guest_contents.PYTHON}/adyton/agent/__main__.py"
    probe = Item(place, Path(__file__).with_name("probe_agent.py"))
    items = [probe if item.path == place else item for item in items]
    assert probe in items
    return guest_image.build(tmp_path_factory.mktemp("guest") / "probe.erofs", items=items).path


Starter = Callable[..., Running]


@contextlib.contextmanager
def serving(root_directory: Path, guest: Path, *prefix: str) -> Iterator[Starter]:
    """Starts services in one home; at the end none runs, none complained, and nothing is mounted.

    The home's path is short: a socket's has at most 107 bytes. ``prefix``: arguments of Python's before the service's.
    """
    started: list[Running] = []

    def start(*options: str, guest: Path = guest) -> Running:
        command = [
            sys.executable,
            *prefix,
            "-m",
            "adyton",
            "devtee",
            "serve",
            "--guest",
            str(guest),
            "--private-size",
            "64",
        ]
        environment = {**os.environ, "ADYTON_HOME": str(home)}
        process = subprocess.Popen([*command, *options], env=environment, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said = b""
        while b"listening on" not in said:
            line = process.stderr.readline()
            assert line, said.decode()
            said += line
        started.append(Running(home, process))
        return started[-1]

    with tempfile.TemporaryDirectory(prefix="ady") as directory:
        home = Path(directory)
        shutil.copytree(root_directory, home / "devtee")
        yield start
        for running in started:
            for caller in running.callers:
                caller.close()
            running.process.send_signal(signal.SIGTERM)
            running.process.wait(timeout=LONG)
            assert running.process.stderr is not None
            complaint = running.process.stderr.read().decode()
            running.process.stderr.close()
            assert "Traceback" not in complaint, complaint
        assert str(home) not in Path("/proc/self/mounts").read_text()


@pytest.fixture
def start_service(root_directory: Path, probe_guest: Path) -> Iterator[Starter]:
    with serving(root_directory, probe_guest) as start:
        yield start


@pytest.fixture
def service(start_service: Starter) -> Running:
    """One of the test's own."""
    return start_service()


@pytest.fixture(scope="module")
def shared(root_directory: Path, probe_guest: Path) -> Iterator[Running]:
    """One for all tests of a module that leave it as it was."""
    with serving(root_directory, probe_guest) as start:
        yield start()
