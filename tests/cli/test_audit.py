"""``adyton audit`` and ``adyton broker explain`` as an auditor and an owner type them: with files kept, and the broker gone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.broker import rig

from adyton.cli import adyton
from adyton.cli.output import run
from adyton.client.handshake import Session
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import ReleaseRefused
from adyton.protocol.checkpoint import LogSigner
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import schema
from adyton.stores.sqlite import FILE

KEY = ResourcePath("default", "key", "1")


class Typed:
    """A command line, and what it gave: exit status, standard output and error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object, status: int = 0) -> str:
        self._capsys.readouterr()
        found = run(adyton, [str(part) for part in arguments])
        said = self._capsys.readouterr()
        self.errors = said.err
        assert found == status, said.out + said.err
        assert "Traceback" not in said.err
        return said.out

    def error(self, *arguments: object, status: int = 1) -> dict[str, Any]:
        """The error of ``--json``."""
        (line,) = self(*arguments, "--json", status=status).splitlines()
        found: dict[str, Any] = json.loads(line)["error"]
        return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DevelopmentRoot:
    return rig.make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def home(tmp_path: Path, root: DevelopmentRoot, monkeypatch: pytest.MonkeyPatch) -> Iterator[rig.RunningBroker]:
    """A broker where the command line looks by itself, with a few decisions."""
    (tmp_path / "home").mkdir()
    running = rig.started(tmp_path / "home" / "broker", root)
    monkeypatch.setenv("ADYTON_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ADYTON_BROKER", raising=False)
    running.publish()
    with running.admin() as admin:
        admin.set_resource(KEY, rig.SECRET, Binding(workloads=[str(rig.document().digest)]))
    yield running
    running.stop()


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(capsys)


def more(broker: rig.RunningBroker, count: int = 1) -> None:
    with broker.admin() as admin:
        for number in range(count):
            admin.set_reference(f"more_{number}", number)


def tampered(broker: rig.RunningBroker, *statements: str) -> None:
    connection = sqlite3.connect(broker.data / FILE)
    with connection:
        for trigger in schema.APPEND_ONLY:
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger.split()[2]}")
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_changed_row_is_found_and_named(home: rig.RunningBroker, typed: Typed, tmp_path: Path) -> None:
    typed("audit", "checkpoint", "-o", tmp_path / "old")
    typed("audit", "verify")
    more(home, 3)
    flip = "cast(replace(cast(body AS text), 'admin', 'nimda') AS blob)"
    tampered(home, f"UPDATE audit SET body={flip} WHERE sequence=3")
    for options in ((), ("--checkpoint", tmp_path / "old"), ("--to", tmp_path / "old")):
        error = typed.error("audit", "verify", *options)
        assert (error["code"], error["field"]) == ("row_changed", "row 3"), options
    typed("audit", "verify", "--from", tmp_path / "old")  # nothing after it was touched
    typed("audit", "verify", status=1)
    assert "row 3" in typed.errors


def test_a_log_that_was_cut_is_found(home: rig.RunningBroker, typed: Typed, tmp_path: Path) -> None:
    typed("audit", "checkpoint", "-o", tmp_path / "old")
    tampered(home, "DELETE FROM audit WHERE sequence>4", "DELETE FROM checkpoints")
    home.kill()  # or it would refuse to go on by itself
    more(home)
    for options in (("--checkpoint", tmp_path / "old"), ("--to", tmp_path / "old"), ("--from", tmp_path / "old")):
        error = typed.error("audit", "verify", *options)
        assert error["code"] in {"rows_cut", "size_absent"}, options


def test_a_history_written_anew_is_found(home: rig.RunningBroker, typed: Typed, tmp_path: Path) -> None:
    """The broker's operator makes another log with the same keys: only who kept a checkpoint can tell."""
    typed("audit", "checkpoint", "-o", tmp_path / "old")
    tampered(home, "DELETE FROM audit", "DELETE FROM audit_nodes", "DELETE FROM checkpoints")
    home.kill()
    more(home, 9)
    typed("audit", "verify")
    for option in ("--checkpoint", "--to"):
        assert typed.error("audit", "verify", option, tmp_path / "old")["code"] == "rows_changed"
    assert typed.error("audit", "verify", "--from", tmp_path / "old")["code"] == "rows_changed"


def test_between_two_checkpoints(home: rig.RunningBroker, typed: Typed, tmp_path: Path) -> None:
    typed("audit", "checkpoint", "-o", tmp_path / "old")
    more(home, 4)
    typed("audit", "checkpoint", "-o", tmp_path / "new")
    more(home, 2)
    found = json.loads(typed("audit", "verify", "--from", tmp_path / "old", "--to", tmp_path / "new", "--json"))
    assert (found["last"] - found["first"], len(found["checkpoints"])) == (3, 2)
    typed("audit", "verify", "--to", tmp_path / "old", "--from", tmp_path / "new", status=1)
    typed("audit", "verify", "--from", tmp_path / "old")
    assert json.loads(typed("audit", "verify", "--json"))["first"] == 1
    typed("audit", "verify", "--tenant", "nobody")
    assert typed.error("audit", "verify", "--tenant", "nobody", "--to", tmp_path / "new")["code"] in {
        "checkpoint_of_another_log",
        "checkpoint_untrusted",
    }


def test_a_proof_is_checked_offline(home: rig.RunningBroker, typed: Typed, tmp_path: Path) -> None:
    typed("audit", "checkpoint", "-o", tmp_path / "old")
    more(home, 3)
    typed("audit", "checkpoint", "-o", tmp_path / "cp")
    typed("audit", "prove", 3, "-o", tmp_path / "proof", "--checkpoint", tmp_path / "cp")
    typed("audit", "prove", "--from", tmp_path / "old", "-o", tmp_path / "continues")
    more(home)
    typed("audit", "checkpoint", "-o", tmp_path / "later")
    fresh = json.loads(typed("audit", "prove", 2))
    (tmp_path / "fresh").write_text(json.dumps(fresh))
    key = typed("audit", "key").strip()
    home.stop()
    found = json.loads(
        typed("audit", "verify", "--proof", tmp_path / "proof", "--checkpoint", tmp_path / "cp", "--json")
    )
    assert found["verified"] and found["row"]["sequence"] == 3
    assert "reference.set" in typed("audit", "verify", "--proof", tmp_path / "fresh")
    typed("audit", "verify", "--proof", tmp_path / "continues", "--from", tmp_path / "old")
    assert "begins with" in typed.errors
    found = json.loads(
        typed("audit", "verify", "--proof", tmp_path / "continues", "--from", tmp_path / "old", "--json")
    )
    assert found["size"] > found["continues"]

    def wrong(code: str, *options: object) -> None:
        assert typed.error("audit", "verify", *options)["code"] == code, options

    wrong("proof_for_another_checkpoint", "--proof", tmp_path / "proof", "--checkpoint", tmp_path / "later")
    wrong("checkpoint_missing", "--proof", tmp_path / "continues")
    wrong("proof_for_another_checkpoint", "--proof", tmp_path / "continues", "--from", tmp_path / "cp")
    wrong("proof_malformed", "--proof", tmp_path / "cp")
    wrong("checkpoint_malformed", "--proof", tmp_path / "proof", "--checkpoint", tmp_path / "proof")
    wrong("log_key_malformed", "--proof", tmp_path / "proof", "--key", key[:-4] + "AAA=")
    proof = json.loads((tmp_path / "proof").read_text())
    for change in ({"row": proof["row"].replace("admin", "nimda")}, {"sequence": 4}, {"path": proof["path"][::-1]}):
        (tmp_path / "forged").write_text(json.dumps({**proof, **change}))
        wrong("proof_broken", "--proof", tmp_path / "forged", "--checkpoint", tmp_path / "cp")
    note = (tmp_path / "cp").read_text()
    (tmp_path / "forged").write_text(note.replace("\n", "1\n", 2).replace("default1", "default"))
    wrong("checkpoint_forged", "--proof", tmp_path / "proof", "--checkpoint", tmp_path / "forged")
    (tmp_path / "bare").write_text(json.dumps({**proof, "checkpoint": ""}))
    wrong("checkpoint_missing", "--proof", tmp_path / "bare")


def test_without_the_logs_key_nothing_is_believed(
    home: rig.RunningBroker, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("audit", "prove", 3, "-o", tmp_path / "proof")
    (tmp_path / "key").write_text(typed("audit", "key"))
    other = typed("audit", "key", "--tenant", "other").strip()
    home.stop()
    monkeypatch.setenv("ADYTON_HOME", str(tmp_path / "elsewhere"))
    assert typed.error("audit", "verify", "--proof", tmp_path / "proof")["code"] == "log_key_unknown"
    assert (
        typed.error("audit", "verify", "--proof", tmp_path / "proof", "--key", other)["code"] == "checkpoint_untrusted"
    )
    typed("audit", "verify", "--proof", tmp_path / "proof", "--key", tmp_path / "key")
    typed("audit", "verify", "--proof", tmp_path / "proof", "--key", (tmp_path / "key").read_text().strip())
    assert (
        typed.error("audit", "verify", "--proof", tmp_path / "proof", "--key", "/nonexistent")["code"]
        == "log_key_unreadable"
    )


def test_a_log_that_changes_its_key_is_noticed(home: rig.RunningBroker, typed: Typed, tmp_path: Path) -> None:
    typed("audit", "checkpoint")
    (file,) = (tmp_path / "home" / "log-keys").iterdir()
    name = file.read_text().partition("+")[0]
    file.write_text(LogSigner(name, bytes(32)).public.text())
    for command in (("checkpoint",), ("verify",), ("key",), ("prove", "1")):
        assert typed.error("audit", *command)["code"] == "log_key_changed"
    file.write_text("no key")
    assert typed.error("audit", "key")["code"] == "log_key_malformed"


def test_an_export_is_recomputed_offline(home: rig.RunningBroker, typed: Typed, tmp_path: Path) -> None:
    more(home, 5)
    out = tmp_path / "log.jsonl"
    typed("audit", "export", out)
    assert typed.error("audit", "export", out)["code"] == "file_exists"
    home.stop()
    lines = out.read_bytes().splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    assert typed("audit", "verify", "--export", out).strip()
    found = json.loads(typed("audit", "verify", "--export", out, "--checkpoint", f"{out}.checkpoint", "--json"))
    assert found["verified"] and found["last"] == len(lines)
    changes: dict[str, Callable[[list[bytes]], list[bytes]]] = {
        "row_changed row 3": lambda rows: [*rows[:2], rows[2].replace(b"admin", b"nimda"), *rows[3:]],
        "row_missing row 3": lambda rows: [*rows[:2], *rows[3:]],
        "row_missing row 4": lambda rows: [*rows[:3], rows[4], rows[3], *rows[5:]],
        f"rows_cut row {len(lines)}": lambda rows: rows[:-1],
        f"row_repeated row {len(lines) + 1}": lambda rows: [*rows, rows[-1]],
        "rows_changed row 1": lambda rows: [*rows[:-1], rows[-1].replace(b"admin", b"nimda")],
        "row_malformed row 2": lambda rows: [rows[0], b"", *rows[1:]],
    }
    for what, change in changes.items():
        out.write_bytes(b"".join(line + b"\n" for line in change(lines)))
        error = typed.error("audit", "verify", "--export", out)
        assert f"{error['code']} {error['field']}" == what


def test_more_rows_than_are_proved_are_not_verified(home: rig.RunningBroker, typed: Typed, tmp_path: Path) -> None:
    typed("audit", "checkpoint", "-o", tmp_path / "old")
    more(home)
    typed("audit", "export", tmp_path / "log")
    error = typed.error("audit", "verify", "--export", tmp_path / "log", "--checkpoint", tmp_path / "old")
    assert error["code"] == "rows_unproved"
    both = ("--checkpoint", tmp_path / "old", "--checkpoint", tmp_path / "log.checkpoint")
    assert len(json.loads(typed("audit", "verify", "--export", tmp_path / "log", *both, "--json"))["checkpoints"]) == 2
    typed("audit", "checkpoint", "-o", tmp_path / "other", "--tenant", "other")
    mixed = ("--checkpoint", tmp_path / "old", "--checkpoint", tmp_path / "other")
    assert typed.error("audit", "verify", "--export", tmp_path / "log", *mixed)["code"] == "checkpoints_unordered"


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--export", "/etc/hostname", "--proof", "/etc/hostname"),
        ("verify", "--export", "/etc/hostname", "--from", "/etc/hostname"),
        ("verify", "--proof", "/etc/hostname", "--to", "/etc/hostname"),
        ("verify", "--key", "x"),
        ("verify", "--export", "/nonexistent"),
        ("prove",),
        ("prove", "1", "--from", "/etc/hostname"),
        ("show",),
    ],
)
def test_wrong_usage(typed: Typed, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADYTON_HOME", str(tmp_path))
    assert typed.error("audit", *arguments, status=3)["code"] == "usage"


def test_rows_are_listed_and_shown(home: rig.RunningBroker, typed: Typed) -> None:
    lines = [json.loads(line) for line in typed("audit", "list", "--json").splitlines()]
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    assert all(len(line["id"]) == 26 for line in lines)
    assert "reference.set" in typed("audit", "list")
    shown = json.loads(typed("audit", "show", lines[2]["id"], "--json"))
    assert shown["sequence"] == 3 and shown["row"]["action"] == "reference.set"
    assert "row.action" in typed("audit", "show", 3)
    assert typed.error("audit", "show", 99)["code"] == "row_absent"
    assert typed.error("broker", "explain", "a" * 26)["code"] == "decision_absent"


def test_a_refusal_is_explained(home: rig.RunningBroker, root: DevelopmentRoot, typed: Typed) -> None:
    attester = rig.attester(root, measurement=bytes(48))
    with Session(home.address(), attester, rig.document().raw) as session, pytest.raises(ReleaseRefused) as caught:
        session.resource(KEY)
    name = str(caught.value).partition("(decision ")[2][:26]
    said = typed("broker", "explain", name)
    assert said.startswith("REFUSED: release kbs:///default/key/1, decision ")
    for part in (
        "├─ the release",
        "└─ the evidence: executables",
        "✗ measurement  [reference_differs]",
        f'expected   ["{rig.MEASUREMENT.hex()}"]',
        f"got        {'00' * 48}",
        "reference value snp_launch_measurement, version",
        "(owner) if you know this value to be good: adyton reference set snp_launch_measurement",
        "today      still not accepted",
        "executables 33",
        "7 attest allowed warning",
    ):
        assert part in said, said
    found = json.loads(typed("broker", "explain", name, "--json"))
    assert found["decision"]["id"] == name and found["findings"]
    home.publish(snp_launch_measurement=["00" * 48])
    said = typed("broker", "explain", name)
    assert "accepted: it was set since" in said and "changed since" in said
    allowed = typed("broker", "explain", 1)
    assert allowed.startswith("ALLOWED: reference.set") and "nothing was wrong" in allowed
