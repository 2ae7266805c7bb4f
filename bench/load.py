"""Whole handshakes against a whole broker: one worker and two, plain and TLS, file and PostgreSQL.

A handshake is auth, attest and get of one resource of 1 kB over kept connections: SEV-SNP evidence of 18 kB, CoCo's CPU
policy with reference values, every audit row on the disk before its answer. The broker is started as an operator starts
it; its clients are one process on the same machine, so they take their share of its two cores. Evidence is made before
the clock runs; each worker has as many of the connections as any other. For each combination of workers, transport and store:

* ``handshakes_per_second``, ``p50_ms`` and ``p99_ms`` of each handshake, all connections busy;
* ``cpu_us``: CPU of all the broker's processes a handshake; ``database_us`` of PostgreSQL's;
* ``half_load_p50_ms``, ``half_load_p99_ms``: handshakes begin at half that rate, whether or not the ones before are done
  (median of three times: one pause of the disk or of the machine makes a hundred handshakes late, more than one in a
  hundred of a run that is short);
* ``gets_per_second``, ``get_p50_ms``, ``get_p99_ms``: the resource alone, on one attested session.

Ratios: ``half_load_p99_over_p50`` and ``half_load_p99_over_p50_tls`` (one worker, file; both brokers stand, rounds in turn, so
that both see the same neighbours and the same disk; median, and the worst round); ``two_workers_cpu`` and ``two_workers_throughput`` (over one
worker's, plain, file, prepared requests: attest and get; rounds in turn, median). ``two_processes`` is the floor of the last one: what two
independent processes do of a handshake's cryptography over what one does, on this machine at that time. ``client_us``
is the client's own CPU a handshake, which two workers must do without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # when run as a file

from bench.broker import DOCUMENT, PATH, REFERENCES, SECRET, Fleet, database
from bench.parts import processes
from bench.parts.load_client import Line, Load, Prepared, ok, request

from adyton.broker.running import opening, server
from adyton.broker.settings import Settings
from adyton.crypto import jwe
from adyton.devtee.root import DevelopmentRoot
from adyton.protocol import rcar
from adyton.protocol.release import Binding

SERVER = Path(__file__).with_name("parts") / "load_server.py"
CONNECTIONS = 16
_VERIFY = """
import sys, time
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
key = ec.generate_private_key(ec.SECP384R1()); how = ec.ECDSA(hashes.SHA384()); text = bytes(672)
signature, public = key.sign(text, how), key.public_key()
sys.stdin.readline()
end, count = time.perf_counter() + float(sys.argv[1]), 0
while time.perf_counter() < end:
    public.verify(signature, text, how); count += 1
print(count)
"""


class Broker:
    """A running broker, and clients of it."""

    def __init__(self, directory: Path, *, workers: int, tls: bool, url: str) -> None:
        self.workers = workers
        now = datetime.fromtimestamp(time.time(), UTC)
        self.root = DevelopmentRoot.create(directory / "root", now)
        settings = server.prepare(
            Settings(
                data=str(directory / "data"), database=url, environment="test", port=0, workers=workers,
                development_roots=[self.root.fingerprint], endorsements=[str(self.root.endorsements)],
                session_seconds=3600, page=False,
            ),
            tls=tls,
        )  # fmt: skip
        store = opening.open_store(settings)
        for name, value in REFERENCES.items():
            store.references.set("default", name, value, None, now)
        store.resources.set("default", PATH, SECRET, Binding(workloads=[str(DOCUMENT.digest)]), now)
        store.close()
        given = json.dumps({name: getattr(settings, name) for name in settings.__struct_fields__})
        with (directory / "log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SERVER), given], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        if not told:
            raise SystemExit((directory / "log").read_text()[-2000:])
        port = int(told.strip().rpartition(":")[2])
        self.load = Load(port, rcar.request_body("snp"), str(PATH), tls=tls)
        self.fleet = Fleet(self.root, chain="full")

    def prepared(self, count: int) -> list[Prepared]:
        """Challenges, each with the body that answers it."""

        async def begin(lines: list[Line]) -> object:
            return await self.load.begin(lines, count)

        begun: Any = self.load.run(1, begin)
        return [(self.fleet.body(rcar.parse_challenge(body)[0]), cookie) for body, cookie in begun]

    def attested(self) -> bytes:
        """The cookie of a session that has attested; its resource is checked to be the secret."""
        ((body, cookie),) = self.prepared(1)

        async def once(lines: list[Line]) -> object:
            _, found = ok(await lines[0].ask(request("POST", "/kbs/v0/attest", body, cookie)))
            sealed, _ = ok(await lines[0].ask(request("GET", f"/kbs/v0/resource/{PATH}", b"", found)))
            return found, sealed

        answered: Any = self.load.run(1, once)
        session, value = answered
        if jwe.decrypt(self.fleet.key, value) != SECRET:
            raise SystemExit("the released value is not the secret")
        return bytes(session)

    def timed(self, prepared: list[Prepared], *, auth: bool = True, rate: float = 0.0) -> dict[str, float]:
        """Handshakes, and what they cost."""
        before = after = own = 0.0

        async def work(lines: list[Line]) -> object:
            nonlocal before, after, own
            before, own = processes.cpu(self.process.pid), time.process_time()
            done = await self.load.handshakes(lines, prepared, auth=auth, rate=rate)
            after, own = processes.cpu(self.process.pid), time.process_time() - own
            return done

        seconds, took = self._run(work)
        return {
            "per_second": len(prepared) / seconds,
            "p50": took[len(took) // 2],
            "p99": took[int(len(took) * 0.99)],
            "cpu": (after - before) / len(prepared) * 1e6,
            "client": own / len(prepared) * 1e6,
        }

    def gets(self, cookie: bytes, count: int) -> dict[str, float]:
        """The resource alone."""

        async def work(lines: list[Line]) -> object:
            return await self.load.gets(lines, cookie, count)

        seconds, took = self._run(work)
        return {
            "gets_per_second": count / seconds,
            "get_p50_ms": took[len(took) // 2],
            "get_p99_ms": took[int(len(took) * 0.99)],
        }

    def _run(self, work: Callable[[list[Line]], Awaitable[object]]) -> Any:
        owners = partial(processes.owners, self.process.pid, self.load.port) if self.workers > 1 else None
        return self.load.run(CONNECTIONS, work, owners, self.workers)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)


@contextmanager
def broker(directory: Path, *, workers: int, tls: bool, url: str = "") -> Iterator[Broker]:
    """One on a directory of its own, warm."""
    directory.mkdir()
    running = Broker(directory, workers=workers, tls=tls, url=url)
    try:
        for _ in range(2):
            running.attested()
        running.timed(running.prepared(100))
        yield running
    finally:
        running.close()


def combination(running: Broker, count: int, database_cpu: Callable[[], float]) -> dict[str, float]:
    """All figures of one."""
    prepared = running.prepared(count)
    before = database_cpu()
    full = running.timed(prepared)
    spent = database_cpu() - before
    halves = [running.timed(running.prepared(count), rate=full["per_second"] / 2) for _ in range(3)]
    half = {name: statistics.median(one[name] for one in halves) for name in ("p50", "p99")}
    return {
        "handshakes_per_second": full["per_second"],
        "p50_ms": full["p50"],
        "p99_ms": full["p99"],
        "cpu_us": full["cpu"],
        "database_us": spent / count * 1e6,
        "half_load_p50_ms": half["p50"],
        "half_load_p99_ms": half["p99"],
        "half_load_p99_over_p50": half["p99"] / half["p50"],
        **running.gets(running.attested(), 2 * count),
    }


def workers(directory: Path, rounds: int, each: int) -> dict[str, float]:
    """Two workers over one, in turns."""
    with ExitStack() as stack:
        one = stack.enter_context(broker(directory / "alone", workers=1, tls=False))
        two = stack.enter_context(broker(directory / "two", workers=2, tls=False))
        cpu, throughput, client = [], [], []
        for _ in range(rounds):
            found = [running.timed(running.prepared(each), auth=False) for running in (one, two)]
            cpu.append(found[1]["cpu"] / found[0]["cpu"])
            throughput.append(found[1]["per_second"] / found[0]["per_second"])
            client.append(found[1]["client"])
    return {
        "two_workers_cpu": statistics.median(cpu),
        "two_workers_throughput": statistics.median(throughput),
        "client_us": statistics.median(client),
    }


def half_load(directory: Path, rounds: int, each: int) -> dict[str, float]:
    """Plain and TLS at half of what they can, in turns."""
    with ExitStack() as stack:
        brokers = {
            name: stack.enter_context(broker(directory / f"half{name}", workers=1, tls=bool(name)))
            for name in ("", "_tls")
        }
        ratios: dict[str, list[float]] = {name: [] for name in brokers}
        for _ in range(rounds):
            for name, running in brokers.items():
                full = running.timed(running.prepared(each))
                half = running.timed(running.prepared(each), rate=full["per_second"] / 2)
                ratios[name].append(half["p99"] / half["p50"])
    found = {}
    for name, of_rounds in ratios.items():
        found[f"half_load_p99_over_p50{name}"] = statistics.median(of_rounds)
        found[f"half_load_p99_over_p50{name}_worst"] = max(of_rounds)
    return found


def verifying(count: int, seconds: float) -> int:
    """P-384 verifications of so many processes that have nothing to do with one another."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _VERIFY, str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    time.sleep(0.5)
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(int(process.communicate()[0]) for process in running)


def run(directory: Path, *, quick: bool, disk: Path | None) -> dict[str, Any]:
    count = 200 if quick else 1500
    found: dict[str, Any] = {}
    for store in ("embedded", "postgresql"):
        for tls in (False, True):
            for number in (1, 2):
                name = f"{number} {'TLS' if tls else 'plain'} {store}"
                with (
                    database(store, disk) as url,
                    broker(directory / name.replace(" ", "-"), workers=number, tls=tls, url=url) as running,
                ):
                    found[name] = combination(running, count, _burnt(url))
                print(_line(name, found[name]), flush=True)
    found |= workers(directory, 3 if quick else 7, 150 if quick else 600)
    seconds = 1.0 if quick else 3.0
    found["two_processes"] = statistics.median(verifying(2, seconds) / verifying(1, seconds) for _ in range(3))
    found |= half_load(directory, 3 if quick else 7, 150 if quick else 1000)
    return found


def _burnt(url: str) -> Callable[[], float]:
    """CPU seconds of the PostgreSQL at ``url``, if there is one."""
    if not url:
        return lambda: 0.0
    place = Path(url.partition("host=")[2].partition("&")[0]) / "data" / "postmaster.pid"
    number = int(place.read_text().splitlines()[0])
    return lambda: processes.cpu(number)


def _line(name: str, one: dict[str, float]) -> str:
    return (
        f"{name:22}{one['handshakes_per_second']:7.0f}/s p50 {one['p50_ms']:6.1f} p99 {one['p99_ms']:6.1f} ms"
        f" CPU {one['cpu_us']:5.0f} + {one['database_us']:4.0f} µs;"
        f" half load p50 {one['half_load_p50_ms']:5.1f} p99 {one['half_load_p99_ms']:5.1f};"
        f" gets {one['gets_per_second']:6.0f}/s p50 {one['get_p50_ms']:5.1f} p99 {one['get_p99_ms']:5.1f}"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="fewer handshakes")
    options.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options.add_argument("--data", type=Path, help="directory on the disk to measure [default: the temporary one]")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.data) as directory:
        found = run(Path(directory), quick=given.quick, disk=given.data)
    for name, value in found.items():
        if not isinstance(value, dict):
            print(f"{name:<28}{value:>8.2f}")
    if given.json:
        rounded = {
            name: {key: round(number, 3) for key, number in value.items()}
            if isinstance(value, dict)
            else round(value, 3)
            for name, value in found.items()
        }
        print(json.dumps(rounded))


if __name__ == "__main__":
    main()
