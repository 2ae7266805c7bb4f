"""``adyton broker doctor``: what is weak here, and its cure."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from adyton.cli.output import Exit, json_option, print_json, print_line
from adyton.cli.places import places

_COLOURS = {"ok": "green", "weak": "yellow", "bad": "red"}


@click.command()
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="The broker's data directory.")
@click.option(
    "--root-key-file", type=click.Path(dir_okay=False, path_type=Path), help="Where the root key's plain file is."
)
@click.option(
    "--endorsements",
    multiple=True,
    type=click.Path(path_type=Path),
    help="What the broker was given [default: as the running one says].",
)
@json_option
def doctor(data: Path | None, root_key_file: Path | None, endorsements: tuple[Path, ...], as_json: bool) -> None:
    """Say what is weak on this machine, each with a cure. Status 1 if something is bad, not merely weak."""
    from adyton.broker.custodians.doctor import examine

    directory = (data or places().broker).absolute()
    plain = root_key_file.absolute() if root_key_file else directory / "root.key"
    findings = examine(directory, plain, datetime.fromtimestamp(time.time(), UTC), endorsements)
    for one in findings:
        if as_json:
            print_json(asdict(one))
            continue
        click.echo(click.style(f"{one.level:5}", fg=_COLOURS[one.level]), nl=False)
        print_line(f" {one.id:13} {one.text}")
        if one.cure:
            print_line(f"{'':20}cure: {one.cure}")
    if any(one.level == "bad" for one in findings):
        raise Exit(1)
