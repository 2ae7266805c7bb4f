"""``adyton ps``, ``logs``, ``stop``, ``rm``, and reaching the platform service, which knows the instances."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from adyton.cli import output
from adyton.cli.administering import Verb
from adyton.cli.places import places
from adyton.errors import AdytonError, PlatformError, Unavailable

if TYPE_CHECKING:
    from adyton.protocol.devtee import Publish
    from adyton.runtime.control import Control

IDLE_EXIT = 600  # seconds


class Seconds(click.FloatRange):
    """A time that ends: neither ``nan``, which is in every range, nor ``inf``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As the base's, of finite numbers."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number of seconds", param, ctx)
        return number


def connect() -> Control:
    """A connection to the platform service, which is started if it is not there."""
    from adyton.runtime.service import Service
    from adyton.runtime.service import connect as connect_service

    here = places()
    try:
        return reach()
    except Unavailable as absent:
        if os.geteuid() != 0:
            raise PlatformError(
                "the development TEE starts its instances with mounts and namespaces, which only root may make here",
                code="root_required",
                got=f"user id {os.geteuid()}",
                hint="run it as root: sudo adyton …",
            ) from absent
    command = ["-m", "adyton", "devtee", "serve", "--idle-exit", str(IDLE_EXIT)]
    return connect_service(Service(here.devtee_socket, command, here.devtee / "service.log"), output.say)


def reach() -> Control:
    """A connection to the platform service if it runs: where it does not, nothing runs that could be stopped."""
    from adyton.runtime.control import Control

    return Control.connect(places().devtee_socket)


@click.command(cls=Verb)
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that have ended.")
@output.json_option
def ps(everything: bool, as_json: bool) -> None:
    """List workloads."""
    from adyton.runtime import instances

    here = places()
    ended = everything and (here.devtee / "instances").is_dir() and any((here.devtee / "instances").iterdir())
    if ended or here.devtee_socket.exists():  # else there is nothing that a service could tell
        with connect() as control:
            rows = instances.listed(control, everything=everything)
    else:
        rows = []
    if as_json:
        import msgspec

        for row in rows:
            output.print_json(msgspec.to_builtins(row))
        return
    output.print_table(
        ("id", "name", "image", "command", "created", "state", "ports"),
        [
            (
                row.id[:12],
                row.name,
                row.image[:19],
                "".join(c if c.isprintable() else "?" for c in " ".join(row.command)[:30]),
                row.created,
                row.state if row.status is None else f"{row.state} ({row.status})",
                ports(row.published),
            )
            for row in rows
        ],
    )


def ports(published: Iterable[Publish]) -> str:
    """Published ports as podman writes them."""
    return ", ".join(f"{item.host_address}:{item.host_port}->{item.container_port}/tcp" for item in published)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@click.argument("name")
def logs(follow: bool, name: str) -> None:
    """Print what a workload wrote, if its document allows it."""
    from adyton.runtime import instances

    with connect() as control:
        for piece in instances.logs(control, name, follow=follow):
            stream = sys.stderr.buffer if piece.stream == "stderr" else sys.stdout.buffer
            stream.write(piece.data)
            stream.flush()


@click.command()
@click.option("-t", "--time", "timeout", type=Seconds(min=0), default=10.0, show_default=True, help="Seconds.")
@click.argument("names", nargs=-1, required=True)
def stop(timeout: float, names: tuple[str, ...]) -> None:
    """Ask workloads to end (the image's stop signal, else TERM), and after a time end them (KILL)."""
    from adyton.runtime import instances

    _each(names, reach, lambda control, name: instances.stop(control, name, timeout))


@click.command()
@click.option("-f", "--force", is_flag=True, help="Kill it first if it runs.")
@click.argument("names", nargs=-1, required=True)
def rm(force: bool, names: tuple[str, ...]) -> None:
    """Forget workloads that have ended, and what they wrote."""
    from adyton.runtime import instances

    _each(names, connect, lambda control, name: instances.remove(control, name, force=force))


def _each(names: Iterable[str], to: Callable[[], Control], action: Callable[[Control, str], None]) -> None:
    """Do it for every name, say which were done, and fail if one was not."""
    failed = False
    for name in names:
        try:
            with to() as control:
                action(control, name)
        except AdytonError as error:
            output.print_error(error)
            failed = True
        else:
            click.echo(name)
    if failed:
        raise output.Exit(1)
