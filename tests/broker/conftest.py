"""One development root and one broker for the tests of this room; tests that break a broker start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.broker import rig

from adyton.devtee.root import DevelopmentRoot
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

KEY = ResourcePath("default", "key", "1")


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentRoot:
    return rig.make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[rig.RunningBroker]:
    running = rig.started(tmp_path_factory.mktemp("broker") / "data", root)
    running.publish()
    with running.admin() as admin:
        admin.set_resource(KEY, rig.SECRET, Binding(workloads=[str(rig.document().digest)]))
    yield running
    assert running.stop() == 0
