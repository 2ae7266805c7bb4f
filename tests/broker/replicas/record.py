"""What the record of decisions must be, whoever of several brokers wrote its rows."""

from __future__ import annotations

from collections import Counter

from tests.broker.rig import RunningBroker

from adyton.crypto import merkle
from adyton.protocol import audit_row
from adyton.protocol.audit_check import Reading
from adyton.wire import b64


def whole(broker: RunningBroker, *, releases: int = 0) -> list[bytes]:
    """Every decision once, in one unbroken row of numbers, each provably in the tree; checked here and by the broker."""
    with broker.admin() as admin:
        checkpoint = admin.audit_checkpoint()
        assert checkpoint
        bodies: list[bytes] = []
        while page := admin.audit_rows(len(bodies)):
            bodies += page
        entries = [audit_row.decode(body) for body in bodies]
        assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
        reading = Reading("default")
        for body in bodies:
            reading.row(body)
        head = admin.audit_head()
        assert (reading.size, reading.root().hex()) == (head.sequence, head.root)
        for number in {1, len(bodies) // 3 + 1, len(bodies) // 2 + 1, len(bodies)}:
            proof = admin.audit_inclusion(str(number))
            path = [b64.decode(item) for item in proof.path]
            merkle.verify_inclusion(audit_row.leaf(bodies[number - 1]), number - 1, len(bodies), path, reading.root())
        admin.audit_verify()
    actions = Counter(entry.row.action for entry in entries)
    assert actions["release"] >= releases
    return bodies
