"""Any replica is killed between any two steps, and the client has its secret; the record is whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
from tests.broker import rig
from tests.broker.replicas.conftest import KEY, Replicas
from tests.broker.replicas.record import whole

from adyton.devtee.root import DevelopmentRoot
from adyton.rats.ports import CollectedEvidence
from adyton.rats.types import ReportData


@dataclass
class Between:
    """An attester that does something between challenge and evidence."""

    inner: rig.DevAttester
    doing: Callable[[], object]
    tee: str = "snp"

    def collect(self, report_data: ReportData) -> CollectedEvidence:
        self.doing()
        return self.inner.collect(report_data)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(2))
def test_any_replica_dies_between_any_two_steps(replicas: Replicas, root: DevelopmentRoot, seed: int) -> None:
    for _ in range(3):
        replicas.add()
    replicas.prepare()
    chance = random.Random(seed)

    def somebody_dies(at: int | None = None) -> None:
        replicas.all_back()  # one at a time
        replicas.dies(chance.randrange(3) if at is None else at)

    rounds = 4
    for turn in range(rounds):
        # the one that gave the challenge dies, then the one that gave the token; then anyone
        attester = Between(rig.attester(root), partial(somebody_dies, turn % 3 if turn < 3 else None))
        with replicas.session(attester, turn % 3) as session:
            session.attest()
            somebody_dies(replicas.brokers.index(asked(replicas, session._transport.url)) if turn % 2 else None)
            assert session.resource(KEY) == rig.SECRET
            somebody_dies()
            assert session.resource(KEY) == rig.SECRET
    replicas.all_back()
    whole(replicas.brokers[-1], releases=2 * rounds)


def asked(replicas: Replicas, url: str) -> rig.RunningBroker:
    return next(broker for broker in replicas.brokers if broker.description["url"] == url)


def test_every_step_at_another_replica(replicas: Replicas, root: DevelopmentRoot) -> None:
    for _ in range(2):
        replicas.add()
    replicas.prepare()
    with replicas.session(rig.attester(root)) as session:
        moves = Between(rig.attester(root), session._transport.elsewhere)
        session._attester = moves
        for _ in range(3):
            session.attest()
            session._transport.elsewhere()
            assert session.resource(KEY) == rig.SECRET
            session._transport.elsewhere()
            assert session.resource(KEY) == rig.SECRET
    keys = set()
    for broker in replicas.brokers:
        with rig.raw(broker) as client:
            keys.add(client.ask("GET", "/.well-known/jwks.json")[1])
    assert len(keys) == 1
    whole(replicas.brokers[-1], releases=6)
