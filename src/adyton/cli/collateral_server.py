"""Running the proxy: where it listens, its certificate, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from pathlib import Path

import click

from adyton.broker.door import certificate as certificates
from adyton.cli import collecting
from adyton.cli.output import say
from adyton.collateral.front import Front
from adyton.collateral.server import Server, tls_context
from adyton.errors import ConfigError
from adyton.protocol.loopback import is_loopback


def serve(
    collecting_: collecting.Collecting,
    listen: str,
    *,
    tls: bool | None,
    certificate: Path | None,
    private_key: Path | None,
    names: tuple[str, ...],
    seconds: float,
) -> None:
    """Serve until SIGINT or SIGTERM."""
    host, port = _address(listen)
    if (certificate is None) is not (private_key is None):
        raise ConfigError("--certificate and --private-key belong together", code="usage", field="certificate")
    with_tls = bool(certificate) or (tls if tls is not None else not is_loopback(host))
    if tls is False and certificate is not None:
        raise ConfigError("--no-tls and --certificate contradict each other", code="usage", field="tls")
    context = None
    if with_tls:
        if certificate is None or private_key is None:
            known = ["localhost", "127.0.0.1", "::1", *names, *(() if host in {"0.0.0.0", "::"} else (host,))]  # noqa: S104
            certificate, private_key = certificates.make(collecting_.cache.directory / "tls", known, collecting.now())
        context = tls_context(str(certificate), str(private_key))
    front = Front(collecting_.cache, collecting_.collector, collecting.now, seconds=seconds)
    asyncio.run(_run(front, host, port, context, certificate))


async def _run(front: Front, host: str, port: int, tls: ssl.SSLContext | None, certificate: Path | None) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    server = Server(front, tls=tls)
    address, bound = await server.start(host, port)
    shown = f"[{address}]" if ":" in address else address
    say(f"endorsements  {'https' if tls else 'http'}://{shown}:{bound}  (pid {os.getpid()})")
    if tls and certificate is not None:
        say(f"TLS           {certificate}")
        say(f"pin           {certificates.pin(certificate)}")
    elif not is_loopback(host):
        say(click.style("warning       ", fg="yellow", reset=True) + "no TLS on an address that others reach")
    try:
        await ended.wait()
    finally:
        with contextlib.suppress(OSError):
            await server.stop()


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            "not an address to listen on",
            code="setting_invalid",
            field="listen",
            expected="HOST:PORT, such as 127.0.0.1:8081 or [::]:8444",
            got=text[:80],
        )
    return host.removeprefix("[").removesuffix("]"), int(port)
