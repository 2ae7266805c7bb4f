"""What verifying evidence costs over the signatures that it must verify, for each TEE; and against ``dcap-qvl``.

``<tee>_warm_over_floor``   endorsements are verified, frozen objects: against the signature verifications that this
                            evidence alone needs; to be at most 1.15 times those and 30 µs
``<tee>_cold_over_floor``   everything from files' bytes, nothing remembered, against the sum of all signature
                            verifications, certificates and CRLs as the library offers it (which compares names and
                            algorithms, and reads the issuer's key); to be at most 1.4 times those
``..._cold_over_bare_keys`` the same against the keys' own verifications, by which the goal is harder
``<tee>_..._over_dcap_qvl`` how many times as many a second as PyPI's ``dcap-qvl``, from the same bytes in the same run:
                            warm, with a PCK leaf never seen under known intermediates, cold
``tpm_log_over_hashing``    reading and replaying an event log, against its digests alone; to be at most twice those
``se_warm_over_floor``      an answer of IBM's firmware, which has no signature: to take at most 150 µs
``two_processes_over_one``  verifications a second of two processes over those of one
``import_ms``               a fresh interpreter importing ``adyton.tee.snp``; and, apart, with its verifier

Floors are bare library calls on objects that are loaded already. Ours and the other are timed in turn, round by round, in
CPU time, and the best round of each counts. Before anything is timed each part checks its own work: verdicts with and
without memory are equal, the other implementation agrees, a changed byte is refused. Evidence is real where the vectors are
(``ADYTON_VECTORS``), else forged under a development root; parts without either are named and left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # when run as a file

from bench.parts.timing import Missing, Pair, Result, measure

PARTS = ("verify_snp", "verify_dcap", "verify_vectors", "verify_machines", "verify_fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--only", help="only figures whose names begin so")
    arguments = parser.parse_args()
    results: dict[str, float] = {}
    if not arguments.json:
        print(f"{'':30}{'ours':>12}{'other':>12}{'ratio':>8}  {'goal':<16}")
    for part in PARTS:
        try:
            pairs: list[Pair] = importlib.import_module(f"bench.parts.{part}").pairs()
        except (Missing, ImportError) as error:
            print(f"{part.removeprefix('verify_')}: left out: {error}", file=sys.stderr)
            continue
        for pair in pairs:
            if arguments.only and not pair.name.startswith(arguments.only):
                continue
            result = measure(pair, 400 if arguments.quick else 3000)
            results[pair.name] = round(result.ratio, 3)
            results[f"{pair.name.partition('_over_')[0]}_us"] = round(result.ours * 1e6, 1)
            if not arguments.json:
                _tell(result)
    if not arguments.only:
        _machine(results, quick=arguments.quick, quiet=arguments.json)
    if arguments.json:
        print(json.dumps(results))


def _tell(result: Result) -> None:
    met = {True: "met", False: "MISSED", None: ""}[result.met]
    ours, other = result.ours * 1e6, result.other * 1e6
    print(f"{result.pair.name:30}{ours:9.1f} µs{other:9.1f} µs{result.ratio:8.3f}  {result.goal:<16}{met}")


def _machine(results: dict[str, float], *, quick: bool, quiet: bool) -> None:
    from bench.parts.verify_process import import_times, two_over_one

    scaling = two_over_one(0.5 if quick else 3)
    package, whole = (seconds * 1000 for seconds in import_times())
    results |= {"two_processes_over_one": round(scaling, 3)}
    results |= {"import_ms": round(package, 1), "import_with_verifier_ms": round(whole, 1)}
    if quiet:
        return
    print(f"{'two_processes_over_one':30}{'':24}{scaling:8.3f}  {'>= 1.7':<16}{'met' if scaling >= 1.7 else 'MISSED'}")
    for name, took in (("import_ms", package), ("import_with_verifier_ms", whole)):
        print(f"{name:30}{took:9.1f} ms{'':20}  {'<= 80':<16}{'met' if took <= 80 else 'MISSED'}")


if __name__ == "__main__":
    main()
