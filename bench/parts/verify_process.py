"""What is not a ratio of calls: two processes against one, and what importing a room costs and brings along."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from bench.parts.verify_snp import Snp

NOTHING_OF = ("adyton.broker", "adyton.agent", "adyton.cli", "httptools", "uvloop", "http", "asyncio", "ssl")
_IMPORT = """
import json, sys, time
before = set(sys.modules)
start = time.perf_counter()
import adyton.tee.snp
package = time.perf_counter() - start
import adyton.tee.snp.verify
print(json.dumps([package, time.perf_counter() - start, sorted(set(sys.modules) - before)]))
"""


def import_times(tries: int = 9) -> tuple[float, float]:
    """Seconds that ``adyton.tee.snp`` takes in a fresh interpreter, and with all that verifying needs; the best of some.

    Neither brings the broker, the agent, the command line or a web library along.
    """
    best = [float("inf"), float("inf")]
    for _ in range(tries):
        ran = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
        *took, modules = json.loads(ran.stdout)
        foreign = [name for name in modules if name.split(".")[0] in NOTHING_OF or name.startswith(NOTHING_OF[:3])]
        assert not foreign, foreign
        best = [min(pair) for pair in zip(best, took, strict=True)]
    return best[0], best[1]


def two_over_one(seconds: float) -> float:
    """Verifications a second of two processes at once, over those of one: warm SNP reports."""
    snp = Snp()
    snp.check()
    one, two = 0.0, 0.0
    for _ in range(3):  # in turn, and the best of each: a neighbour that is busy now is not a lack of scaling
        one = max(one, _rate(snp.warm, 1, seconds))
        two = max(two, _rate(snp.warm, 2, seconds))
    return two / one


def _rate(call: Callable[[], object], processes: int, seconds: float) -> float:
    """All processes count calls over the same span."""
    context = multiprocessing.get_context("fork")
    pipes: list[Connection] = []
    workers = []
    begin = time.monotonic() + 0.2
    for _ in range(processes):
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_count, args=(call, begin, begin + seconds, theirs))
        worker.start()
        workers.append(worker)
        pipes.append(ours)
    total: int = sum(pipe.recv() for pipe in pipes)
    for worker in workers:
        worker.join()
    return total / seconds


def _count(call: Callable[[], object], begin: float, end: float, pipe: Connection) -> None:
    for _ in range(20):
        call()
    while time.monotonic() < begin:
        pass
    count = 0
    while time.monotonic() < end:
        call()
        count += 1
    pipe.send(count)
