"""``adyton collateral fetch|bundle|import|list|show|serve``: endorsements kept, carried and handed on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton import tee as tees
from adyton.cli import collecting
from adyton.cli.administering import Noun
from adyton.cli.bars import Bars
from adyton.cli.collateral_view import print_items, row
from adyton.cli.collecting import cache_option, opened, source_options
from adyton.cli.files import write
from adyton.cli.instances import Seconds
from adyton.cli.output import Exit, json_option, print_error, print_json, say
from adyton.errors import AdytonError, EndorsementError, NotFound

if TYPE_CHECKING:
    from adyton.collateral.items import Item

MAX_EVIDENCE = 4 * 1024 * 1024
_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.group(cls=Noun)
def collateral() -> None:
    """Endorsements (certificates, CRLs, TCB info): fetch, keep, bundle, import and serve them. Nothing here trusts them."""


def _wanted_options(command: Any) -> Any:
    for option in (
        click.option(
            "--edition",
            default="early",
            show_default=True,
            metavar="early|standard|NUMBER",
            help="Which TCB recovery of Intel's: as soon as it is out, a year later, or by its number.",
        ),
        click.option(
            "--tee",
            "tee_names",
            multiple=True,
            type=click.Choice(tees.WIRE_NAMES),
            help="What --for is evidence of, one for each or one for all. Default: recognised by its form.",
        ),
        click.option("--for", "evidence", multiple=True, type=_FILE, help="All that this evidence needs. Repeatable."),
        click.argument("names", nargs=-1),
    ):
        command = option(command)
    return command


@collateral.command()
@_wanted_options
@source_options
@cache_option
@click.option("--seconds", type=Seconds(0.1, 3600), default=60.0, show_default=True, help="For each item.")
@click.option("--refresh", is_flag=True, help="Ask for each NAME even if what the cache holds is fresh.")
@json_option
def fetch(
    *,
    refresh: bool,
    names: tuple[str, ...],
    evidence: tuple[Path, ...],
    tee_names: tuple[str, ...],
    edition: str,
    from_: tuple[str, ...],
    ca_file: Path | None,
    offline: bool,
    cache_directory: Path | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Get endorsements into the cache: by NAME (such as amd/crl/Genoa), or all that evidence needs."""
    _something(names, evidence)
    with opened(cache_directory, from_, ca_file, offline=offline) as collecting_:
        found, problems = _collect(
            collecting_, names, _paired(evidence, tee_names), edition, seconds=seconds, quiet=as_json, refresh=refresh
        )
        collecting_.cache.tidy(collecting.now())
    print_items(found, collecting.now(), as_json=as_json)
    _print_problems(problems, as_json=as_json)


@collateral.command()
@_wanted_options
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The bundle.")
@source_options
@cache_option
@click.option("--seconds", type=Seconds(0.1, 3600), default=60.0, show_default=True, help="For each item.")
@json_option
def bundle(
    *,
    names: tuple[str, ...],
    evidence: tuple[Path, ...],
    tee_names: tuple[str, ...],
    edition: str,
    output: Path,
    from_: tuple[str, ...],
    ca_file: Path | None,
    offline: bool,
    cache_directory: Path | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Write one file of endorsements for where there is no network; without NAME and --for, all that the cache holds."""
    from adyton.collateral import bundle as format_

    with opened(cache_directory, from_, ca_file, offline=offline) as collecting_:
        if names or evidence:
            found, problems = _collect(
                collecting_, names, _paired(evidence, tee_names), edition, seconds=seconds, quiet=as_json
            )
        else:
            found, problems = [stored.item for stored in collecting_.cache.all()], []
    if problems:
        _print_problems(problems[:-1], as_json=as_json, leave=False)
        raise problems[-1]
    if not found:
        raise NotFound(
            "nothing would be in the bundle",
            code="bundle_empty",
            hint="name endorsements, or evidence with --for; or fill the cache: adyton collateral fetch",
        )
    content = format_.write(found)
    write(output, content)
    print_items(found, collecting.now(), as_json=as_json)
    say(f"{output}: {len(found)} endorsements, {len(content)} bytes")


@collateral.command("import")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@cache_option
@click.option(
    "--into", type=click.Path(file_okay=False, path_type=Path), help="Lay them out in this directory instead."
)
@json_option
def import_(files: tuple[Path, ...], cache_directory: Path | None, into: Path | None, as_json: bool) -> None:
    """Take bundles in: into the cache, or as files for --endorsements. Every digest is checked; what is older is left out."""
    found = [item for file in files for item in _read_bundle(file)]
    if into is not None:
        from adyton.collateral.layout import lay_out

        lay_out(found, into)
        print_items(found, collecting.now(), as_json=as_json)
        return
    older: list[AdytonError] = []
    kept: list[Item] = []
    with opened(cache_directory, offline=True) as collecting_:
        for item in sorted(found, key=lambda item: item.facts.order[1] if item.facts.order else item.fetched):
            came = min(item.fetched, collecting.now())  # one that comes from the future would count as fresh until then
            try:
                kept.append(collecting_.cache.put(replace(item, fetched=came)))
            except EndorsementError as error:
                older.append(error)
    print_items(kept, collecting.now(), as_json=as_json)
    for left_out in older:
        say(f"left out: {left_out.message}")
    if not kept:
        raise older[-1]


@collateral.command("list")
@click.argument("files", nargs=-1, type=_FILE)
@cache_option
@click.option("--at", help="As of this time (RFC 3339). Default: now.")
@json_option
def list_(files: tuple[Path, ...], cache_directory: Path | None, at: str | None, as_json: bool) -> None:
    """What bundles hold, or the cache: each with its validity, what expires first above."""
    print_items(_held(files, cache_directory), _time(at), as_json=as_json)


@collateral.command()
@click.argument("name")
@click.argument("files", nargs=-1, type=_FILE)
@cache_option
@click.option("--at", help="As of this time (RFC 3339). Default: now.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the newest one's bytes here."
)
@json_option
def show(
    *,
    name: str,
    files: tuple[Path, ...],
    cache_directory: Path | None,
    at: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Everything about the endorsement NAME, in bundles or the cache, every version of it."""
    from adyton.collateral.layout import describe

    found = [item for item in _held(files, cache_directory) if item.wanted.name == name]
    if not found:
        raise NotFound("no such endorsement here", code="endorsement_absent", field=name, hint="adyton collateral list")
    moment = _time(at)
    found.sort(key=lambda item: item.facts.issued or item.fetched, reverse=True)
    if output is not None:
        write(output, found[0].body)
    for item in found:
        facts = {**row(item, moment), **describe(item)}
        if as_json:
            print_json(facts)
            continue
        for key, value in facts.items():
            click.echo(f"{key:12} {value if isinstance(value, str) else json.dumps(value)}")
        click.echo()
    if not as_json:
        say("Nothing of this was verified: that is `adyton evidence verify`'s business.")


@collateral.command()
@click.option("--listen", default="127.0.0.1:8081", show_default=True, metavar="HOST:PORT", help="Port 0: a free one.")
@click.option("--tls/--no-tls", default=None, help="TLS [default: on, except on loopback].")
@click.option("--certificate", type=_FILE, help="PEM certificate chain.")
@click.option("--private-key", type=_FILE, help="Its PEM private key.")
@click.option("--name", "names", multiple=True, help="A further name in the certificate that it makes itself.")
@source_options
@cache_option
@click.option("--per-minute", type=click.IntRange(1, 6000), help="Requests to any one host, at most, in any minute.")
@click.option("--seconds", type=Seconds(0.1, 600), default=20.0, show_default=True, help="To wait for sources.")
def serve(
    *,
    listen: str,
    tls: bool | None,
    certificate: Path | None,
    private_key: Path | None,
    names: tuple[str, ...],
    from_: tuple[str, ...],
    ca_file: Path | None,
    offline: bool,
    cache_directory: Path | None,
    per_minute: int | None,
    seconds: float,
) -> None:
    """A caching proxy with the paths of PCCS, AMD's key service and NVIDIA's RIM service, until interrupted."""
    import logging

    from adyton.cli import collateral_server

    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    with opened(
        cache_directory, from_, ca_file, offline=offline, background=not offline, per_minute=per_minute
    ) as collecting_:
        collateral_server.serve(
            collecting_, listen, tls=tls, certificate=certificate, private_key=private_key, names=names, seconds=seconds
        )


def _something(names: Sequence[str], evidence: Sequence[Path]) -> None:
    if not names and not evidence:
        raise click.UsageError("nothing was asked for: a NAME such as amd/crl/Genoa, or --for EVIDENCE")


def _paired(evidence: Sequence[Path], tee_names: Sequence[str]) -> list[tuple[str, bytes]]:
    """Each piece of evidence with its TEE."""
    from adyton.tee.recognise import recognise

    if len(tee_names) > 1 and len(tee_names) != len(evidence):
        raise click.UsageError("as many --tee as --for, one for all of them, or none")
    names = list(tee_names) * (len(evidence) if len(tee_names) == 1 else 1)
    contents = [_read(path) for path in evidence]
    return [(names[number] if names else recognise(content), content) for number, content in enumerate(contents)]


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_EVIDENCE + 1)
    if len(content) > MAX_EVIDENCE:
        raise click.UsageError(f"{path} is larger than any evidence ({MAX_EVIDENCE} bytes)")
    return content


def _collect(
    collecting_: collecting.Collecting,
    names: Sequence[str],
    evidence: Iterable[tuple[str, bytes]],
    edition: str,
    *,
    seconds: float,
    quiet: bool,
    refresh: bool = False,
) -> tuple[list[Item], list[AdytonError]]:
    from adyton.collateral import gather, wanted

    found: dict[tuple[str, bytes], Item] = {}
    problems: list[AdytonError] = []
    try:
        asked = [wanted.parse(name) for name in names]
        wanted.IntelIdentity("qe", edition)
    except ValueError as error:
        raise click.UsageError(f"{error} (adyton collateral list shows names)") from error
    with Bars(quiet=quiet) as bars:
        for number, each in enumerate(asked):
            bars.advance(gather.LABEL, number, len(asked))
            try:
                get = collecting_.collector.refresh if refresh else collecting_.collector.get
                item = get(each, seconds=seconds)
                found[item.wanted.name, item.body] = item
            except AdytonError as error:
                problems.append(error)
        for tee, content in evidence:
            for item in gather.items(
                tee, content, collecting_.collector, collecting.now(), edition=edition, seconds=seconds,
                problems=problems, progress=bars,
            ):  # fmt: skip
                found[item.wanted.name, item.body] = item
    return list(found.values()), problems


def _print_problems(problems: Sequence[AdytonError], *, as_json: bool, leave: bool = True) -> None:
    for error in problems:
        if as_json:
            print_json({"error": error.as_dict()})
        print_error(error)
    if problems and leave:
        raise Exit(1)


def _held(files: Sequence[Path], cache_directory: Path | None) -> list[Item]:
    if files:
        return [item for file in files for item in _read_bundle(file)]
    with opened(cache_directory, offline=True) as collecting_:
        return [stored.item for stored in collecting_.cache.all()]


def _read_bundle(path: Path) -> list[Item]:
    from adyton.collateral import bundle as format_

    with path.open("rb") as file:
        content = file.read(format_.MAX_SIZE + 1)
    try:
        return format_.read(content)
    except EndorsementError as error:
        error.field = str(path)
        raise


def _time(text: str | None) -> datetime:
    if text is None:
        return collecting.now()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise click.UsageError(f"--at: {text!r} is not a time such as 2026-01-31T12:00:00Z")
    return moment
