"""What policies cost a decision: one seen before, one never seen, an activation beside decisions, and ten thousand of them.

* ``seen_us``: a policy's answer that is remembered (CPU µs); ``unseen_ms``: one that must be evaluated (elapsed, median).
* ``activation_delay_*``, ``reference_delay_*``: how much later an appraisal ends while policies are set and activated, or
  reference values set, beside it, as a process that decides all the time sees it: p99 meanwhile, and the worst one, less
  p99 without; medians of rounds in turns. ``…_worst_of_all_ms``: the worst of all rounds. ``…_quiet_worst_ms``: the same of
  rounds in which nothing is set, which is the machine's.
* ``recorded_delay_*``: the same beside activations that are made as an administrator's are, with their rows in the record, of
  decisions that write theirs.
* ``full_over_empty``: appraise, read and decide with 100,000 resources and 10,000 policies over the same with none, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # when run as a file

from bench.appraisal import NOW, PATH, Bench, cpu

from adyton.appraisal.policies import DEFAULT_CPU
from adyton.appraisal.rego_check import check
from adyton.broker.policy.policies import ATTESTATION_RULES
from adyton.broker.record.recorded import Recorded
from adyton.broker.running.process import SWITCH_SECONDS, settle
from adyton.protocol import ear
from adyton.protocol.audit_row import AuditRow
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.rats.types import JsonValue

_DATA: dict[str, JsonValue] = {"reference": {}}
SMALL = "package policy\nimport rego.v1\nallow if input.x == {}\n"


async def seen(bench: Bench, rounds: int) -> float:
    result = await bench.appraise()
    policy, data, key = check(DEFAULT_CPU), _DATA, "the same"
    document = result.primary.annotated
    bench.engine.evaluate(policy, ATTESTATION_RULES, document, data, key)

    async def ask() -> None:
        await bench.engine.evaluate_async(policy, ATTESTATION_RULES, document, data, key)

    return float(await cpu(ask, rounds))


async def unseen(bench: Bench, rounds: int) -> float:
    result = await bench.appraise()
    policy, data = check(DEFAULT_CPU), _DATA
    took = []
    for _ in range(rounds):
        started = time.perf_counter()
        await bench.engine.evaluate_async(policy, ATTESTATION_RULES, result.primary.annotated, data)
        took.append((time.perf_counter() - started) * 1000)
    return statistics.median(took)


Setting = Callable[[int], object]


async def delays(bench: Bench, changes: int, rounds: int) -> dict[str, float]:
    """How much later appraisals end beside activations, or changes of reference values, than without."""
    book, store = bench.book, bench.store

    def activate(number: int) -> None:
        text = f"{DEFAULT_CPU}\nbench{number} := {time.time_ns()}\n"
        book.set("default", "attestation", "default_cpu", text, NOW)

    def publish(number: int) -> None:
        end = NOW + timedelta(days=2)
        store.references.set("default", "snp_microcode", [115, number, time.time_ns() % 1000], end, NOW)

    return await compared(bench.appraise, {"activation": activate, "reference": publish}, changes, rounds)


async def recorded(bench: Bench, changes: int, rounds: int) -> dict[str, float]:
    """How much later a decision with its row ends beside activations with theirs."""
    store, row = bench.store, AuditRow("attest", "allowed")

    def activate(number: int) -> None:
        text = f"{DEFAULT_CPU}\nrecorded{number} := {time.time_ns()}\n"
        with Recorded(store, "default", NOW, actor="bench", peer="") as deed:
            stored = bench.book.set("default", "attestation", "default_cpu", text, NOW)
            name = f"attestation/{stored.id}@{stored.version}"
            deed.settle(("policy.set", name), ("policy.activate", name))

    async def decide() -> None:
        await bench.appraise()
        await store.audit.append_async("default", row, NOW)

    return await compared(decide, {"recorded": activate}, changes, rounds)


async def compared(
    decide: Callable[[], Awaitable[object]], settings: dict[str, Setting], changes: int, rounds: int
) -> dict[str, float]:
    """Decisions beside each of ``settings`` against decisions beside nothing, in turns; medians of the rounds."""
    took: dict[str, list[list[float]]] = {name: [] for name in ("quiet", *settings)}
    for _ in range(rounds):
        for name, times in took.items():
            done = asyncio.Event()
            running = asyncio.ensure_future(_decisions(decide, done))
            for number in range(changes):
                if name in settings:
                    await asyncio.to_thread(settings[name], number)
                await asyncio.sleep(0.05)
            done.set()
            times.append(sorted(await running))
    figures = {}
    p99 = {name: [one[int(len(one) * 0.99) - 1] for one in every] for name, every in took.items()}
    worst = {name: [one[-1] for one in every] for name, every in took.items()}
    for name in settings:
        for what, of in (("p99", p99), ("worst", worst)):
            later = [beside - without for beside, without in zip(of[name], p99["quiet"], strict=True)]
            figures[f"{name}_delay_{what}_ms"] = statistics.median(later)
        figures[f"{name}_delay_worst_of_all_ms"] = max(worst[name]) - min(p99["quiet"])
    first = next(iter(settings))
    figures[f"{first}_quiet_worst_ms"] = statistics.median(worst["quiet"]) - statistics.median(p99["quiet"])
    return figures


async def _decisions(decide: Callable[[], Awaitable[object]], until: asyncio.Event) -> list[float]:
    took = []
    while not until.is_set():
        started = time.perf_counter()
        await decide()
        took.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(0.001)
    return took


def fill(bench: Bench, resources: int, policies: int) -> None:
    """Through the store, many to a transaction: only their number matters."""
    store = bench.store
    with store.policies._database.write() as transaction:
        sealer = store.sealer
        for number in range(policies):
            name, text = f"policy-{number}", SMALL.format(number).encode()
            sealed = sealer.seal(text, "default", "policy resource", name, 1)
            transaction.execute(
                "INSERT INTO policies VALUES (?,?,?,?,?,?)", ("default", "resource", name, 1, NOW.timestamp(), sealed)
            )
            transaction.execute("INSERT INTO policy_heads VALUES (?,?,?,?,?)", ("default", "resource", name, 1, 1))
    kept = store.resources.get("default", PATH)
    assert kept is not None
    template = next(iter(store.policies._database.read("SELECT * FROM resources WHERE tenant='default'")))
    marks = ",".join("?" * len(template))
    paths = [str(ResourcePath("many", "key", str(number))) for number in range(resources)]
    with store.policies._database.write() as transaction:
        transaction.executemany(
            f"INSERT INTO resources VALUES ({marks})",
            [(template[0], path, *template[2:]) for path in paths],
        )


async def judged(bench: Bench, rounds: int) -> float:
    async def once() -> None:
        result = await bench.appraise()
        claims = ear.parse(bench.write(result))
        stored = bench.store.resources.get("default", PATH)
        await bench.releaser.decide("default", claims, PATH, stored, NOW)

    return float(await cpu(once, rounds, batches=1))


async def run(directory: Path, *, quick: bool) -> dict[str, float]:
    found: dict[str, float] = {}
    rounds = 500 if quick else 3000
    benches = [Bench(directory / name) for name in ("empty", "full")]
    try:
        for bench in benches:
            bench.store.resources.set("default", PATH, bytes(1024), Binding(any_workload_i_accept=True), NOW)
        empty, full = benches
        found["seen_us"] = await seen(empty, rounds)
        found["unseen_ms"] = await unseen(empty, rounds // 5)
        fill(full, 10_000 if quick else 100_000, 1_000 if quick else 10_000)
        ratios = [await judged(full, rounds // 5) / await judged(empty, rounds // 5) for _ in range(7)]
        found["full_over_empty"] = statistics.median(ratios)
        settle()  # as a broker does before it serves
        found |= await delays(full, 10 if quick else 40, 2 if quick else 5)
        found |= await recorded(full, 10 if quick else 40, 2 if quick else 5)
    finally:
        for bench in benches:
            bench.engine.close()
            bench.store.close()
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a tenth of resources and policies")
    parser.add_argument("--json", action="store_true", help="only the figures, as one JSON object")
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)  # as the broker's processes do
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(run(Path(directory), quick=options.quick))
    if not options.json:
        for name, value in found.items():
            print(f"{name:<34}{value:>10.3f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
