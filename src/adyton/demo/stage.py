"""How things are done in the demo: commands as anybody could type them, programs in the background, rows of the summary."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from adyton.demo import parts
from adyton.demo.screen import Row, Screen
from adyton.errors import Unavailable

KEY = "kbs:///demo/key/iris"
_LONG_HEX = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")


@dataclass(frozen=True, slots=True)
class Decision:
    """The newest row of the owner's audit."""

    decision: str
    reasons: tuple[str, ...]

    def because(self, word: str) -> str:
        """The reason that ``word`` occurs in, or all of them."""
        return next((reason for reason in self.reasons if word in reason), "; ".join(self.reasons))

    def __str__(self) -> str:
        return f"{self.decision}: " + "; ".join(self.reasons)


@dataclass(slots=True)
class Stage:
    """Where one telling happens. ``work`` holds everything that it leaves behind while it runs."""

    screen: Screen
    work: Path
    guest: Path
    environment: dict[str, str] = field(default_factory=dict)
    registry: str = ""

    @property
    def owner(self) -> Path:
        """The owner's own tmpfs."""
        return self.work / "owner"

    @property
    def reference(self) -> str:
        """The encrypted image's name in the registry."""
        return f"docker://{self.registry}/demo/iris:v1"

    def home(self, name: str) -> dict[str, str]:
        """The environment of one machine's programs: nothing of the caller's but what Python and a terminal need."""
        wanted = {"PATH", "LANG", "TERM", "PYTHONPATH", "VIRTUAL_ENV"}
        kept = {name: value for name, value in os.environ.items() if name in wanted}
        return {**kept, "HOME": str(self.work / name), "ADYTON_HOME": str(self.work / name)}

    def program(self, *arguments: str, environment: dict[str, str] | None = None) -> parts.Program:
        """``adyton …`` in the background."""
        self.screen.command(["adyton", *arguments], background=True)
        return parts.Program(
            f"adyton {arguments[0]}",
            parts.adyton_command(*arguments),
            log=self.work / "logs" / f"{arguments[0]}-{time.monotonic_ns()}.log",
            environment=environment or self.environment,
        )

    def call(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """``adyton …``, whatever comes of it."""
        return subprocess.run(
            parts.adyton_command(*arguments),
            env=environment or self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def adyton(self, *arguments: str, quiet: bool = False) -> str:
        """``adyton …`` that must succeed; what it wrote."""
        if not quiet:
            self.screen.command(["adyton", *arguments])
        result = self.call(*arguments)
        if result.returncode:
            raise Unavailable(
                f"adyton {' '.join(arguments[:2])} failed with status {result.returncode}",
                code="demo_step_failed",
                hint=result.stderr.strip()[-2000:],
            )
        return result.stdout

    def workload(self, name: str, broker: str, *command: str, flags: tuple[str, ...] = ()) -> Path:
        """A workload document of that name, for the encrypted image."""
        document = self.owner / name
        service = ("--network", "bridge", "-p", "8080", "--logs", "host")
        self.adyton(
            "workload", "new", *flags, "--broker", broker, *service, "-o", str(document), self.reference, *command
        )
        return document

    def owner_reads(self) -> Decision:
        """The newest row of the audit, as its owner reads it."""
        lines = self.adyton("audit", "list", "--json", quiet=True).splitlines()
        row = json.loads(lines[-1]) if lines else {}
        decision = Decision(str(row.get("decision")), tuple(str(reason) for reason in row.get("reasons", [])))
        self.screen.tell(f"the owner's audit: {short(str(decision))}")
        return decision

    def done(self, step: str, expected: str, got: str, *, ok: bool = True, began: float) -> None:
        """A row of the summary."""
        self.screen.verdict(
            Row(step, expected, short(got.splitlines()[0] if got else ""), ok, time.monotonic() - began)
        )


def short(text: str) -> str:
    """Digests cut for the eye; nothing is decided by this text."""
    return _LONG_HEX.sub(r"\1…", text)
