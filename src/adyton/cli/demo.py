"""``adyton demo``: the whole story on real parts, refusals included."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from adyton.cli.administering import Verb
from adyton.cli.ending import put_away_when_ended
from adyton.cli.output import Exit, json_option, print_json
from adyton.cli.places import places


def _guest(given: Path | None) -> Path:
    from adyton.errors import ConfigError

    checkout = Path(__file__).resolve().parents[3] / "build" / "adyton-guest.erofs"
    for candidate in [given] if given is not None else [checkout, places().guest]:
        if candidate.is_file():
            return candidate
    raise ConfigError("there is no guest stack to start from", code="guest_missing", hint="build it: make guest")


@click.command(cls=Verb)
@click.option("--guest", type=click.Path(path_type=Path), help="The guest file (default: build/adyton-guest.erofs).")
@json_option
def demo(guest: Path | None, as_json: bool) -> None:
    """Encrypt an image, run it after attestation, and see it refused six times, each with its reason.

    Everything is real: Debian's registry, the broker, a container, SNP evidence under a development root that protects
    nothing from this machine's administrator. It needs root, takes under a minute and leaves nothing behind.
    """
    from adyton.demo.screen import Screen
    from adyton.demo.story import tell
    from adyton.errors import PlatformError

    if os.geteuid() != 0:
        raise PlatformError(
            "the demo needs root, for mounts and namespaces", code="not_permitted_here", hint="sudo make demo"
        )
    put_away_when_ended()
    screen = Screen(quiet=as_json)
    good = tell(screen, _guest(guest))
    if as_json:
        print_json(
            {
                "ok": good,
                "steps": [
                    {"step": row.step, "expected": row.expected, "got": row.got, "ok": row.ok} for row in screen.rows
                ],
            }
        )
    sys.stdout.flush()
    if not good:
        raise Exit(1)
