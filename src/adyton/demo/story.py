"""The order of events: an encrypted image runs after attestation, and only then.

Everything goes through the command line and the network, as an owner, a host and an attacker would do it. The only
things done behind the programs' backs are the attacks.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adyton.demo import parts
from adyton.demo.network import RecordingWire
from adyton.demo.sample_image import PORT, SampleImage, build
from adyton.demo.scan import scan
from adyton.demo.screen import Row, Screen
from adyton.errors import Unavailable

KEY = "kbs:///demo/key/iris"
REFUSED = 125  # what `adyton run` says when Adyton, not the workload, said no


@dataclass(slots=True)
class Story:
    """One telling. ``work`` holds everything that it leaves behind while it runs; it is removed at the end."""

    screen: Screen
    work: Path
    guest: Path
    environment: dict[str, str] = field(default_factory=dict)
    _started: float = 0.0

    # ------------------------------------------------------------------ the acts

    def play(self) -> bool:
        """Tell it all. True if everything came as it had to."""
        with contextlib.ExitStack() as stack:
            self._prepare()
            foreign = stack.enter_context(_background(self._adyton_args("devtee", "init"), self._home("foreign")))
            self.screen.step("A machine without a TEE: a development TEE, a registry, a broker")
            broker_url = self._start(stack)
            wire = stack.enter_context(RecordingWire(broker_url))
            self.screen.step("The owner builds an image with a secret model, in memory")
            image = self._build()
            self.screen.step("The owner encrypts it: the key goes to the broker, ciphertext to the registry")
            reference = self._encrypt(image)
            self.screen.step("The owner says what may run, on what, and who gets the key")
            digest = self._publish(reference, wire)
            self.screen.step("It runs after attestation, and answers")
            self._run_and_ask(reference, image)
            self.screen.step(
                "No plaintext on the host: registry, broker, platform, and every host path of the instance"
            )
            self._scan(image)
            self._stop()
            self._refusals(reference, wire, digest, foreign)
            self.screen.summary()
            self._audit()
        return all(row.ok for row in self.screen.rows)

    def _prepare(self) -> None:
        for name in ("home", "foreign", "logs", "registry"):
            (self.work / name).mkdir(mode=0o700)
        parts.mount_tmpfs(self.work / "owner")
        self.environment = self._home("home")

    def _start(self, stack: contextlib.ExitStack) -> str:
        began = time.monotonic()
        self._adyton("devtee", "init")
        service = stack.enter_context(self._program("devtee", "serve", "--guest", str(self.guest)))
        port = parts.free_port()
        registry = stack.enter_context(
            parts.registry(self.work / "registry" / "data", port, self.work / "logs" / "registry.log")
        )
        root = json.loads(self._adyton("devtee", "show", "--json", quiet=True))
        broker_port = parts.free_port()
        broker = stack.enter_context(
            self._program(
                "broker",
                "serve",
                "--listen",
                f"127.0.0.1:{broker_port}",
                "--environment",
                "development",
                "--trust-dev-root",
                root["fingerprint"],
                "--endorsements",
                root["endorsements"],
            )
        )
        registry.wait_until(lambda: parts.answers(port))
        broker.wait_until(lambda: parts.answers(broker_port))
        service.wait_until((self.work / "home" / "run" / "devtee.sock").exists)
        self.environment["ADYTON_DEMO_REGISTRY"] = f"127.0.0.1:{port}"
        self._done("development TEE, registry and broker", "running", "running", began=began)
        return f"http://127.0.0.1:{broker_port}"

    def _build(self) -> SampleImage:
        began = time.monotonic()
        image = build(self.work / "owner", b"marker-" + secrets.token_hex(16).encode())
        control = scan([self.work / "owner"], image.marker)
        self._done(
            "the scan sees the marker where it is",
            "found",
            f"found in {len(control.found)} file of {control.files} (the owner's tmpfs)",
            ok=len(control.found) == 1,
            began=began,
        )
        return image

    def _encrypt(self, image: SampleImage) -> str:
        began = time.monotonic()
        reference = f"docker://{self.environment['ADYTON_DEMO_REGISTRY']}/demo/iris:v1"
        self._adyton("image", "encrypt", f"oci:{image.layout}:v1", reference, "--key", KEY)
        inspected = self._adyton("image", "inspect", reference)
        self.screen.tell(inspected)
        self._done(
            "encrypted and pushed",
            "every layer encrypted",
            "every layer encrypted",
            ok="encrypted" in inspected,
            began=began,
        )
        return reference

    def _publish(self, reference: str, wire: RecordingWire) -> str:
        began = time.monotonic()
        document = self.work / "owner" / "iris.toml"
        self._workload(document, reference, wire.url)
        digest = self._adyton("measure", "workload", str(document)).strip()
        values = self._adyton("measure", "guest", str(self.guest), "--reference-values", quiet=True)
        (self.work / "owner" / "reference-values.json").write_text(values)
        self._adyton("reference", "set", "--file", str(self.work / "owner" / "reference-values.json"))
        self._adyton("resource", "bind", KEY, "--workload", digest)
        self._done("reference values and binding published", "published", f"bound to {digest[:19]}…", began=began)
        return digest

    def _workload(
        self, document: Path, reference: str, broker: str, *command: str, flags: tuple[str, ...] = ()
    ) -> None:
        self._adyton(
            "workload", "new", *flags, "--broker", broker, "--network", "bridge", "-p", str(PORT), "--logs", "host",
            "-o", str(document), reference, *command,
        )  # fmt: skip

    def _run_and_ask(self, reference: str, image: SampleImage) -> None:
        began = time.monotonic()
        document = self.work / "owner" / "iris.toml"
        self._adyton("run", "-d", "--name", "iris", "-p", f"127.0.0.1::{PORT}", "--workload", str(document), reference)
        rows = json.loads(self._adyton("ps", "--json", quiet=True))
        port = rows[0]["published"][0]["host_port"]
        self.screen.command(["curl", f"http://127.0.0.1:{port}/cgi-bin/predict?{image.query}"])
        answer = _get_json(port, f"/cgi-bin/predict?{image.query}")
        self.screen.tell(json.dumps(answer))
        self._done(
            "the service answers with the secret model",
            str(image.answer["species"]),
            json.dumps(answer),
            ok=answer == image.answer,
            began=began,
        )

    def _scan(self, image: SampleImage) -> None:
        began = time.monotonic()
        places = [self.work / "registry", self.work / "home", self.work / "foreign", self.work / "logs"]
        result = scan(places, image.marker)
        clean = not result.found and not result.unread and result.files > 0
        where = (
            "not found"
            if clean
            else f"found in {[str(path) for path in result.found]}, unread {[str(path) for path in result.unread]}"
        )
        self._done(
            "marker scan of the host",
            "not found",
            f"{where}: {result.files} files, {result.bytes / 1e6:.1f} MB read",
            ok=clean,
            began=began,
        )

    # ------------------------------------------------------------------ the refusals

    def _refusals(self, reference: str, wire: RecordingWire, digest: str, foreign: subprocess.Popen[bytes]) -> None:
        document = self.work / "owner" / "iris.toml"
        run = ("run", "--rm", "--workload", str(document), "-p", f"127.0.0.1::{PORT}", reference)
        self.screen.step("Refusal 1: somebody changes a layer in the registry and in the host's store")
        with self._changed_layers():
            self._refused("changed layer", run, "digest_mismatch", broker=False)
        self.screen.step("Refusal 2: the host starts it with another command")
        self._refused("changed command line", self._other_command(reference, wire), "workload_not_bound")
        self.screen.step("Refusal 3: the host starts it with the debug bit")
        self._refused("debug bit", self._debug(reference, wire, digest), "debug")
        self.screen.step("Refusal 4: somebody on the wire plays an old attestation again")
        self._replay(wire)
        self.screen.step("Refusal 5: the same guest and image, under another root")
        foreign.wait(60)
        with self._program("devtee", "serve", "--guest", str(self.guest), environment=self._home("foreign")) as service:
            service.wait_until((self.work / "foreign" / "run" / "devtee.sock").exists)
            self._refused("foreign root", run, "endorsement_untrusted", environment=self._home("foreign"))
        self.screen.step("Refusal 6: the owner has withdrawn the reference value")
        self._adyton("reference", "delete", "snp_launch_measurement")
        self._refused("no reference value", run, "snp_launch_measurement")

    def _other_command(self, reference: str, wire: RecordingWire) -> tuple[str, ...]:
        other = self.work / "owner" / "other.toml"
        self._workload(other, reference, wire.url, "/bin/busybox", "cat", "/model/weights.csv")
        return ("run", "--rm", "--workload", str(other), reference)

    def _debug(self, reference: str, wire: RecordingWire, digest: str) -> tuple[str, ...]:
        debug = self.work / "owner" / "debug.toml"
        self._workload(debug, reference, wire.url, flags=("--debug",))
        other = self._adyton("measure", "workload", str(debug)).strip()
        # Bound as well, so that nothing but the debug bit stands in the way.
        self._adyton("resource", "bind", KEY, "--workload", digest, "--workload", other)
        return ("run", "--rm", "--workload", str(debug), "-p", f"127.0.0.1::{PORT}", reference)

    def _refused(
        self,
        what: str,
        command: tuple[str, ...],
        reason: str,
        *,
        broker: bool = True,
        environment: dict[str, str] | None = None,
    ) -> None:
        began = time.monotonic()
        self.screen.command(["adyton", *command])
        result = self._call(command, environment)
        said = result.stderr.strip()
        self.screen.tell(said)
        why = said
        if broker:
            why = self._owner_reads()
            self.screen.tell("the owner's audit: " + why)
        ok = result.returncode == REFUSED and reason in why and not result.stdout
        self._done(
            what,
            "refused",
            _first_line(why, reason) if ok else f"status {result.returncode}, {said[-300:]}",
            ok=ok,
            began=began,
        )

    @contextlib.contextmanager
    def _changed_layers(self) -> Iterator[None]:
        """Flip one byte of every large blob outside the broker; put it back afterwards."""
        changed = [
            path
            for top in (self.work / "registry", self.work / "home" / "store")
            for path in top.rglob("*")
            if path.is_file() and not path.is_symlink() and path.stat().st_size > 2000
        ]
        for path in changed:
            _flip(path)
        try:
            yield
        finally:
            for path in changed:
                if path.exists():
                    _flip(path)

    def _replay(self, wire: RecordingWire) -> None:
        began = time.monotonic()
        body = json.loads(wire.recorded_attestations()[0])
        host = wire.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.request(
            "POST",
            "/kbs/v0/auth",
            json.dumps({"version": "0.4.0", "tee": "snp", "extra-params": ""}),
            {"Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        challenge = json.loads(answer.read())
        cookie = (answer.getheader("Set-Cookie") or "").split(";")[0]
        body["runtime-data"]["nonce"] = challenge["nonce"]  # the evidence itself cannot be changed
        connection.request(
            "POST", "/kbs/v0/attest", json.dumps(body), {"Content-Type": "application/json", "Cookie": cookie}
        )
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        self.screen.tell(f"HTTP {reply.status}: {text}")
        why = self._owner_reads()
        self.screen.tell("the owner's audit: " + why)
        self._done(
            "stale evidence (replay)",
            "refused",
            _first_line(why, "report_data"),
            ok=reply.status == 401 and "report_data" in why,
            began=began,
        )

    # ------------------------------------------------------------------ the end

    def _stop(self) -> None:
        self._adyton("stop", "-t", "2", "iris")
        self._adyton("rm", "iris")

    def _owner_reads(self) -> str:
        """The newest audit row: the decision, and every reason for it."""
        lines = self._adyton("audit", "list", "--json", quiet=True).splitlines()
        row = json.loads(lines[-1]) if lines else {}
        return f"{row.get('decision')}: {', '.join(str(reason) for reason in row.get('reasons', []))}"

    def _audit(self) -> None:
        self.screen.lines("The owner's audit", self._adyton("audit", "list", quiet=True).splitlines())

    # ------------------------------------------------------------------ how things are done

    def _home(self, name: str) -> dict[str, str]:
        keep = {
            name: value
            for name, value in os.environ.items()
            if name in {"PATH", "LANG", "TERM", "PYTHONPATH", "VIRTUAL_ENV"}
        }
        return {**keep, "HOME": str(self.work / name), "ADYTON_HOME": str(self.work / name)}

    def _adyton_args(self, *arguments: str) -> list[str]:
        return parts.adyton_command(*arguments)

    def _program(self, *arguments: str, environment: dict[str, str] | None = None) -> parts.Program:
        self.screen.command(["adyton", *arguments, "&"])
        log = self.work / "logs" / f"{arguments[0]}-{time.monotonic_ns()}.log"
        return parts.Program(
            f"adyton {arguments[0]}",
            parts.adyton_command(*arguments),
            log=log,
            environment=environment or self.environment,
        )

    def _call(
        self, arguments: tuple[str, ...], environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            parts.adyton_command(*arguments),
            env=environment or self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def _adyton(self, *arguments: str, quiet: bool = False) -> str:
        if not quiet:
            self.screen.command(["adyton", *arguments])
        result = self._call(arguments)
        if result.returncode:
            raise Unavailable(
                f"adyton {' '.join(arguments[:2])} failed with status {result.returncode}",
                code="demo_step_failed",
                hint=result.stderr.strip()[-2000:],
            )
        return result.stdout

    def _done(self, step: str, expected: str, got: str, *, ok: bool = True, began: float) -> None:
        self.screen.verdict(Row(step, expected, got, ok, time.monotonic() - began))


def tell(screen: Screen, guest: Path) -> bool:
    """Play the story in a private mount namespace and a temporary directory; nothing of either is left."""
    parts.private_mounts()
    with tempfile.TemporaryDirectory(prefix="adyton-demo-", dir="/var/tmp") as work:
        screen.shorten = ((work, "…"),)
        return Story(screen, Path(work), guest).play()


@contextlib.contextmanager
def _background(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def _get_json(port: int, path: str, tries: int = 50) -> object:
    def ask() -> object:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    return _patiently(ask, tries)


def _patiently(ask: Callable[[], object], tries: int) -> object:
    for _ in range(tries - 1):
        try:
            return ask()
        except (OSError, ValueError, http.client.HTTPException):
            time.sleep(0.1)
    return ask()


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))


def _first_line(text: str, word: str) -> str:
    return next((line.strip() for line in text.splitlines() if word in line), text.strip())[:160]
