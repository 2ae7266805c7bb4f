"""What every test shares: the pure floors are run under an audit hook, and vectors are found in one place."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.postgresql import Server

REPOSITORY = Path(__file__).resolve().parent.parent
VECTORS = Path(os.environ.get("ADYTON_VECTORS", REPOSITORY.parent / "shared" / "vectors"))
PURE_FLOORS = ("wire", "rats", "crypto", "tee", "protocol", "appraisal")
_FORBIDDEN = ("open", "socket.", "subprocess.Popen", "os.system", "os.listdir", "os.scandir", "os.mkdir", "os.remove")
_armed = False

# Properties: no example is a failure because the machine did something else meanwhile. What everybody runs tries the same
# examples each time, so that a change is blamed for nothing but itself; `make test-all` tries others each time.
settings.register_profile(
    "adyton",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=not os.environ.get("ADYTON_ALL"),
    database=None,
    print_blob=True,
)
settings.load_profile("adyton")


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _armed or not event.startswith(_FORBIDDEN):
        return
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("importlib._bootstrap") or name == "linecache":
            return  # importing a module on first use reads files, and so does printing a traceback; Python's doing
        if name.startswith(tuple(f"adyton.{floor}" for floor in PURE_FLOORS)):
            raise AssertionError(f"a pure floor did {event}{arguments!r}")
        if frame.f_back is None:
            return
        frame = frame.f_back


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def pure_floors_open_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests of floors 0 to 2 fail if the code under test opens a file, a socket or a process."""
    global _armed
    parts = (
        request.path.relative_to(REPOSITORY / "tests").parts
        if request.path.is_relative_to(REPOSITORY / "tests")
        else ()
    )
    _armed = bool(parts) and parts[0] in PURE_FLOORS
    yield
    _armed = False


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of real evidence. Where it is missing, `make test` leaves these tests out and `make test-all` fails."""
    if not (VECTORS / "manifest.json").is_file():
        pytest.fail(f"evidence vectors are missing: {VECTORS} (set ADYTON_VECTORS)")
    return VECTORS


@pytest.fixture(scope="session")
def manifest(vectors: Path) -> dict[str, object]:
    """``manifest.json`` of the vectors."""
    loaded: dict[str, object] = json.loads((vectors / "manifest.json").read_text())
    return loaded


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server of this run's own. Who breaks it starts one of their own."""
    from tests.postgresql import BIN, Server

    if not (BIN / "initdb").exists():
        pytest.skip("PostgreSQL 15 is not installed")
    server = Server.make()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guest stack built from this checkout."""
    from adyton.platform import guest_image

    return guest_image.build(tmp_path_factory.mktemp("guest") / "adyton-guest.erofs").path


_without_vectors = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that need root are skipped where the user is not root; those that need vectors, where there are none."""
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root: namespaces and mounts"))
    if not os.environ.get("ADYTON_ALL") and not (VECTORS / "manifest.json").is_file():
        needing = [item for item in items if {"vectors", "manifest"} & set(getattr(item, "fixturenames", ()))]
        if needing:
            config.hook.pytest_deselected(items=needing)
            items[:] = [item for item in items if item not in needing]
        config.stash[_without_vectors] = len(needing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line for all tests that were left out for want of vectors."""
    if not os.environ.get("ADYTON_ALL") and not (VECTORS / "manifest.json").is_file():
        count = config.stash.get(_without_vectors, None)
        many = f"{count} tests" if count else "the tests"
        terminalreporter.write_line(
            f"skipped: {many} that need the evidence vectors ({VECTORS} is not there)", yellow=True
        )
