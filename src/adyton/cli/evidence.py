"""``adyton evidence verify|show|vectors``: the door through which anyone checks the verifier (contracts, 1).

Exit statuses: 0 verified; 1 a check failed or an endorsement is not good; 2 the file is not that evidence; 3 wrong usage
or an unreadable path; 4 cannot be verified with what was given. With ``--json`` exactly one object goes to standard
output whatever the status (``vectors``: one a case, then a summary); everything else goes to standard error.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton import tee as tees
from adyton.cli.collecting import Collecting, cache_option, opened, source_options
from adyton.cli.files import read
from adyton.cli.output import Exit, exit_status, json_option, print_error, print_json, say
from adyton.cli.verdict import Verdict
from adyton.cli.verdict import show as show_verdict
from adyton.cli.verdict import text as printable
from adyton.errors import AdytonError, ConfigError
from adyton.rats.types import Check, ReportData, Revocation, TrustAnchors, VerifiedEvidence

if TYPE_CHECKING:
    from adyton.crypto.x509 import EndorsementSet

MAX_EVIDENCE = 4 * 1024 * 1024
_MAX_MANIFEST = 64 * 1024 * 1024
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)\Z")
_HEX = re.compile(r"([0-9a-fA-F]{2})*\Z")
_PATH = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
_TEE = click.Choice(tees.WIRE_NAMES)


class _Nouns(click.Group):
    """A group whose usage errors are one JSON object too when ``--json`` was asked for."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        wanted = "--json" in args
        try:
            ctx = super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            _usage_json(error, wanted=wanted)
            raise
        ctx.meta["adyton.evidence.json"] = wanted
        return ctx

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            _usage_json(error, wanted=ctx.meta["adyton.evidence.json"])
            raise


def _usage_json(error: click.ClickException, *, wanted: bool) -> None:
    if wanted and not isinstance(error, click.exceptions.NoArgsIsHelpError):
        tee = error.ctx.params.get("tee") if isinstance(error, click.UsageError) and error.ctx else None
        print_json(_failure(tee if isinstance(tee, str) else None, _as_error(error.format_message()), [], []))


def _as_error(message: str) -> ConfigError:
    return ConfigError(message, code="usage", hint=message)


# What the verifier's words are called on this command line.
_HINTS = {
    "revocation_unknown": "give the issuer's CRL (GPUs: OCSP answers) with --endorsements FILE, get it with --fetch,"
    " or accept not knowing with --no-revocation",
    "crl_validity": "give the issuer's current CRL with --endorsements FILE, or the evidence's own time with --at",
}


@click.group(cls=_Nouns)
def evidence() -> None:
    """Verify evidence, show what it says, and run test vectors."""


@evidence.command()
@click.argument("file", type=_PATH)
@click.option("--tee", type=_TEE, required=True, help="What kind of TEE it comes from.")
@click.option(
    "--endorsements",
    "endorsement_paths",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Certificates and CRLs: a file, or a directory to search. May be repeated.",
)
@click.option("--at", help="Verify as of this time (RFC 3339). Default: now.")
@click.option("--report-data", help="What the report data must be, in full length (hex).")
@click.option("--init-data", help="What the init data field (SNP: HOST_DATA) must be, in full length (hex).")
@click.option(
    "--trust-root",
    "trust_roots",
    multiple=True,
    type=_PATH,
    help="Trust this root instead of the vendor's. Repeatable.",
)
@click.option("--no-revocation", is_flag=True, help="Do not check revocation; the result says so.")
@click.option("--fetch", is_flag=True, help="Get what is missing from the vendors, through the cache of endorsements.")
@source_options
@cache_option
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Also write the verdict to this file, as one self-contained page.",
)
@json_option
def verify(
    *,
    file: Path,
    tee: str,
    endorsement_paths: tuple[Path, ...],
    at: str | None,
    report_data: str | None,
    init_data: str | None,
    trust_roots: tuple[Path, ...],
    no_revocation: bool,
    fetch: bool,
    from_: tuple[str, ...],
    offline: bool,
    ca_file: Path | None,
    cache_directory: Path | None,
    page: Path | None,
    as_json: bool,
) -> None:
    """Verify FILE: is it authentic? Whether it is acceptable is a policy's business."""
    now = _time(at)
    report_size, init_size = tees.FIELD_SIZES.get(tee, (None, None))
    expected_report = _hex("--report-data", report_data, report_size)
    expected_init = _hex("--init-data", init_data, init_size)
    if expected_report is not None and not any(expected_report):
        raise click.UsageError(
            "--report-data is all zeros: that is no expectation, and would match evidence for nobody"
        )
    if not fetch and (from_ or offline or ca_file or cache_directory):
        raise click.UsageError("--from, --offline, --ca and --cache say where to --fetch from")
    content = _read(file)
    trail: list[Check] = []
    unchecked = [
        name
        for name, missing in (
            ("revocation", no_revocation),
            ("report_data", report_data is None),
            ("init_data", init_data is None),
        )
        if missing
    ]
    try:
        endorsements, anchors = _endorsements(endorsement_paths, trust_roots)
        if fetch:
            with opened(cache_directory, from_, ca_file, offline=offline) as collecting:
                endorsements = endorsements.with_all(_fetched(tee, content, now, collecting))
        verified = tees.verify(
            tee,
            content,
            endorsements=endorsements,
            now=now,
            anchors=anchors,
            revocation=Revocation.UNCHECKED_AS_ASKED if no_revocation else Revocation.REQUIRED,
            report_data=ReportData(expected_report) if expected_report is not None else None,
            init_data=expected_init,
            trail=trail,
        )
    except AdytonError as error:
        if isinstance(error, ConfigError):  # a path of endorsements that cannot be read
            raise click.UsageError(error.message) from error
        if error.code in _HINTS:
            error.hint = _HINTS[error.code]
        verdict = Verdict(str(file), tee, now, tuple(trail), error=error, unchecked=tuple(unchecked))
        _write_page(page, verdict)
        if as_json:
            print_json(_failure(tee, error, trail, unchecked))
            say(f"not verified: {error.message} [{error.code}]")
        else:
            show_verdict(verdict)
            print_error(error)
        raise Exit(exit_status(error)) from error
    verdict = Verdict(str(file), tee, now, tuple(trail), verified=verified)
    _write_page(page, verdict)
    if as_json:
        print_json(_success(verified))
    else:
        show_verdict(verdict)


def _write_page(page: Path | None, verdict: Verdict) -> None:
    if page is None:
        return
    from adyton.cli import verdict_page

    try:
        page.write_text(verdict_page.render(verdict), encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"--html: {page} cannot be written: {error.strerror}") from error


@evidence.command()
@click.argument("file", type=_PATH)
@click.option("--tee", type=_TEE, required=True, help="What kind of TEE it comes from.")
@json_option
def show(file: Path, tee: str, as_json: bool) -> None:
    """Print what FILE says. NOTHING is verified: anybody can write such a file."""
    content = _read(file)
    say(click.style("NOTHING WAS VERIFIED", fg="red", bold=True) + ": these are the words of whoever wrote the file")
    try:
        claims = tees.show(tee, content)
    except AdytonError as error:
        if as_json:
            print_json({"tee": tee, "verified": None, "error": _error(error)})
        print_error(error)
        raise Exit(exit_status(error)) from error
    if as_json:
        print_json({"tee": tee, "verified": None, "claims": claims})
        return
    for name, value in claims.items():
        click.echo(f"{printable(name):22} {printable(value)}")


@evidence.command()
@click.argument("manifest", type=_PATH)
@click.option("--tee", "tee_names", multiple=True, help="Only cases of this TEE, by the manifest's name. Repeatable.")
@click.option("--id", "globs", multiple=True, help="Only cases whose id matches this glob. Repeatable.")
@json_option
def vectors(manifest: Path, tee_names: tuple[str, ...], globs: tuple[str, ...], as_json: bool) -> None:
    """Run every case of MANIFEST (evidence-vectors/1) and compare with what it expects."""
    from adyton.cli import vectors as runner

    loaded = _manifest(manifest)
    chosen = [
        case
        for case in loaded["cases"]
        if (not tee_names or case["tee"] in tee_names)
        and (not globs or any(fnmatch.fnmatchcase(case["id"], glob) for glob in globs))
    ]
    if not chosen:
        raise click.UsageError("no case matches: nothing would be tested")
    outcomes = []
    for case in chosen:
        outcome = runner.run(loaded, manifest.parent, case)
        outcomes.append(outcome)
        if as_json:
            print_json(outcome.as_dict())
        else:
            _print_outcome(outcome)
    count = {
        "cases": len(outcomes),
        "ok": sum(outcome.ok for outcome in outcomes),
        "differ": sum(not outcome.ok for outcome in outcomes),
        "not_supported": sum(not outcome.supported for outcome in outcomes),
    }
    if as_json:
        print_json(count)
    else:
        unsupported = f" ({count['not_supported']} of a kind that is not supported)" if count["not_supported"] else ""
        click.echo(f"{count['cases']} cases: {count['ok']} ok, {count['differ']} differ{unsupported}")
    if count["differ"]:
        raise Exit(1)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(read(path, _MAX_MANIFEST))
    except ConfigError as error:
        raise click.UsageError(error.message) from error
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{path} is not a manifest: {error}") from error
    well_formed = isinstance(loaded, dict) and loaded.get("schema") == "evidence-vectors/1"
    cases = loaded.get("cases") if well_formed else None
    if not isinstance(cases, list) or not all(map(_is_case, cases)) or not isinstance(loaded.get("files", {}), dict):
        raise click.UsageError(f"{path} is not a manifest of the form evidence-vectors/1")
    assert isinstance(loaded, dict)  # noqa: S101 -- by `well_formed`
    return loaded


def _is_case(case: object) -> bool:
    """Whether it has the members that every case has; what its kind needs besides is its runner's to say."""
    if not isinstance(case, dict):
        return False
    return (
        all(isinstance(case.get(name), str) and case[name].isprintable() for name in ("id", "tee", "kind"))
        and all(isinstance(case.get(name), dict) for name in ("files", "expected"))
        and isinstance(case.get("claims"), dict | None)
    )


def _time(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)  # noqa: TID251 -- the clock is read here, and handed down
    try:
        if not _RFC3339.match(text):
            raise ValueError(text)
        return datetime.fromisoformat(text.upper())
    except ValueError:
        raise click.UsageError(f"--at: {text!r} is not a time such as 2026-01-31T12:00:00Z") from None


def _hex(option: str, text: str | None, size: int | None) -> bytes | None:
    if text is None:
        return None
    if size == 0:
        raise click.UsageError(f"{option}: this TEE's evidence has no such field")
    if not _HEX.match(text) or (size is not None and len(text) != 2 * size):
        raise click.UsageError(f"{option} takes {2 * size if size else 'pairs of'} hexadecimal digits, the whole field")
    return bytes.fromhex(text)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_EVIDENCE + 1)
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from error


def _endorsements(paths: Sequence[Path], trust_roots: Sequence[Path]) -> tuple[EndorsementSet, TrustAnchors]:
    """What was given, and what is trusted. A root that is trusted by name is also one of the certificates at hand."""
    from adyton.collateral import directory
    from adyton.crypto.x509 import EndorsementSet

    endorsements = directory.load(paths) if paths else EndorsementSet()
    if not trust_roots:
        return endorsements, TrustAnchors()
    roots = directory.load(trust_roots)
    if not roots.fingerprints:
        raise click.UsageError("--trust-root: no certificate or public key in it")
    return endorsements.with_all(roots), TrustAnchors(vendor=False, custom=roots.fingerprints)


def _fetched(tee: str, content: bytes, now: datetime, collecting: Collecting) -> EndorsementSet:
    """What could be had. What could not is said; whether it is needed, verification says."""
    from adyton.collateral.gather import gather

    problems: list[AdytonError] = []
    found = gather(tee, content, collecting.collector, now, problems=problems)
    for problem in problems:
        say(f"not fetched: {problem.message} [{problem.code}]")
    return found


def _success(verified: VerifiedEvidence) -> dict[str, Any]:
    return {
        "tee": verified.tee,
        "verified": True,
        "claims": dict(verified.claims),
        "tcb": dict(verified.tcb),
        "root": verified.root.value,
        "checks": _checks(verified.checks),
        "unchecked": list(verified.unchecked),
    }


def _failure(tee: str | None, error: AdytonError, trail: Sequence[Check], unchecked: Sequence[str]) -> dict[str, Any]:
    return {
        "tee": tee,
        "verified": False,
        "error": _error(error),
        "checks": _checks(trail),
        "unchecked": list(unchecked),
    }


def _error(error: AdytonError) -> dict[str, Any]:
    whole = error.as_dict()
    return {name: whole[name] for name in ("code", "field", "expected", "got", "spec", "hint")}


def _checks(checks: Sequence[Check]) -> list[dict[str, Any]]:
    return [{"id": check.id, "ok": check.ok, "spec": check.spec} for check in checks]


def _print_outcome(outcome: Any) -> None:
    if outcome.ok:
        got = outcome.got
        unchecked = f" (not checked: {', '.join(got['unchecked'])})" if got.get("unchecked") else ""
        reason = f" ({got['failure']})" if got.get("failure") else ""
        click.echo(f"{click.style('ok     ', fg='green')} {outcome.entry['id']}: {got['outcome']}{reason}{unchecked}")
        return
    mark = click.style("DIFFERS", fg="red", bold=True)
    kind = f"{outcome.entry['tee']} {outcome.entry['kind']}"
    reason = f"{kind} is not supported" if not outcome.supported else ", ".join(outcome.differs)
    detail = outcome.got.get("failure_detail")
    click.echo(f"{mark} {outcome.entry['id']}: {reason}{f' ({detail})' if detail else ''}")
