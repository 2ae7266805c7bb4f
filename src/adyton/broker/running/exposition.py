"""Snapshots as Prometheus reads them. The library is imported when somebody asks for metrics, not before."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from adyton import __version__
from adyton.broker.running.metrics import BUCKETS, Snapshot, Times

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_COUNTERS = {
    "policy_evaluations": "Policy questions that the engine was asked.",
    "policy_remembered": "Policy questions whose answer was known.",
    "connections": "Connections taken, by all listeners.",
    "connections_refused": "Connections turned away because there were too many.",
    "tls_failures": "Connections that ended before their TLS stood.",
    "key_uses_reserved": "Encryptions with AES keys that workers have taken, in blocks.",
    "key_uses_late_blocks": "Blocks of a key's last quarter of encryptions: rotate such keys.",
    "key_uses_refused": "Encryptions refused because a key version has made as many as it may.",
    "maintenance_failures": "Rounds of maintenance that failed.",
    "log_lines_dropped": "Lines of the log of requests that nobody read in time.",
}
_NOW = {
    "connections_open": "Connections that stand now.",
    "requests_in_flight": "Requests that are being answered now.",
    "workers": "Worker processes that report.",
}
_TIMED = {"audit_append": "Writing audit rows, by commit: until they are on the disk."}
_MOMENTS = {
    "tls_certificate_expires": "When the broker's own certificate ends, Unix seconds.",
    "started": "When the oldest worker started, Unix seconds.",
}


def render(whole: Snapshot, *, environment: str) -> bytes:
    """The text of ``/metrics``."""
    from prometheus_client import CollectorRegistry, generate_latest

    class _Once:
        def collect(self) -> Iterator[Metric]:
            return _families(whole, environment)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once())
    return generate_latest(registry)


def _families(whole: Snapshot, environment: str) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

    yield InfoMetricFamily("adyton_build", "What runs.", value={"version": __version__, "environment": environment})
    requests = CounterMetricFamily(
        "adyton_requests", "Answered requests by area, result and code.", labels=("area", "result", "code")
    )
    store = CounterMetricFamily("adyton_store_errors", "Requests that failed at the store.", labels=("code",))
    failed: dict[str, int] = {}
    for key, number in sorted(whole.requests.items()):
        area, result, code = key.split("|")
        requests.add_metric((area, result, code), number)
        if code.startswith("store_"):
            failed[code] = failed.get(code, 0) + number
    for code, number in failed.items():
        store.add_metric((code,), number)
    yield requests
    yield store
    if whole.tenants:
        tenants = CounterMetricFamily(
            "adyton_tenant_requests", "Answered requests by tenant and result.", labels=("tenant", "result")
        )
        for key, number in sorted(whole.tenants.items()):
            tenants.add_metric(key.split("|"), number)
        yield tenants
    seconds = HistogramMetricFamily("adyton_request_seconds", "How long answers took, by area.", labels=("area",))
    for area, times in sorted(whole.seconds.items()):
        buckets, total = _buckets(times)
        seconds.add_metric((area,), buckets, total)
    yield seconds
    for name, text in _TIMED.items():
        family = HistogramMetricFamily(f"adyton_{name}_seconds", text)
        family.add_metric((), *_buckets(whole.timed.get(name, Times())))
        yield family
    for name, text in _COUNTERS.items():
        yield CounterMetricFamily(f"adyton_{name}", text, value=whole.counters.get(name, 0))
    for name, text in _NOW.items():
        yield GaugeMetricFamily(f"adyton_{name}", text, value=whole.now.get(name, 0))
    for name, text in _MOMENTS.items():
        if name in whole.moments:
            yield GaugeMetricFamily(f"adyton_{name}_timestamp_seconds", text, value=whole.moments[name])
    yield from _labelled(whole)


def _labelled(whole: Snapshot) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    expiry = GaugeMetricFamily(
        "adyton_endorsement_expires_timestamp_seconds", "When the first endorsement of a kind ends.", labels=("kind",)
    )
    tcb = GaugeMetricFamily(
        "adyton_tcb_oldest_timestamp_seconds", "Date of the oldest TCB level that attested lately.", labels=("tee",)
    )
    for name, value in sorted(whole.moments.items()):
        kind, _, label = name.partition("|")
        if kind == "endorsement":
            expiry.add_metric((label,), value)
        elif kind == "tcb":
            tcb.add_metric((label,), value)
    yield expiry
    yield tcb


def _buckets(times: Times) -> tuple[list[tuple[str, float]], float]:
    bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
    return list(zip(bounds, map(float, accumulate(times.counts)), strict=True)), times.total
