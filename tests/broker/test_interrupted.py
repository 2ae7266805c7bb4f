"""A broker that dies while it carries out what was agreed to: afterwards it is known how far it came, and nothing is done twice."""

from __future__ import annotations

import os
import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.broker.test_recorded import AT, NOW, Broker, actions, votes

from adyton.broker.people import interrupted
from adyton.broker.people.approvals import Approvals
from adyton.errors import Conflict
from adyton.stores import proposals
from adyton.stores.sqlite import Store

REFERENCE = ("PUT", "references/a", {"value": 1})
QUOTAS = ("PUT", "tenant/quotas", {"quotas": {"references": 7}})
LATE = datetime.fromtimestamp(AT, UTC) + timedelta(seconds=proposals.GRACE + 1)


def killed(directory: Path, statement: int, vote: tuple[str, str, Any], token: str) -> bool:
    """Vote in a child that is killed before its n-th statement that writes; whether it got to the end."""
    child = os.fork()
    if child:
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert ended in {0, -signal.SIGKILL}
        return ended == 0
    try:
        broker = Broker(directory, others=True)
        left = statement

        def count(text: str) -> None:
            nonlocal left
            if text.lstrip()[:6].upper() not in {"SELECT", "PRAGMA"}:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        broker.store._database._writer.set_trace_callback(count)  # type: ignore[attr-defined]
        os._exit(0 if broker.ask(*vote, token=token).status == 200 else 1)
    finally:
        os._exit(2)


def made(store: Store, request: tuple[str, str, Any]) -> bool:
    if request is REFERENCE:
        return bool(store.references.list("default"))
    found = store.registry.find("default")
    return found is not None and found.settings.quotas == {"references": 7}


@pytest.mark.parametrize("request_", [REFERENCE, QUOTAS], ids=["one transaction", "several"])
def test_killed_anywhere_it_is_decided_again(tmp_path: Path, request_: tuple[str, str, Any]) -> None:
    broker = Broker(tmp_path / "whole")
    number, digest, token = votes(broker, request=request_)
    vote = ("POST", f"approvals/{number}/votes", {"digest": digest, "choice": "approve"})
    broker.close()
    seen = set[str]()
    for statement in range(100):
        there = tmp_path / "killed"
        shutil.copytree(tmp_path / "whole", there)
        over = killed(there, statement, vote, token)
        after = Broker(there)
        left = after.store.proposals.get("default", number)
        assert left is not None
        count = interrupted.decide(after.store, NOW)
        found = after.store.proposals.get("default", number)
        assert found is not None and count == (left.state == "executing") and found.state != "executing"
        assert made(after.store, request_) is (found.state in {"done", "unknown"}), (statement, found.state)
        if found.state in {"failed", "unknown"}:
            assert actions(after)[-1] == f"approval.{found.state}" and "propose it again" in found.value.outcome
            assert after.store.audit.list("default", limit=1000)[-1].row.actor == "the broker"
        if found.state == "unknown":
            assert "tenant.quotas" in found.value.outcome
        rows = actions(after)
        assert interrupted.decide(after.store, LATE) == 0
        again = after.ask(*vote, token=token).status
        assert again == (200 if found.state == "pending" else 409)
        assert (actions(after) == rows) is (found.state != "pending")
        seen.add(found.state)
        after.close()
        shutil.rmtree(there)
        if over:
            break
    assert over and seen == {"pending", "failed", "done"} | ({"unknown"} if request_ is QUOTAS else set())


def test_who_is_late_with_one_that_was_given_up_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker(tmp_path / "a")
    number, digest, token = votes(broker)
    execute = Approvals._execute

    def late(*given: Any) -> None:
        assert interrupted.decide(broker.store, NOW) == 0  # who lives, and began just now, is left alone
        assert broker.store.proposals.abandoned(LATE.timestamp())
        undone = broker.store.proposals.move("default", number, "executing", "failed", "given up")
        given[1].deed.settle(("approval.failed", number))
        assert undone
        execute(*given)

    monkeypatch.setattr(Approvals, "_execute", late)
    answer = broker.ask("POST", f"approvals/{number}/votes", {"digest": digest, "choice": "approve"}, token=token)
    assert answer.status == 409 and b"proposal_given_up" in answer.body
    assert not made(broker.store, REFERENCE) and actions(broker)[-1] == "approval.failed"
    with pytest.raises(Conflict):
        broker.store.proposals.note("default", number, ["key.destroy kbs:///a/b/c"])
    broker.close()
