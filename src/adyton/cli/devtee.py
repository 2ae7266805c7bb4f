"""``adyton devtee``: make, run and look at the development TEE. Every verb says that no hardware stands behind it."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adyton.cli.administering import Noun
from adyton.cli.ending import put_away_when_ended
from adyton.cli.instances import Seconds
from adyton.cli.output import json_option, print_json, say
from adyton.cli.places import Places, places
from adyton.errors import Unavailable

if TYPE_CHECKING:
    from adyton.platform.settings import Settings
    from adyton.protocol.devtee import ControlReply, ControlRequest, Platform

WARNING = (
    "NO HARDWARE PROTECTION: a development TEE proves what runs, it hides nothing from this machine's administrator."
)


@click.group(cls=Noun)
def devtee() -> None:
    """The development TEE: evidence in genuine formats, issued under a root of your own. No hardware protection."""


class _Screen:
    """Progress on standard error: one line that is written over on a terminal, nothing in a log."""

    def __init__(self) -> None:
        self._shown = False

    def advance(self, label: str, done: int, total: int | None) -> None:
        """Show how far it is."""
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{label}: {done}{f' of {total}' if total else ''}", err=True, nl=False)
            self._shown = True

    def finish(self) -> None:
        """Leave an empty line behind."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)


@devtee.command()
@json_option
def init(as_json: bool) -> None:
    """Make this machine's development roots (SNP; SGX and TDX), or show those that are there; never overwritten."""
    from adyton.devtee.dcap_root import DcapRoot
    from adyton.devtee.root import DevelopmentRoot

    screen = _Screen()
    root = DevelopmentRoot.create(places().devtee, _now(), screen)
    screen.finish()
    dcap = DcapRoot.create(places().devtee, _now())
    if as_json:
        print_json(
            {
                "fingerprint": root.fingerprint,
                "endorsements": str(root.endorsements),
                "dcap": {"fingerprint": dcap.fingerprint, "endorsements": str(dcap.endorsements)},
                "hardware": False,
            }
        )
        return
    say(click.style(WARNING, fg="yellow"))
    say(f"endorsements for verifiers: {root.endorsements}")
    say(f"a broker trusts it with:    --trust-dev-root {root.fingerprint} --environment development")
    say(f"for SGX and TDX:            {dcap.endorsements}, root {dcap.fingerprint}")
    click.echo(root.fingerprint)


@devtee.command("build-guest")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to make [default: where serve looks].")
@click.option("--force", is_flag=True, help="Build even if nothing has changed.")
@json_option
def build_guest(output: Path | None, force: bool, as_json: bool) -> None:
    """Build the guest stack, one file, bit for bit the same from the same inputs."""
    from adyton.platform.guest import measure
    from adyton.platform.guest_image import build

    put_away_when_ended()
    screen = _Screen()
    began = time.monotonic()
    built = build(output or places().guest, screen, force=force)
    screen.finish()
    measurement = measure(built.path).hex()
    if as_json:
        print_json(
            {
                "guest": str(built.path),
                "sha256": built.sha256.hex(),
                "size": built.size,
                "rebuilt": built.rebuilt,
                "measurement": measurement,
            }
        )
        return
    what = f"built in {time.monotonic() - began:.1f} s" if built.rebuilt else "unchanged"
    say(f"guest stack {what}: {built.path} ({built.size / 1e6:.0f} MB, sha256 {built.sha256.hex()})")
    click.echo(measurement)


@devtee.command()
@click.option("--guest", type=click.Path(path_type=Path), help="The guest stack [default: built when it is missing].")
@click.option("--private-size", type=click.IntRange(min=16), help="MiB of an instance's private root [half of memory].")
@click.option("--idle-exit", type=Seconds(min=0), help="End after this many seconds without anything to do.")
def serve(guest: Path | None, private_size: int | None, idle_exit: float | None) -> None:
    """Run the platform service in the foreground: it starts instances, measures them and answers for them."""
    from adyton.platform import startup

    settings = _settings(places(), guest, private_size, idle_exit)
    screen = _Screen()
    if guest is None:
        from adyton.platform.guest_image import build

        build(settings.guest, screen)

    def announce(about: Platform) -> None:
        screen.finish()
        say(click.style(WARNING, fg="yellow", bold=True))
        say(f"root:         {about.root_fingerprint}")
        say(f"guest:        {about.guest}")
        say(f"measurement:  {about.measurement}")
        say(f"listening on: {settings.socket}")

    startup.serve(settings, _now, announce, screen)


@devtee.command()
@json_option
def show(as_json: bool) -> None:
    """Show the roots, and the service if it runs."""
    from adyton.devtee.dcap_root import DcapRoot
    from adyton.devtee.root import DevelopmentRoot

    here = places()
    root = DevelopmentRoot.load(here.devtee, _now())
    # A directory that was made before there was a root for SGX and TDX has none until the next init.
    dcap = DcapRoot.load(here.devtee, _now()) if (here.devtee / "dcap" / "root").exists() else None
    about = _about(here)
    shown = {
        "hardware": False,
        "fingerprint": root.fingerprint,
        "chip_id": root.chip_id.hex(),
        "endorsements": str(root.endorsements),
        "dcap": None if dcap is None else {"fingerprint": dcap.fingerprint, "endorsements": str(dcap.endorsements)},
        "service": None
        if about is None
        else {"pid": about.pid, "guest": about.guest, "measurement": about.measurement},
    }
    if as_json:
        print_json(shown)
        return
    say(click.style(WARNING, fg="yellow"))
    click.echo(f"root:         {root.fingerprint}")
    click.echo(f"chip id:      {root.chip_id.hex()}")
    click.echo(f"endorsements: {root.endorsements}")
    if dcap is None:
        click.echo("SGX and TDX:  no root yet (adyton devtee init)")
    else:
        click.echo(f"SGX and TDX:  root {dcap.fingerprint}")
        click.echo(f"              {dcap.endorsements}")
    if about is None:
        click.echo("service:      not running (adyton devtee serve)")
    else:
        click.echo(f"service:      running, process {about.pid}, {here.devtee_socket}")
        click.echo(f"guest:        {about.guest}")
        click.echo(f"measurement:  {about.measurement}")


@devtee.command()
@click.option("--force", is_flag=True, help="Also when instances run: they are killed.")
def stop(force: bool) -> None:
    """End the platform service."""
    from adyton.protocol.devtee import Shutdown

    path = places().devtee_socket
    _ask(path, Shutdown(force=force))
    for _ in range(200):
        if not path.exists():
            return
        time.sleep(0.05)
    raise Unavailable("the platform service has not ended within 10 s", code="platform_stuck", field=str(path))


def _settings(here: Places, guest: Path | None, private_size: int | None, idle_exit: float | None) -> Settings:
    from adyton.platform.settings import Settings, default_private_size

    return Settings(
        devtee=here.devtee,
        run=here.run,
        socket=here.devtee_socket,
        store=here.store,
        volumes=here.home / "volumes",
        guest=guest.absolute() if guest is not None else here.guest,
        private_size=default_private_size() if private_size is None else private_size << 20,
        idle_exit=idle_exit,
    )


def _about(here: Places) -> Platform | None:
    from adyton.protocol.devtee import About, Platform

    try:
        reply = _ask(here.devtee_socket, About())
    except Unavailable:
        return None
    return reply if isinstance(reply, Platform) else None


def _ask(path: Path, request: ControlRequest) -> ControlReply:
    from adyton.runtime.control import Control

    control = Control.connect(path)
    try:
        return control.ask(request)
    finally:
        control.close()


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 -- the edge, where the clock is read
