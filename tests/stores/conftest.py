"""Both engines: a test that takes ``store``, and not the directory of its file, runs over SQLite and over PostgreSQL."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeAlias

import pytest
from tests.postgresql import Server

from adyton.stores.sql import Database

Engine: TypeAlias = Callable[[], Database] | None
ENGINES = ("sqlite", "postgresql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    taken = inspect.signature(metafunc.function).parameters
    if "engine" in metafunc.fixturenames and "store" in taken and "tmp_path" not in taken:
        metafunc.parametrize("engine", ENGINES, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    """What ``Store.open`` takes as ``database``: nothing for SQLite, else what opens an empty schema of its own."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return None
    server: Server = request.getfixturevalue("postgresql")
    return server.opener()
