"""The server of ``bench/broker.py``: one worker with every handler metered, and the primitives alone beside it.

Settings come as JSON in the first argument; ``--fine`` as the second meters what handlers are made of. A line on standard
input asks for the accounts. See ``bench/broker.py`` for what is measured, and why so.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Awaitable, Generator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from bench.parts.broker_floor import CRYPTOGRAPHY, Floor

from adyton.broker import session, statement
from adyton.broker.delivery import Delivery
from adyton.broker.door.answer import Answer
from adyton.broker.door.connection import HttpRequest
from adyton.broker.handshake import Handshake
from adyton.broker.policy.policies import PolicyBook
from adyton.broker.running import opening, worker, worker_process
from adyton.broker.running.serving import PUBLIC, Ending
from adyton.broker.settings import Settings
from adyton.crypto import jwe, jwt
from adyton.protocol import rcar
from adyton.stores.audit import AuditLog
from adyton.stores.resources import Resources
from adyton.tee.snp import verify


class Spent:
    """CPU of this thread by stage, in seconds."""

    def __init__(self) -> None:
        self.by: dict[str, float] = {}

    def add(self, stage: str, since: float) -> None:
        """Charge what this thread has burnt since then."""
        self.by[stage] = self.by.get(stage, 0.0) + time.thread_time() - since


class Metered:
    """An awaitable answer whose every step is charged to a stage."""

    def __init__(self, answer: Awaitable[Answer], spent: Spent, stage: str) -> None:
        self.answer, self.spent, self.stage = answer, spent, stage

    def __await__(self) -> Generator[Any, Any, Answer]:
        inner = self.answer.__await__()
        value: Any = None
        while True:
            since = time.thread_time()
            try:
                waiting = inner.send(value)
            except StopIteration as done:
                result: Answer = done.value
                return result
            finally:
                self.spent.add(self.stage, since)
            value = yield waiting


# What ``--fine`` meters inside the handlers: owner, name, what it is. Each metering costs about a microsecond.
FINE: tuple[tuple[Any, str, str], ...] = (
    (rcar, "parse_attestation", "attest: read the body, check the key"),
    (session, "open_", "both: open the cookie"),
    (Handshake, "_verify", "attest: verify the evidence"),
    (verify, "check_signature", "  of it the P-384 verification"),
    (verify, "see", "  of it what is this report's own"),
    (PolicyBook, "view", "both: policies and references that hold"),
    (statement, "of", "attest: what is said of the result"),
    (session, "attested", "attest: compress and seal the cookie"),
    (jwt.Signer, "sign", "attest: sign the token"),
    (Delivery, "holder", "resource: who asks (with the cookie)"),
    (Resources, "with_generation", "resource: read and open it, with the generation"),
    (jwe, "encrypt", "resource: encrypt it to the TEE's key"),
)


def meter(owner: Any, name: str, stage: str, spent: Spent) -> None:
    """Charge every call of ``owner.name`` to ``stage``."""
    inner = getattr(owner, name)

    def metered(*arguments: Any, **options: Any) -> Any:
        since = time.thread_time()
        try:
            return inner(*arguments, **options)
        finally:
            spent.add(stage, since)

    setattr(owner, name, metered)


def serve(settings: Settings, *, fine: bool) -> None:
    """Serve with every handler metered; a line on standard input asks for the accounts."""
    spent, floor, inside = Spent(), Spent(), Spent()
    primitives = Floor(settings.directory)
    commits = rows_written = 0
    commit = AuditLog._commit

    def metered_commit(self: AuditLog, rows: Any) -> Any:
        nonlocal commits, rows_written
        commits, rows_written = commits + 1, rows_written + len(rows)
        since = time.thread_time()
        try:
            return commit(self, rows)
        finally:
            spent.add("audit rows", since)

    AuditLog._commit = metered_commit  # type: ignore[method-assign]
    for owner, name, stage in FINE if fine else ():
        meter(owner, name, stage, inside)
    store = opening.open_store(settings)
    program = worker.Program(settings, store)
    front = program._front

    def application(request: HttpRequest) -> Answer | Awaitable[Answer]:
        parts = request.target.split(b"/")
        if parts[1] == b"floor":
            return primitives.step(parts[2], floor)
        if not primitives.learnt and parts[3:] == [b"attest"]:
            return learn(request)
        stage = parts[3].decode() if request.target.startswith(b"/kbs/") else "other"
        since = time.thread_time()
        answer = front(request)
        spent.add(stage, since)
        return answer if isinstance(answer, Answer) else Metered(answer, spent, stage)

    async def learn(request: HttpRequest) -> Answer:
        """Have the first attestation that a later one is like, its chain known by then, tell the floor its sizes."""
        answering = front(request)
        answer = answering if isinstance(answering, Answer) else await answering
        if rcar._CHAINS.cut(request.body)[2] and answer.status == 200:
            primitives.learn(request.body, answer)
        return answer

    listener = socket.create_server(("127.0.0.1", 0))

    def account() -> None:
        line = sys.stdin.readline()
        if not line:
            return
        told: dict[str, Any] = {"by": spent.by, "floor": floor.by, "fine": inside.by, "server": time.process_time()}
        told |= {"commits": commits, "rows": rows_written, "cryptography": CRYPTOGRAPHY}
        if line.strip().startswith("group "):
            primitives.group = max(1, round(float(line.split()[1])))
        if line.strip() == "alone":
            told["alone"] = primitives.alone()
        print(json.dumps(told), flush=True)

    def ready(_: Ending) -> None:
        program._doors.workers[PUBLIC].application = application
        asyncio.get_running_loop().add_reader(0, account)
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)

    worker_process.run(program, {PUBLIC: listener}, ready)
    store.close()


if __name__ == "__main__":
    serve(Settings(**json.loads(sys.argv[1])), fine="--fine" in sys.argv[2:])
