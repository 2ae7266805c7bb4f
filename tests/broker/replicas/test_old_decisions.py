"""What was decided more than a second ago goes to nobody: every way by which a replica hands something out.

The database holds the audit row up for longer than that, as a slow disk or network would, and lets it go then.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import psycopg
from cryptography.hazmat.primitives.asymmetric import ec
from tests.broker import rig
from tests.broker.replicas.conftest import KEY, Replicas
from tests.waiting import LONG, until

from adyton.client.keys import Keys
from adyton.devtee.root import DevelopmentRoot
from adyton.protocol import rcar
from adyton.protocol.keys import NewKey, TransitBody
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

TRANSIT = ResourcePath("default", "key", "transit")
HELD = 1.6


@contextmanager
def held_up(url: str, table: str = "audit") -> Iterator[None]:
    """Nobody writes or reads ``table`` until somebody has waited for it for ``HELD`` seconds."""
    locked, over = threading.Event(), threading.Event()

    def hold() -> None:
        with psycopg.connect(url) as connection:
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            locked.set()
            until(lambda: over.is_set() or _awaited(connection, table))
            time.sleep(HELD)

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(LONG)
    try:
        yield
    finally:
        over.set()
        thread.join()


def _awaited(connection: psycopg.Connection, table: str) -> bool:
    query = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
    return connection.execute(query, [table]).fetchone() is not None


def test_nothing_that_was_decided_long_ago_leaves(replicas: Replicas, root: DevelopmentRoot) -> None:
    replicas.add()
    replicas.prepare()
    broker = replicas.brokers[0]
    with broker.admin() as admin:
        mine = Binding(workloads=[str(rig.document().digest)])
        Keys(admin).create(TRANSIT, NewKey("aes-256", mine))
        rows = len(admin.audit(limit=1000))
    with broker.session(rig.attester(root)) as session, rig.raw(broker) as client:
        assert session.resource(KEY) == rig.SECRET
        headers = {"Cookie": f"kbs-session-id={session._cookie}"}
        text = msgspec.json.encode(TransitBody(plaintext=b"x"))
        asked: list[tuple[str, Callable[[], tuple[int, bytes]]]] = [
            ("resource", lambda: client.ask("GET", f"/kbs/v0/resource/{KEY}", headers=headers)[:2]),
            ("key", lambda: client.ask("POST", f"/kbs/v0/key/encrypt/{TRANSIT}", text, headers)[:2]),
        ]
        for what, ask in asked:
            assert ask()[0] == 200, what
            with held_up(replicas.url):
                status, body = ask()
            assert status == 503 and json.loads(body)["detail"], what
            assert b"ciphertext" not in body and b"encrypted_key" not in body
            assert ask()[0] == 200, what
    with rig.raw(broker) as client:
        key = ec.generate_private_key(ec.SECP256R1())
        nonce = json.loads(client.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))[1])["nonce"]
        body = rig.attest_body(nonce, rig.attester(root), rig.document(), key)
        with held_up(replicas.url):
            status, read, answered = client.ask("POST", "/kbs/v0/attest", body)
        assert status == 503 and b"token" not in read and answered.get("Set-Cookie") is None
        assert client.ask("POST", "/kbs/v0/attest", body)[0] == 200  # the session is still there to be asked again
    with broker.admin() as admin:
        found = [row["row"] for row in admin.audit(limit=1000)[rows:]]
    # The record says more than was done, never less; and that it was refused in the end.
    assert sum(row["decision"] == "refused" and "decision_old" in str(row) for row in found) == 3


def test_who_was_let_in_long_ago_administers_nothing(replicas: Replicas) -> None:
    replicas.add()
    replicas.prepare()
    broker = replicas.brokers[0]
    with rig.raw(broker) as client:
        headers = {"Authorization": "Bearer " + (broker.data / "admin.token").read_text().strip()}
        path = "/api/v0/resources"
        assert client.ask("GET", path, headers=headers)[0] == 200
        with held_up(replicas.url, "secrets"):  # read to know who asks
            status, _, _ = client.ask("GET", path, headers=headers)
        assert status == 503
        assert client.ask("GET", path, headers=headers)[0] == 200
