"""Approved changes that a broker began to carry out and did not end: they are decided again by what the store says of them.

None is carried out a second time. Of one of which nothing was changed that is known, and it failed; of another it is known
what was, and the rest is for its proposer: most changes, asked for again, do what is left.
"""

from __future__ import annotations

import logging
from datetime import datetime

from adyton.broker.record.recorded import Recorded
from adyton.stores.proposals import StoredProposal
from adyton.stores.sqlite import Store

WHO = "the broker"
NOTHING = "the broker ended before anything of it was changed: propose it again"
_LOG = logging.getLogger(__name__)


def decide(store: Store, now: datetime) -> int:
    """Decide all that are to be, each with its row; how many."""
    decided = 0
    for tenant, found in store.proposals.abandoned(now.timestamp()):
        decided += _one(store, tenant, found, now)
    return decided


def _one(store: Store, tenant: str, found: StoredProposal, now: datetime) -> bool:
    with Recorded(store, tenant, now, actor=WHO, peer="") as deed:
        state, outcome = ("unknown", _partly(found)) if found.value.steps else ("failed", NOTHING)
        if not store.proposals.give_up(tenant, found, outcome):
            deed.undo()
            return False
        deed.settle((f"approval.{state}", f"{found.id} {found.value.action} {outcome}"))
    _LOG.warning("proposal %s of tenant %s is %s: %s", found.id, tenant, state, outcome)
    return True


def _partly(found: StoredProposal) -> str:
    done = ", ".join(found.value.steps)
    return f"the broker ended after {done[:180]}: look at what is left, and propose it again"
