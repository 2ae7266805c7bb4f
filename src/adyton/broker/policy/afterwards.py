"""What happens after an answer has left: recording decisions, and asking versions that are on trial.

One thread of its own with an engine of its own, fed by a bounded queue: a trial costs a decision nothing but a look at a
table, changes no answer, and its failure refuses nobody. What does not fit into the queue is counted and passed over; so
is a trial that has just failed, for a second, and any while many decisions wait: recording comes first, and one tenant's
slow trials cost no other's. Only one thread touches what is below, but for ``note``.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec

from adyton.appraisal import vector
from adyton.broker.audit import appraised
from adyton.broker.policy.concluding import conclusion
from adyton.broker.policy.policies import RESOURCE_POLICY, PolicyBook, TenantView
from adyton.broker.policy.rego import RegoEngine
from adyton.errors import AdytonError
from adyton.protocol import recording
from adyton.protocol.audit_row import AuditRow, DryRunSaid, PolicyUsed
from adyton.protocol.ear import TokenClaims
from adyton.protocol.recording import Appraised, Asked, Recording
from adyton.protocol.resource import ResourcePath
from adyton.rats.result import AttestationResult, Mismatch, TrustVector
from adyton.rats.types import JsonValue, RootKind
from adyton.stores.policy_trials import DryRun
from adyton.stores.sqlite import Store

MAX_WAITING = 1000
MAX_OF_TENANT = 250
BUSY = 100
KNOWN_SECONDS = 1.0
FLUSH_SECONDS = 0.5
FAILED_SECONDS = 1.0
SILENT_SECONDS = 1.0
MAX_ROWS_PER_SECOND = 10
MAX_BATCH = 64
_LOG = logging.getLogger(__name__)


class Event(msgspec.Struct, frozen=True):
    """A decision that was made: an attestation's ``result``, or a release's ``claims`` and what was asked for.

    ``generation``: the tenant's, by which the session began.
    """

    tenant: str
    at: datetime
    sequence: int
    result: AttestationResult | None = None
    claims: TokenClaims | None = None
    path: ResourcePath | None = None
    query: Mapping[str, str] = msgspec.field(default_factory=dict)
    released: bool = False
    policies: tuple[PolicyUsed, ...] = ()
    generation: int = 0


@dataclass(slots=True)
class _Known:
    """What is to be done for a tenant, as it was a moment ago."""

    until: float
    generation: int
    keep: int
    days: int
    runs: tuple[DryRun, ...]


class Afterwards:
    """The queue and its thread, of one worker."""

    def __init__(self, store: Store, book: PolicyBook) -> None:
        self._store = store
        self._book = book
        self._engine = RegoEngine()
        self._waiting: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of the next two, for as long as a sum takes
        self._of_tenant: Counter[str] = Counter()
        self._counts: Counter[tuple[str, str, str, int, str]] = Counter()
        self._known: dict[str, _Known] = {}
        self._bodies: dict[str, list[bytes]] = {}
        self._rest_until: dict[tuple[str, str, str], float] = {}
        self._rows: Counter[tuple[int, str, str, str]] = Counter()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flushed = self._silent_until = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin; rows of the record are written by ``loop``."""
        self._loop = loop
        self._flushed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="afterwards", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits, and end."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(5.0)
            self._thread = None
        self._engine.close()

    def attested(self, tenant: str, at: datetime, sequence: int, result: AttestationResult) -> None:
        """``note`` of an attestation, where anything is wanted."""
        if self.wanted(tenant, result.generation):
            self.note(Event(tenant, at, sequence, result, generation=result.generation))

    def wanted(self, tenant: str, generation: int) -> bool:
        """Whether anything is to be done about this tenant's decisions, as far as is known.

        A session that began after recording was asked for is recorded; a trial sees what comes a second after it began.
        """
        known = self._known.get(tenant)
        return (
            known is None
            or known.keep > 0
            or bool(known.runs)
            or known.generation < generation
            or known.until < time.monotonic()
        )

    def note(self, event: Event) -> None:
        """A decision was made and its row is written. Never waits, never raises."""
        if self._thread is None:
            return
        with self._lock:
            fits = self._waiting.qsize() < MAX_WAITING and self._of_tenant[event.tenant] < MAX_OF_TENANT
            if fits:
                self._of_tenant[event.tenant] += 1
        if fits:
            self._waiting.put(event)
            return
        known = self._known.get(event.tenant)
        for run in known.runs if known is not None else ():
            self._count(event.tenant, run, "skipped")

    def _count(self, tenant: str, run: DryRun, outcome: str) -> None:
        with self._lock:
            self._counts[tenant, run.kind, run.id, run.version, outcome] += 1

    def _run(self) -> None:
        while True:
            event = None
            with suppress(queue.Empty):
                event = self._waiting.get(timeout=FLUSH_SECONDS)
                if event is None:
                    break
                self._taken(event.tenant)
                self._guarded(partial(self._handle, event))
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._flush()
        self._flush()

    def _taken(self, tenant: str) -> None:
        with self._lock:
            self._of_tenant[tenant] -= 1
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]

    def _handle(self, event: Event) -> None:
        view = self._book.view(event.tenant, event.at)
        known = self._known.get(event.tenant)
        if known is None or known.generation < event.generation or known.until < time.monotonic():
            until = time.monotonic() + KNOWN_SECONDS
            runs = tuple(self._store.dry_runs.list(event.tenant))
            known = _Known(until, view.generation, view.record.keep, view.record.days, runs)
            self._known[event.tenant] = known
        if known.keep:
            bodies = self._bodies.setdefault(event.tenant, [])
            bodies.append(recording.encode(recorded(event)))
            if len(bodies) >= MAX_BATCH:
                self._flush()
        for run in known.runs:
            self._try(run, event, view)

    def _try(self, run: DryRun, event: Event, view: TenantView) -> None:
        name = (event.tenant, run.kind, run.id)
        compared = _Compared(self._book, self._engine, view, run)
        if not compared.concerns(event):
            return
        if self._rest_until.get(name, 0.0) > time.monotonic() or self._waiting.qsize() > BUSY:
            self._count(event.tenant, run, "skipped")
            return
        said, would, code = "", "", ""
        try:
            said, would = compared.ask(event)
        except AdytonError as error:
            code = error.code
            self._rest_until[name] = time.monotonic() + FAILED_SECONDS
        outcome = "failed" if code else "same" if said == would else "differ"
        self._count(event.tenant, run, outcome)
        if outcome != "same":
            self._write_down(run, event, compared.digest, said, would, code)

    def _write_down(  # noqa: PLR0917 -- one value each
        self, run: DryRun, event: Event, digest: str, said: str, would: str, code: str
    ) -> None:
        second = (int(time.monotonic()), event.tenant, run.kind, run.id)
        self._rows[second] += 1
        if self._rows[second] > MAX_ROWS_PER_SECOND or self._loop is None:
            return
        policy = PolicyUsed(run.kind, run.id, run.version, digest)
        row = AuditRow(
            action="policy.dry-run-said",
            decision="allowed",
            resource=event.path.uri if event.path is not None else "",
            dry_run=DryRunSaid(policy, event.sequence, said, would, code),
        )
        writing = self._store.audit.append_async(event.tenant, row, event.at)
        try:
            asyncio.run_coroutine_threadsafe(writing, self._loop).add_done_callback(lambda done: done.exception())
        except RuntimeError:  # the loop has ended
            writing.close()

    def _guarded(self, what: Callable[[], None]) -> None:
        """Nothing that happens here may end it, or reach a decision. Said at most once a second: each decision comes by."""
        try:
            what()
        except AdytonError as error:
            self._say("what follows a decision could not be kept: %s [%s]", error.message, error.code)
        except Exception:  # noqa: BLE001 -- see above
            self._say("what follows a decision failed:\n%s", traceback.format_exc())

    def _say(self, text: str, *facts: str) -> None:
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + SILENT_SECONDS
            _LOG.warning(text, *facts)

    def _flush(self) -> None:
        """Write what was counted and recorded; of one tenant that cannot be written to, all others' is."""
        self._flushed = now = time.monotonic()
        self._rows.clear()
        with self._lock:
            counts, self._counts = self._counts, Counter()
        bodies, self._bodies = self._bodies, {}
        for tenant in {key[0] for key in counts}:
            found = {(kind, name, version) for whose, kind, name, version, _ in counts if whose == tenant}
            counted = [self._counted(counts, tenant, *one) for one in sorted(found)]
            self._guarded(partial(self._store.dry_runs.count, tenant, counted))
        for tenant, lines in bodies.items():
            self._guarded(partial(self._record, tenant, lines))
        if max(len(self._rest_until), len(self._known)) > MAX_WAITING:
            self._forget(now)

    def _record(self, tenant: str, lines: list[bytes]) -> None:
        known = self._known[tenant]
        now = datetime.fromtimestamp(time.time(), UTC)
        self._store.recordings.add(tenant, lines, now, keep=known.keep, since=now - timedelta(days=known.days))

    def _forget(self, now: float) -> None:
        """What was known a moment ago, of tenants that nobody asks for any more."""
        self._known = {tenant: known for tenant, known in self._known.items() if known.until > now}
        self._rest_until = {name: until for name, until in self._rest_until.items() if until > now}

    @staticmethod
    def _counted(
        counts: Counter[tuple[str, str, str, int, str]], tenant: str, kind: str, name: str, version: int
    ) -> tuple[str, str, int, int, int, int, int]:
        same, differ, failed, skipped = (
            counts[tenant, kind, name, version, outcome] for outcome in ("same", "differ", "failed", "skipped")
        )
        return kind, name, version, same, differ, failed, skipped


class _Compared:
    """One trial: the version beside the one that decided."""

    def __init__(self, book: PolicyBook, engine: RegoEngine, view: TenantView, run: DryRun) -> None:
        self._book, self._engine, self._view, self._run = book, engine, view, run
        self.digest = ""

    def concerns(self, event: Event) -> bool:
        """Whether the policy had, or would have had, its say."""
        kind, name = self._run.kind, self._run.id
        if kind == "resource" and name == RESOURCE_POLICY:
            return event.path is not None
        used = event.policies if event.result is None else appraised(event.result)
        return any((one.kind, one.id) == (kind, name) for one in used) and (
            event.result is not None or kind == "resource" or not name.startswith("default_")
        )

    def ask(self, event: Event) -> tuple[str, str]:
        """What was said and what would be; raises what the evaluation raises."""
        run, book = self._run, self._book
        kept = book.stored_version(self._view.tenant, run.kind, run.id, run.version)
        self.digest, text = kept.digest, kept.text
        policy, rules = book.question(run.kind, text)
        if run.kind == "resource":
            now = book.policy(self._view, "resource", run.id)
            return (self._allows(event, now.text) if now is not None else "allow"), self._allows(event, text)
        said, would = [], []
        for one in pieces(event):
            if not run.id.endswith(f"_{one.tee_class}"):
                continue
            results = self._engine.evaluate(policy, rules, one.input, self._view.data, self._view.data_key)
            concluded = floored(conclusion(results)[0], one)
            said.append(f"{one.name} {_shown(TrustVector(one.vector))}")
            would.append(f"{one.name} {_shown(concluded)}")
        return ", ".join(said), ", ".join(would)

    def _allows(self, event: Event, text: str) -> str:
        policy, rules = self._book.question("resource", text)
        claims, path = event.claims, event.path
        if claims is None or path is None:
            return ""
        data, key = resource_data(self._view, path, event.query)
        results = self._engine.evaluate(policy, rules, claims.raw, data, key)
        return "allow" if results["allow"] is True else "deny"


def resource_data(
    view: TenantView, path: ResourcePath, query: Mapping[str, str]
) -> tuple[dict[str, JsonValue], tuple[str, ...]]:
    """What a resource policy reads below ``data``, and what stands for it."""
    parts: list[JsonValue] = [path.repository, path.type, path.tag]
    data: dict[str, JsonValue] = {**view.data, "plugin": "resource", "resource-path": parts, "query": dict(query)}
    return data, (view.data_key, str(path), repr(sorted(query.items())))


def floored(found: TrustVector, one: Appraised) -> TrustVector:
    """With the floors that no policy lifts, as they were found when the evidence came."""
    failed = [Mismatch("hardware", "", code) for code in one.unmet]
    return vector.with_floor(found, RootKind(one.root), failed)


def pieces(event: Event) -> tuple[Appraised, ...]:
    """The evidence of a decision, each piece as policies read it, with the vector that it had."""
    if event.result is not None:
        return tuple(
            [
                Appraised(one.name, one.tee, one.root.value, dict(one.annotated), one.vector.values, one.unmet)
                for one in event.result.appraisals
            ]
        )
    found = []
    for submodule in event.claims.submodules if event.claims is not None else ():
        seen = recording.of_evidence(submodule.name, submodule.evidence)
        found.append(Appraised(seen.name, seen.tee, seen.root, seen.input, submodule.vector.values, seen.unmet))
    return tuple(found)


def recorded(event: Event) -> Recording:
    """A decision as it is kept."""
    at = event.at.isoformat(timespec="seconds").replace("+00:00", "Z")
    if event.result is not None:
        return Recording(
            kind="attestation",
            time=at,
            sequence=event.sequence,
            appraised=pieces(event),
            policies=appraised(event.result),
        )
    if event.claims is None or event.path is None:
        raise ValueError("a release has claims and a path")
    path = (event.path.repository, event.path.type, event.path.tag)
    asked = Asked(path, dict(event.claims.raw), dict(event.query), event.released)
    return Recording(kind="resource", time=at, sequence=event.sequence, asked=asked, policies=event.policies)


def _shown(found: TrustVector) -> str:
    return f"{found.status.text} " + "/".join(map(str, found.values))
