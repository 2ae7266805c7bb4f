"""A broker for the client's tests; what it lacks in faults, ``Faulty`` in the tests themselves has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.broker import rig

from adyton.devtee.root import DevelopmentRoot
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentRoot:
    return rig.make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path_factory.mktemp("broker") / "data", root)
    running.publish()
    with running.admin() as admin:
        bound = Binding(workloads=[str(rig.document().digest)])
        admin.set_resource(ResourcePath("default", "key", "1"), bytes(range(32)), bound)
        admin.set_resource(ResourcePath("default", "text", "1"), b"not a key", bound)
    yield running
    assert running.stop() == 0
