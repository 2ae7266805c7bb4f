"""Memory of the broker over a million handshakes that nobody goes on with (POST auth, and no attest).

One worker, plain, embedded store, started as an operator starts it. ``resident_mib``: after the first tenth, when all that
is made once is made; ``grown_mib``: how much more it is in the end, in all processes of the broker, and
``grown_bytes_a_handshake``. Before and after, one whole handshake must give the secret.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # when run as a file

from bench.load import broker
from bench.parts import processes

CONNECTIONS = 8


def run(directory: Path, count: int) -> dict[str, float]:
    with broker(directory / "broker", workers=1, tls=False) as running:
        told = []
        took = 0.0
        for part in (count // 10, count // 2 - count // 10, count - count // 2):
            took += running.load.challenges(CONNECTIONS, part)
            told.append(sum(processes.resident(running.process.pid).values()))
        running.attested()
    return {
        "handshakes": count,
        "resident_mib": told[0],
        "half_way_mib": told[1],
        "end_mib": told[2],
        "grown_mib": told[2] - told[0],
        "grown_bytes_a_handshake": (told[2] - told[0]) * 2**20 / (count - count // 10),
        "auths_per_second": count / took,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="50,000 of them")
    options.add_argument("--json", action="store_true", help="only the figures, as one JSON object")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = run(Path(directory), 50_000 if given.quick else 1_000_000)
    if not given.json:
        for name, value in found.items():
            print(f"{name:<20}{value:>12,.1f}")
    print(json.dumps({name: round(value, 1) for name, value in found.items()}))


if __name__ == "__main__":
    main()
