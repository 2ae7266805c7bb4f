"""How long starting takes: ``adyton --help``, and ``adyton run`` of a plain image in the store beside ``runc run``.

Floors, measured in the same run: the bare interpreter, and runc with the same root file system and an equal config.json
on the host. Needs root. ``python bench/start.py [--quick] [--json]``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.runtime.conftest import CONFIG, busybox_layer, write_layout

HELP_LIMIT = 100.0  # ms
RUN_LIMIT = 300.0  # ms over runc
COMMAND = ["/bin/echo", "hello"]
_STAGE = re.compile(r"adyton:\s+([0-9.]+) ms (\w+)$")


def timed(argv: list[str], environment: dict[str, str], expected: str) -> tuple[float, str]:
    """Milliseconds, and standard error; the output must begin as it should."""
    began = time.perf_counter()
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    took = 1000 * (time.perf_counter() - began)
    if not done.stdout.startswith(expected):
        raise SystemExit(f"wrong output: {done.stdout!r}")
    return took, done.stderr


def bundle(directory: Path, layer: bytes) -> Path:
    """The bundle that the agent would write for the same document, for runc on the host."""
    from adyton.agent import limits, mounts, seccomp, spec, users
    from adyton.protocol.workload import Workload

    root = directory / "rootfs"
    root.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", str(root)], input=layer, check=True)
    limited = limits.here()
    process = spec.Process(users.User(0, 0), {"PATH": "/bin", "FROM_IMAGE": "1"}, "bench", terminal=False)
    config = spec.build(
        Workload(image=f"sha256:{'0' * 64}", command=COMMAND, cwd="/work"),
        process,
        limited,
        [*mounts.kernel_mounts(), *mounts.own_files(directory, "bench", host_network=False)],
        root=root,
        cgroup="/adyton-bench",
        seccomp=seccomp.load(Path("/usr/share/containers/seccomp.json"), limited.capabilities),
    )
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def measure(rounds: int) -> dict[str, Any]:
    """Medians over ``rounds``, taken in turns so that neighbours' load falls on all alike."""
    adyton = [sys.executable, "-m", "adyton"]
    with tempfile.TemporaryDirectory(prefix="adyton-") as name:
        home = Path(name)
        environment = {**os.environ, "ADYTON_HOME": str(home)}
        layer = busybox_layer()
        write_layout(home / "image", [layer], {**CONFIG, "User": "0", "Volumes": {}})
        runc_bundle = bundle(home / "bundle", layer)
        image = f"oci:{home}/image:latest"
        run = [*adyton, "run", "--rm", "--verbose", image, *COMMAND]
        runc = ["runc", "--root", str(home / "runc"), "run", "-b", str(runc_bundle), "bench"]
        try:
            for _ in range(2):  # the service starts, the image comes into the store
                timed(run, environment, "hello\n")
            programs = {
                "python": ([sys.executable, "-c", "pass"], ""),
                "help": ([*adyton, "--help"], "Usage: adyton"),
                "runc": (runc, "hello\n"),
                "run": (run, "hello\n"),
            }
            times: dict[str, list[float]] = {key: [] for key in programs}
            stages: dict[str, list[float]] = {}
            for _ in range(rounds):
                for key, (argv, expected) in programs.items():
                    took, said = timed(argv, environment, expected)
                    times[key].append(took)
                    for line in said.splitlines():
                        if match := _STAGE.match(line):
                            stages.setdefault(match[2], []).append(float(match[1]))
        finally:
            subprocess.run([*adyton, "devtee", "stop", "--force"], env=environment, capture_output=True, check=False)
            shutil.rmtree(home / "runc", ignore_errors=True)
    median = {key: statistics.median(values) for key, values in times.items()}
    return {
        "help_ms": median["help"],
        "help_over_python": median["help"] / median["python"],
        "run_ms": median["run"],
        "runc_ms": median["runc"],
        "run_minus_runc_ms": median["run"] - median["runc"],
        "run_over_runc": median["run"] / median["runc"],
        "stages_ms": {key: statistics.median(values) for key, values in stages.items()},
        "python_ms": median["python"],
        "rounds": rounds,
    }


def table(result: dict[str, Any]) -> None:
    """For a person."""
    print(
        f"adyton --help         {result['help_ms']:7.1f} ms   at most {HELP_LIMIT:.0f}; bare python {result['python_ms']:.1f}"
    )
    print(f"adyton run            {result['run_ms']:7.1f} ms")
    print(f"runc run              {result['runc_ms']:7.1f} ms   same root file system and command")
    print(f"difference            {result['run_minus_runc_ms']:7.1f} ms   at most {RUN_LIMIT:.0f}")
    print("where it goes (adyton run --verbose):")
    known = sum(result["stages_ms"].values())
    for name, took in {**result["stages_ms"], "command line, exit": result["run_ms"] - known}.items():
        print(f"  {name:<20}{took:7.1f} ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    result = measure(5 if arguments.quick else 25)
    table(result)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
