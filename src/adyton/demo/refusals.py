"""Six ways to get at the secret, each refused. The only things done behind the programs' backs are the attacks."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from adyton.demo.network import RecordingWire
from adyton.demo.stage import KEY, Stage

REFUSED = 125  # what `adyton run` says when Adyton, not the workload, said no
_JSON = {"Content-Type": "application/json"}


def refusals(stage: Stage, wire: RecordingWire, document: Path, digest: str, foreign: subprocess.Popen[bytes]) -> None:
    """All six, in order."""
    run = ("run", "--rm", "--workload", str(document), "-p", "127.0.0.1::8080", stage.reference)
    stage.screen.step("Refusal 1: somebody changes a layer in the registry and in the host's store")
    with _changed_layers(stage):
        _refused(stage, "changed layer", run, "digest", asked=False)
    stage.screen.step("Refusal 2: the host starts it with another command")
    other = stage.workload("other.toml", wire.url, "/bin/busybox", "cat", "/model/weights.csv")
    _refused(stage, "changed command line", ("run", "--rm", "--workload", str(other), stage.reference), "not_bound")
    stage.screen.step("Refusal 3: the host starts it with the debug bit")
    _debug(stage, wire, digest)
    stage.screen.step("Refusal 4: somebody on the wire plays an old attestation again")
    _replay(stage, wire)
    stage.screen.step("Refusal 5: the same guest and image, under another root")
    foreign.wait(60)
    elsewhere = stage.home("foreign")
    with stage.program("devtee", "serve", "--guest", str(stage.guest), environment=elsewhere) as service:
        service.wait_until((stage.work / "foreign" / "run" / "devtee.sock").exists)
        _refused(stage, "foreign root", run, "untrusted", environment=elsewhere)
    stage.screen.step("Refusal 6: the owner has withdrawn the reference value")
    stage.adyton("reference", "delete", "snp_launch_measurement")
    _refused(stage, "no reference value", run, "reference_missing")


def _refused(
    stage: Stage,
    what: str,
    command: tuple[str, ...],
    word: str,
    *,
    asked: bool = True,
    environment: dict[str, str] | None = None,
) -> None:
    """Run ``command``; it must end with ``REFUSED``, print nothing of the workload's, and say ``word`` to the owner.

    ``asked``: whether the broker was asked, so that its audit has the reason; else the agent's own message has it.
    """
    began = time.monotonic()
    stage.screen.command(["adyton", *command])
    result = stage.call(*command, environment=environment)
    said = [line for line in result.stderr.strip().splitlines() if not line.startswith("adyton: workload document")]
    stage.screen.tell("\n".join(said))
    why = stage.owner_reads().because(word) if asked else next((line for line in said if word in line), "")
    ok = result.returncode == REFUSED and word in why and not result.stdout
    got = why if ok else f"status {result.returncode}: {' '.join(said)[-200:]}"
    stage.done(what, "refused", got, ok=ok, began=began)


def _debug(stage: Stage, wire: RecordingWire, digest: str) -> None:
    debug = stage.workload("debug.toml", wire.url, flags=("--debug",))
    other = stage.adyton("measure", "workload", str(debug)).strip()
    # Bound as well, so that nothing but the debug bit stands in the way.
    stage.adyton("resource", "bind", KEY, "--workload", digest, "--workload", other)
    _refused(stage, "debug bit", ("run", "--rm", "--workload", str(debug), stage.reference), "debug_allowed")


def _replay(stage: Stage, wire: RecordingWire) -> None:
    began = time.monotonic()
    body = json.loads(wire.recorded_attestations()[0])
    connection = http.client.HTTPConnection(wire.url.removeprefix("http://"), timeout=20)
    try:
        hello = json.dumps({"version": "0.4.0", "tee": "snp", "extra-params": ""})
        connection.request("POST", "/kbs/v0/auth", hello, _JSON)
        answer = connection.getresponse()
        challenge = json.loads(answer.read())
        cookie = (answer.getheader("Set-Cookie") or "").split(";")[0]
        body["runtime-data"]["nonce"] = challenge["nonce"]  # this can be changed; the evidence cannot
        connection.request("POST", "/kbs/v0/attest", json.dumps(body), {**_JSON, "Cookie": cookie})
        reply = connection.getresponse()
        stage.screen.tell(f"HTTP {reply.status}: {reply.read().decode()}")
    finally:
        connection.close()
    why = stage.owner_reads().because("report_data")
    ok = reply.status == 401 and "report_data" in why
    stage.done("stale evidence (replay)", "refused", why, ok=ok, began=began)


@contextlib.contextmanager
def _changed_layers(stage: Stage) -> Iterator[None]:
    """Flip one byte of every copy of the image's layers; put it back afterwards."""
    inspected = json.loads(stage.adyton("image", "inspect", "--json", stage.reference, quiet=True))
    layers = {layer["digest"].removeprefix("sha256:") for layer in inspected["layers"]}
    copies = [
        path
        for top in (stage.work / "registry", stage.work / "home" / "store")
        for path in top.rglob("*")
        if path.is_file() and layers & {path.name, path.parent.name} and path.stat().st_size > _AT
    ]
    for path in copies:
        _flip(path)
    try:
        yield
    finally:
        for path in copies:
            if path.exists():
                _flip(path)


_AT = 1000


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(_AT)
        byte = file.read(1)
        file.seek(_AT)
        file.write(bytes([byte[0] ^ 1]))
