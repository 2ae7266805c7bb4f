"""What a worker's parts counted, put together for ``/metrics``: the same for a broker's workers and for the services alone."""

from __future__ import annotations

from collections.abc import Mapping

from adyton.broker.door.tls import Identity
from adyton.broker.policy.rego import RegoEngine
from adyton.broker.running.metrics import Metrics, Snapshot
from adyton.broker.running.readiness import expiries
from adyton.broker.running.serving import Doors
from adyton.crypto.x509 import EndorsementSet


def counted(
    metrics: Metrics,
    *,
    engine: RegoEngine,
    doors: Doors,
    endorsements: EndorsementSet,
    identity: Identity | None,
    in_flight: int,
    counters: Mapping[str, int],
    moments: Mapping[str, float],
) -> Snapshot:
    """All of it now. ``counters`` and ``moments`` (Unix seconds) are further ones (``exposition``)."""
    ends = {f"endorsement|{kind}": at for kind, at in expiries(endorsements).items()}
    if identity is not None:
        ends["tls_certificate_expires"] = identity.expires
    return metrics.snapshot(
        {"policy_evaluations": engine.asked, "policy_remembered": engine.known, **doors.counters(), **counters},
        {"connections_open": doors.standing, "requests_in_flight": in_flight, "workers": 1},
        {**ends, **moments},
    )
