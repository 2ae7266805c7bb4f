"""``adyton policy test``: what a policy would change, tried on recorded decisions or on files. Decides nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton.cli import policy_names
from adyton.cli.administering import broker_options, open_admin
from adyton.cli.files import written
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.errors import DocumentInvalid, Unavailable

if TYPE_CHECKING:
    from adyton.protocol.policies import TestReport
    from adyton.protocol.recording import Recording

AUDIT = "audit"
MAX_FILE = 64 * 1024 * 1024
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("test")
@click.argument("file", type=_FILE)
@click.option(
    "--id", "name", default="default_cpu", show_default=True, metavar="[KIND/]ID", help="Whose place it takes."
)
@click.option(
    "--against", multiple=True, metavar="audit|PATH",
    help="What the broker recorded (policy record), or files: recordings, tokens, attestation results, annotated"
    " evidence. [default: audit]",
)  # fmt: skip
@click.option("--baseline", type=_FILE, help="With files: compare with this policy, not with the built-in one.")
@click.option("--references", type=_FILE, help="With files: a JSON object of reference values, by name.")
@click.option("--limit", type=click.IntRange(1, 5000), default=1000, show_default=True, help="The newest so many.")
@broker_options
@json_option
def test(file: Path, name: str, against: tuple[str, ...], limit: int, as_json: bool, **options: Any) -> None:
    """What would change if FILE took a policy's place, and which claims are the cause.

    Exit 0: nothing changes; 1: something does, or a policy fails. With files no broker is asked.
    """
    from msgspec import to_builtins

    from adyton.protocol.policies import TestBody

    text = policy_names.read(file)
    baseline, references = options.pop("baseline"), options.pop("references")
    files = [Path(one) for one in against if one != AUDIT]
    if files and (AUDIT in against):
        raise click.UsageError("--against takes audit or files, not both")
    known = policy_names.kind_of(name)
    if files:
        kind, policy_id = known or ("resource", name)
        report = _offline(kind, policy_id, text, files, baseline, references, limit)
    else:
        if baseline is not None or references is not None:
            raise click.UsageError("--baseline and --references go with --against PATH: the broker has its own")
        with open_admin(**options) as admin:
            kind, policy_id = known or policy_names.found(admin, name)
            report = admin.test_policy(TestBody(kind, policy_id, text, limit=limit))
    if as_json:
        print_json(to_builtins(report))
    else:
        _print(report)
    raise SystemExit(int(report.same != report.tried))


@click.command()
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Where to.")
@broker_options
@json_option
def recordings(output: Path, as_json: bool, **options: Any) -> None:
    """Write what the broker recorded to a file, for policy test --against FILE on any machine."""
    from adyton.protocol import recording

    count, after = 0, 0
    with open_admin(**options) as admin, written(output) as opened:
        while page := admin.recordings(after):
            for line in page:
                opened.write(line + b"\n")
            count += len(page)
            last = recording.decode(page[-1]).number
            if last <= after:
                raise Unavailable("the broker's answer cannot be read", code="broker_answer", field="number", got=last)
            after = last
    if as_json:
        print_json({"recordings": count, "file": str(output)})
    else:
        say(f"{count} decisions")


def _print(report: TestReport) -> None:
    changed = [trial for trial in report.trials if not trial.same]
    if changed:
        print_table(
            ("decision", "of", "now", "then", "what changes"),
            ((t.sequence or t.number, t.subject, t.now, t.candidate, t.error or "; ".join(t.changed)) for t in changed),
        )
    for trial in changed:
        for cause in trial.causes:
            say(f"decision {trial.sequence or trial.number}: {cause.path} is {json.dumps(cause.got)[:160]}")
    say(
        f"{report.tried} tried: {report.same} the same, {report.better} better off, {report.worse} worse off,"
        f" {report.failed} failed"
    )
    if not report.tried:
        say("nothing is recorded that this policy had its say in: adyton policy record --keep N, or --against PATH")


def _offline(  # noqa: PLR0917 -- one value each
    kind: str, policy_id: str, text: str, paths: list[Path], baseline: Path | None, references: Path | None, limit: int
) -> TestReport:
    from adyton.appraisal.policies import DEFAULTS
    from adyton.broker.policy.rego import RegoEngine
    from adyton.broker.policy.trial import Bench, Named
    from adyton.protocol.audit_row import PolicyUsed
    from adyton.stores.policy_types import digest

    before = policy_names.read(baseline) if baseline else None
    if before is None and kind == "attestation":
        before = DEFAULTS.get(policy_id.rpartition("_")[2])
    values = _object(references) if references else {}
    now = Named(PolicyUsed(kind, policy_id, digest=digest(before) if before else ""), before)
    candidate = Named(PolicyUsed(kind, policy_id, digest=digest(text)), text)
    found = [one for path in paths for one in _recordings(path)]
    engine = RegoEngine()
    try:
        return Bench(engine, kind, policy_id, now, candidate, values).run(found[:limit])
    finally:
        engine.close()


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(policy_names.read(path))
    except (ValueError, RecursionError) as error:
        raise DocumentInvalid(f"{path} is not JSON", code="recording_malformed", field=str(path)) from error
    if not isinstance(value, dict):
        raise DocumentInvalid(f"{path} is not an object", code="recording_malformed", field=str(path))
    return value


def _recordings(path: Path) -> list[Recording]:
    """Everything in a file, or in the files of a directory."""
    from adyton.protocol import recording_files

    if not path.exists():
        raise click.UsageError(f"there is no {path}; --against takes audit or a path")
    files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
    found = []
    for file in files:
        if file.stat().st_size > MAX_FILE:
            raise DocumentInvalid(
                f"{file} is too large", code="recording_malformed", field=str(file), expected=MAX_FILE
            )
        found += recording_files.read(file.read_bytes(), file.name)
    return found
