"""What a handshake costs the broker: auth, attest, get over loopback HTTP, kept alive, from another process.

The server is one worker over real SNP evidence of a development root and a 1 kB resource bound to a workload; its data
lie on a disk (``--data``), so every audit row is waited for. Three accounts of CPU, per handshake, from one run:

* ``primitives``: what it cannot do without, alone (``parts/broker_floor.py`` lists it): the three operations of its
  cryptography, that is one P-384 verification, one ES256 signature and one encryption to the TEE's key; and sealed
  cookies, digests, JSON, reads and durable audit rows. ``…_over_cryptography`` are ratios to the three operations only;
* ``handlers``: what the handlers and the writing of audit rows burn, by the thread's clock, inside the server;
* ``server``: what the whole server process burns, all threads, by the kernel's account.

Two cores that share one set of execution units slow each other down: here a P-384 verification takes 340 µs beside an
idle core and up to 700 µs beside a busy one. So the primitives are measured where the handlers are, under the load that
they are under: rounds of handshakes alternate with rounds in which the same clients send the same bytes over the same
connections of the same process to paths that do the primitives, once each a handshake, and answer with as many bytes.
Each is timed as a handler is. Ratios are of neighbouring rounds; the median counts. What the primitives take in a tight
loop beside an idle core is printed for comparison, and no ratio uses it.

Clients send on several connections at once, as a fleet does: rows that arrive together share one wait for the disk.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from adyton.broker.running import opening, server
from adyton.broker.settings import Settings
from adyton.crypto import jwe, jwk
from adyton.devtee.root import DevelopmentRoot
from adyton.devtee.snp import ReportFields, issue_report
from adyton.protocol import rcar, workload
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.protocol.workload import Workload
from adyton.rats import binding
from adyton.tee.snp import json_form
from adyton.tee.snp.abi import SnpReport

SERVER = Path(__file__).with_name("parts") / "broker_server.py"
MEASUREMENT = bytes(range(48))
SECRET = bytes(1024)
PATH = ResourcePath("default", "key", "1")
KBS, FLOOR = "/kbs/v0", "/floor"
DOCUMENT = workload.write(Workload(image="sha256:" + "ab" * 32, command=["/bin/true"]))
REFERENCES: dict[str, list[Any]] = {
    "snp_launch_measurement": [MEASUREMENT.hex()],
    **{name: list(range(256)) for name in ("snp_bootloader", "snp_microcode", "snp_snp_svn", "snp_tee_svn")},
}


# ---------------------------------------------------------------- the load


class Client:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method: str, path: str, body: bytes | None = None, cookie: str = "") -> tuple[bytes, str]:
        """Body and cookie of a 200; anything else ends the run."""
        self.connection.request(method, path, body, {"Cookie": cookie} if cookie else {})
        answer = self.connection.getresponse()
        read = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {read[:200]!r}")
        return read, (answer.getheader("Set-Cookie") or "").partition(";")[0]


class Fleet:
    """Attesters that share one key and one machine: what they cost the broker is what differs between them."""

    def __init__(self, root: DevelopmentRoot, *, chain: str) -> None:
        self.root = root
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.members = jwk.from_public(self.key.public_key()).members
        self.chain = [pair for pair in root.certificates if chain == "full" or pair[0] == "VCEK"]

    def body(self, nonce: str) -> bytes:
        """An ``/attest`` body for one challenge."""
        bound = binding.report_data(binding.primary_object(nonce, self.members))
        fields = ReportFields(report_data=bound.value, measurement=MEASUREMENT, host_data=DOCUMENT.digest.value)
        report = SnpReport.parse(issue_report(self.root.signer, fields))
        return rcar.attestation_body(nonce, self.members, json_form.to_json(report, list(self.chain)), DOCUMENT.raw)


Prepared = list[tuple[bytes, str]]


def begin(client: Client, fleet: Fleet, count: int, base: str = KBS) -> Prepared:
    """``count`` challenges, each with the body that answers it."""
    begun = [client.ask("POST", f"{base}/auth", rcar.request_body("snp")) for _ in range(count)]
    return [(fleet.body(rcar.parse_challenge(body)[0]), cookie) for body, cookie in begun]


def finish(clients: list[Client], prepared: Prepared, base: str = KBS) -> float:
    """Attest and get, on all connections at once; wall seconds."""
    lock, queue = threading.Lock(), list(prepared)

    def run(client: Client) -> None:
        while True:
            with lock:
                if not queue:
                    return
                body, cookie = queue.pop()
            _, cookie = client.ask("POST", f"{base}/attest", body, cookie)
            client.ask("GET", f"{base}/resource/{PATH}", None, cookie)

    started = time.perf_counter()
    with ThreadPoolExecutor(len(clients)) as pool:
        for done in [pool.submit(run, client) for client in clients]:
            done.result()
    return time.perf_counter() - started


def latencies(client: Client, fleet: Fleet, count: int) -> list[float]:
    """Whole handshakes one after the other, in ms, without the time in which the evidence is made."""
    found = []
    for _ in range(count):
        t0 = time.perf_counter()
        body, cookie = client.ask("POST", "/kbs/v0/auth", rcar.request_body("snp"))
        t1 = time.perf_counter()
        attest = fleet.body(rcar.parse_challenge(body)[0])
        t2 = time.perf_counter()
        _, cookie = client.ask("POST", "/kbs/v0/attest", attest, cookie)
        sealed, _ = client.ask("GET", f"/kbs/v0/resource/{PATH}", None, cookie)
        found.append((t1 - t0 + time.perf_counter() - t2) * 1e3)
        if jwe.decrypt(fleet.key, sealed) != SECRET:
            raise SystemExit("the released value is not the secret")
    return found


# ---------------------------------------------------------------- the run


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--quick", action="store_true", help="fewer rounds")
    options.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options.add_argument("--data", type=Path, help="directory on the disk to measure [default: the temporary one]")
    options.add_argument("--chain", choices=("full", "vcek"), default="full", help="certificates in the evidence")
    options.add_argument("--connections", type=int, default=16)
    options.add_argument(
        "--fine", action="store_true", help="also what the handlers are made of, dearer by the metering"
    )
    options.add_argument(
        "--store",
        choices=("embedded", "postgresql", "both"),
        default="embedded",
        help="a file, or a PostgreSQL that is started here, on the same disk, with fsync; its own CPU is not counted",
    )
    given = options.parse_args()
    found = {}
    for store in ("embedded", "postgresql") if given.store == "both" else (given.store,):
        with tempfile.TemporaryDirectory(dir=given.data) as directory, database(store, given.data) as url:
            result = measure(Path(directory), given, url)
        print(f"store: {store}")
        report(result)
        found[store] = result["summary"]
    if given.json:
        print(json.dumps(found if given.store == "both" else found[given.store]))


@contextmanager
def database(store: str, directory: Path | None) -> Iterator[str]:
    """The address of an empty database, or nothing for the file."""
    if store == "embedded":
        yield ""
        return
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.postgresql import Server

    running = Server.make(Path(tempfile.mkdtemp(dir=directory)) if directory else None)
    try:
        running.start()
        yield running.url(running.database())
    finally:
        running.close()


def measure(directory: Path, given: argparse.Namespace, url: str = "") -> dict[str, Any]:
    rounds, each = (3, 120) if given.quick else (8, 400)
    now = datetime.fromtimestamp(time.time(), UTC)
    root = DevelopmentRoot.create(directory / "root", now)
    settings = server.prepare(
        Settings(
            data=str(directory / "data"),
            database=url,
            environment="test",
            development_roots=[root.fingerprint],
            endorsements=[str(root.endorsements)],
        ),
        tls=False,
    )
    store = opening.open_store(settings)
    for name, value in REFERENCES.items():
        store.references.set("default", name, value, None, now)
    store.resources.set("default", PATH, SECRET, Binding(workloads=[str(DOCUMENT.digest)]), now)
    store.close()
    given_settings = json.dumps({name: getattr(settings, name) for name in settings.__struct_fields__})
    with (directory / "log").open("w") as log:  # a line per request, as an operator would keep them
        process = subprocess.Popen(
            [sys.executable, str(SERVER), given_settings, *(["--fine"] if given.fine else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = json.loads(process.stdout.readline())["port"]

        def account(question: str = "") -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{question}\n")
            process.stdin.flush()
            read: dict[str, Any] = json.loads(process.stdout.readline())
            return read

        fleet = Fleet(root, chain=given.chain)
        clients = [Client(port) for _ in range(given.connections)]
        latencies(clients[0], fleet, 30)  # checks the work, and warms the worker
        for base in (KBS, FLOOR):
            finish(clients, begin(clients[0], fleet, 60, base), base)
        told = account("alone")
        spent: list[dict[str, Any]] = []
        for _ in range(rounds):
            one: dict[str, Any] = {"alone": told["alone"], "cryptography": told["cryptography"]}
            for base in (KBS, FLOOR):
                before = account(f"group {one['together']}" if base is FLOOR else "")
                prepared = begin(clients[0], fleet, each, base)
                wall = finish(clients, prepared, base)
                after = account()
                kind = "by" if base is KBS else "floor"
                for part in (kind, "fine") if base is KBS else (kind,):
                    one[part] = {
                        name: (after[part][name] - before[part].get(name, 0.0)) / each * 1e6 for name in after[part]
                    }
                one[f"{kind}_server"] = (after["server"] - before["server"]) / each * 1e6
                if base is KBS:
                    one["per_second"] = each / wall
                    one["body"] = len(prepared[0][0])
                    one["together"] = (after["rows"] - before["rows"]) / max(after["commits"] - before["commits"], 1)
            spent.append(one)
        times = sorted(latencies(clients[0], fleet, each))
    finally:
        process.terminate()
        process.wait(30)
    return summary(spent, times, given.connections)


def summary(spent: list[dict[str, Any]], times: list[float], connections: int) -> dict[str, Any]:
    def middle(pick: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(pick(one) for one in spent)

    def floor(one: dict[str, Any]) -> float:
        return float(sum(one["floor"].values()))

    def cryptography(one: dict[str, Any]) -> float:
        return float(sum(one["floor"][name] for name in one["cryptography"]))

    def handlers(one: dict[str, Any]) -> float:
        return float(sum(one["by"].values()))

    return {
        "primitives": {name: statistics.median(one["floor"][name] for one in spent) for name in spent[0]["floor"]},
        "stages": {
            name: statistics.median(one["by"].get(name, 0.0) for one in spent) for name in sorted(spent[0]["by"])
        },
        "fine": {name: statistics.median(one["fine"].get(name, 0.0) for one in spent) for name in spent[0]["fine"]},
        "summary": {
            "handlers_over_primitives": round(middle(lambda one: handlers(one) / floor(one)), 3),
            "server_over_primitives": round(middle(lambda one: one["by_server"] / floor(one)), 3),
            "handlers_over_cryptography": round(middle(lambda one: handlers(one) / cryptography(one)), 3),
            "server_over_cryptography": round(middle(lambda one: one["by_server"] / cryptography(one)), 3),
            "audit_over_handlers": round(middle(lambda one: one["by"].get("audit rows", 0.0) / handlers(one)), 3),
            "primitives_us": round(middle(floor), 1),
            "cryptography_us": round(middle(cryptography), 1),
            "cryptography_alone_us": round(spent[0]["alone"], 1),
            "handlers_us": round(middle(handlers), 1),
            "server_us": round(middle(lambda one: one["by_server"]), 1),
            "bare_server_us": round(middle(lambda one: one["floor_server"]), 1),
            "handshakes_per_second": round(middle(lambda one: one["per_second"]), 1),
            "rows_per_commit": round(middle(lambda one: one["together"]), 1),
            "p50_ms": round(times[len(times) // 2], 3),
            "p99_ms": round(times[int(len(times) * 0.99)], 3),
            "connections": connections,
            "attest_body_bytes": spent[0]["body"],
        },
    }


def report(result: dict[str, Any]) -> None:
    found = result["summary"]
    print(f"{'per handshake':36}{'CPU µs':>10}")
    for name, value in result["primitives"].items():
        print(f"  floor: {name:27}{value:10.1f}")
    print(f"  {'floor, together':34}{found['primitives_us']:10.1f}")
    print(f"  {'(cryptography in a tight loop)':34}{found['cryptography_alone_us']:10.1f}")
    for name, value in result["stages"].items():
        print(f"  handlers: {name:24}{value:10.1f}")
    print(
        f"  {'handlers, together':34}{found['handlers_us']:10.1f}  {found['handlers_over_primitives']:.2f} x floor, "
        f"{found['handlers_over_cryptography']:.2f} x its cryptography"
    )
    for name, value in result["fine"].items():
        print(f"    {name:41}{value:8.1f}")
    print(f"  {'server with the floor alone':34}{found['bare_server_us']:10.1f}")
    print(
        f"  {'whole server process':34}{found['server_us']:10.1f}  {found['server_over_primitives']:.2f} x floor, "
        f"{found['server_over_cryptography']:.2f} x its cryptography"
    )
    print(
        f"{found['handshakes_per_second']:.0f} handshakes/s on {found['connections']} connections, one worker, "
        f"{found['rows_per_commit']:.1f} audit rows a commit; alone p50 {found['p50_ms']:.2f} ms, "
        f"p99 {found['p99_ms']:.2f} ms; body of {found['attest_body_bytes']} bytes"
    )


if __name__ == "__main__":
    main()
