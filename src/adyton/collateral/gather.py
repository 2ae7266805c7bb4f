"""All that a piece of evidence needs, in one set: from the cache, and from the configured sources where it has to be.

Verification stays what it is, offline and pure: it takes the set and believes nothing in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from adyton.collateral.collector import Collector
from adyton.collateral.items import Item
from adyton.collateral.needs import after, needs
from adyton.collateral.wanted import Wanted
from adyton.crypto.x509 import EndorsementSet
from adyton.errors import AdytonError, EndorsementError, NotFound, OperatorError, TooMany, Unavailable
from adyton.rats.ports import Progress

LABEL = "endorsements"


def gather(
    tee: str,
    evidence: bytes,
    collector: Collector,
    now: datetime,
    *,
    edition: str = "early",
    seconds: float = 60.0,
    problems: list[AdytonError] | None = None,
    progress: Progress | None = None,
) -> EndorsementSet:
    """Endorsements valid at ``now`` for this evidence. ``collector`` holds cache and sources; each item has ``seconds``.

    What cannot be had goes into ``problems``, and verification says what it misses; without ``problems`` it is raised.
    ``MalformedEvidence`` if the bytes are not that TEE's evidence.
    """
    return as_set(
        items(tee, evidence, collector, now, edition=edition, seconds=seconds, problems=problems, progress=progress)
    )


def items(
    tee: str,
    evidence: bytes,
    collector: Collector,
    now: datetime,
    *,
    edition: str = "early",
    seconds: float = 60.0,
    problems: list[AdytonError] | None = None,
    progress: Progress | None = None,
) -> list[Item]:
    """As ``gather``, each for itself."""
    waiting = list(needs(tee, evidence, edition=edition))
    found: list[Item] = []
    done: set[Wanted] = set()
    while waiting:
        wanted = waiting.pop(0)
        if wanted in done:
            continue
        done.add(wanted)
        if progress is not None:
            progress.advance(LABEL, len(done) - 1, len(done) + len(waiting))
        try:
            item = collector.get(wanted, at=now, seconds=seconds)
            waiting += after(item, tee, edition=edition)
        except (EndorsementError, NotFound, TooMany, Unavailable, OperatorError) as error:
            if problems is None:
                raise
            problems.append(error)
            continue
        found.append(item)
    if progress is not None:
        progress.advance(LABEL, len(done), len(done))
    return found


def as_set(found: Iterable[Item]) -> EndorsementSet:
    """The items and their issuers as verification takes them."""
    sets = [item.endorsements() for item in found]
    return EndorsementSet(
        [certificate for each in sets for certificate in each.certificates],
        [crl for each in sets for crl in each.crls],
        [document for each in sets for document in each.documents],
    )
