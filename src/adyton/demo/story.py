"""The order of events: an encrypted image runs after attestation, and only then.

Everything goes through the command line and the network, as an owner and a host would do it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from adyton.demo import parts
from adyton.demo.network import RecordingWire
from adyton.demo.refusals import refusals
from adyton.demo.sample_image import SampleImage, build
from adyton.demo.scan import scan
from adyton.demo.screen import Screen
from adyton.demo.stage import KEY, Stage, short


def tell(screen: Screen, guest: Path) -> bool:
    """Play the story in a private mount namespace and a temporary directory; nothing of either is left.

    True if everything came as it had to.
    """
    parts.private_mounts()
    with tempfile.TemporaryDirectory(prefix="adyton-demo-", dir="/var/tmp") as work:
        screen.shorten = ((work, "…"), (f"{Path.cwd()}/", ""))
        play(Stage(screen, Path(work), guest))
    return all(row.ok for row in screen.rows)


def play(stage: Stage) -> None:
    """The acts. What is started here is ended here, whatever happens."""
    with contextlib.ExitStack() as stack:
        for name in ("home", "foreign", "logs", "registry"):
            (stage.work / name).mkdir(mode=0o700)
        stack.enter_context(parts.tmpfs(stage.owner))
        stage.environment = stage.home("home")
        foreign = stack.enter_context(_background(parts.adyton_command("devtee", "init"), stage.home("foreign")))
        stage.screen.step("A machine without a TEE: a development TEE, a registry, a broker")
        wire = stack.enter_context(RecordingWire(_start(stage, stack)))
        stage.screen.step("The owner builds an image with a secret model, in memory")
        image = _build(stage)
        stage.screen.step("The owner encrypts it: the key goes to the broker, ciphertext to the registry")
        _encrypt(stage, image)
        stage.screen.step("The owner says what may run, on what, and who gets the key")
        document, digest = _publish(stage, wire)
        stage.screen.step("It runs after attestation, and answers")
        _run_and_ask(stage, document, image)
        stage.screen.step("No plaintext on the host: registry, broker, platform, every host path of the instance")
        _scan(stage, image)
        stage.adyton("stop", "-t", "2", "iris")
        stage.adyton("rm", "iris")
        refusals(stage, wire, document, digest, foreign)
        stage.screen.summary()
        lines = stage.adyton("audit", "list", quiet=True).splitlines()
        stage.screen.lines("The owner's audit", [short(line) for line in lines])


def _start(stage: Stage, stack: contextlib.ExitStack) -> str:
    began = time.monotonic()
    stage.adyton("devtee", "init")
    service = stack.enter_context(stage.program("devtee", "serve", "--guest", str(stage.guest)))
    port, broker_port = (stack.enter_context(parts.own_port()) for _ in range(2))
    log = stage.work / "logs" / "registry.log"
    registry = stack.enter_context(parts.registry(stage.work / "registry" / "data", port, log))
    root = json.loads(stage.adyton("devtee", "show", "--json", quiet=True))
    trust = ("--trust-dev-root", root["fingerprint"], "--endorsements", root["endorsements"])
    listen = ("--listen", f"127.0.0.1:{broker_port}")
    broker = stack.enter_context(stage.program("broker", "serve", *listen, "--environment", "development", *trust))
    registry.wait_until(lambda: parts.answers(port))
    broker.wait_until(lambda: parts.answers(broker_port))
    service.wait_until((stage.work / "home" / "run" / "devtee.sock").exists)
    stage.registry = f"127.0.0.1:{port}"
    stage.done("development TEE, registry and broker", "running", "running; no hardware protection", began=began)
    return f"http://127.0.0.1:{broker_port}"


def _build(stage: Stage) -> SampleImage:
    began = time.monotonic()
    image = build(stage.owner, b"marker-" + secrets.token_hex(16).encode())
    control = scan([stage.owner], image.marker)
    got = f"found in {len(control.found)} of {control.files} files (the owner's tmpfs)"
    stage.done("the scan sees the marker where it is", "found", got, ok=len(control.found) == 1, began=began)
    return image


def _encrypt(stage: Stage, image: SampleImage) -> None:
    began = time.monotonic()
    stage.adyton("image", "encrypt", f"oci:{image.layout}:v1", stage.reference, "--key", KEY)
    stage.screen.tell(stage.adyton("image", "inspect", stage.reference))
    layers = json.loads(stage.adyton("image", "inspect", "--json", stage.reference, quiet=True))["layers"]
    sealed = [layer for layer in layers if layer["encrypted"]]
    got = f"{len(sealed)} of {len(layers)} layers encrypted"
    stage.done("encrypted and pushed", "every layer encrypted", got, ok=sealed == layers, began=began)


def _publish(stage: Stage, wire: RecordingWire) -> tuple[Path, str]:
    began = time.monotonic()
    document = stage.workload("iris.toml", wire.url)
    digest = stage.adyton("measure", "workload", str(document)).strip()
    published = stage.owner / "reference-values.json"
    published.write_text(stage.adyton("measure", "guest", str(stage.guest), "--reference-values"))
    stage.adyton("reference", "set", "--file", str(published))
    stage.adyton("resource", "bind", KEY, "--workload", digest)
    stage.done("reference values and binding published", "published", f"bound to {digest}", began=began)
    return document, digest


def _run_and_ask(stage: Stage, document: Path, image: SampleImage) -> None:
    began = time.monotonic()
    port_option = ("-p", "127.0.0.1::8080")
    stage.adyton("run", "-d", "--name", "iris", *port_option, "--workload", str(document), stage.reference)
    port = _published_port(json.loads(stage.adyton("ps", "--json", quiet=True)))
    path = f"/cgi-bin/predict?{image.query}"
    stage.screen.command(["curl", f"http://127.0.0.1:{port}{path}"])
    answer = _get_json(port, path)
    stage.screen.tell(json.dumps(answer))
    stage.done(
        "the service answers with the secret model", "right", json.dumps(answer), ok=answer == image.answer, began=began
    )


def _published_port(row: Mapping[str, Sequence[Mapping[str, int]]]) -> int:
    return row["published"][0]["host_port"]


def _scan(stage: Stage, image: SampleImage) -> None:
    began = time.monotonic()
    result = scan([stage.work / name for name in ("registry", "home", "foreign", "logs")], image.marker)
    clean = not result.found and not result.unread and result.files > 0
    where = "not found" if clean else f"found in {[*map(str, result.found)]}, unread {[*map(str, result.unread)]}"
    got = f"{where}: {result.files} files, {result.bytes / 1e6:.1f} MB read"
    stage.done("marker scan of the host", "not found", got, ok=clean, began=began)


@contextlib.contextmanager
def _background(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdin=nothing, stdout=nothing, stderr=nothing)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def _get_json(port: int, path: str, tries: int = 50) -> object:
    """What the service answers; it may need a moment after its start."""
    for attempt in range(tries):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            answer: object = json.loads(connection.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException):
            if attempt == tries - 1:
                raise
            time.sleep(0.1)
        else:
            return answer
        finally:
            connection.close()
    raise AssertionError("unreachable")
