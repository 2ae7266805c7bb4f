"""``adyton broker status`` and ``reload``: how the broker of this machine, or another one, is; and telling it to go on anew."""

from __future__ import annotations

import os
import signal
from typing import Any

import click

from adyton.cli.administering import broker_options, local_broker, open_admin
from adyton.cli.output import Exit, json_option, print_json, print_line, say
from adyton.cli.places import places
from adyton.errors import AdytonError, ConfigError, Unavailable


@click.command()
@broker_options
@json_option
def status(as_json: bool, **options: Any) -> None:
    """Whether the broker works, part by part; exit status 1 if it is not ready."""
    import json

    from msgspec import to_builtins

    with open_admin(**options) as admin:
        about = admin.about()
        reply = admin.outside("GET", "/readyz")
    try:
        ready: dict[str, Any] = json.loads(reply.body) if reply.body else {"ready": reply.status == 200, "parts": []}
        said = [(bool(part["ready"]), str(part["name"]), str(part["why"])) for part in ready["parts"]]
        is_ready = ready["ready"] is True
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise Unavailable("the broker's answer cannot be read", code="broker_answer", got=reply.status) from error
    if as_json:
        print_json({**to_builtins(about), **ready})
    else:
        print_line(f"{'ready' if is_ready else 'NOT READY'}: Adyton {about.version}, {about.environment}")
        if about.cryptography:
            print_line(f"  {about.cryptography}")
        for good, name, why in said:
            print_line(f"  {'ok ' if good else 'NO '} {name}" + (f": {why}" if why else ""))
    if not is_ready:
        raise Exit(1)


@click.command()
@click.option("--settings", "only_settings", is_flag=True, help="Read settings and certificates again, as SIGHUP does.")
@json_option
def reload(only_settings: bool, as_json: bool) -> None:
    """Relieve the workers of this machine's broker one by one: a new one answers before the old one goes.

    New workers run the program that is installed now. Asks only by a signal: the broker's log tells how it went.
    """
    from adyton.stores.lock import holder

    local = local_broker()
    pid = holder(places().broker)
    if pid is None or pid != local.get("pid"):
        raise ConfigError(
            "no broker runs on this machine",
            code="broker_unknown",
            field="broker.json",
            hint="ADYTON_HOME and the user must be the broker's",
        )
    if not only_settings and local.get("workers") == 1:
        raise ConfigError(
            "one worker cannot relieve itself",
            code="reload_needs_workers",
            field="workers",
            expected="at least 2",
            got=1,
            hint="start the broker with --workers 2, or reload its --settings alone",
        )
    number = signal.SIGHUP if only_settings else signal.SIGUSR2
    try:
        os.kill(pid, number)
    except OSError as error:
        raise _gone(pid, error) from error
    if as_json:
        print_json({"pid": pid, "signal": number.name})
    else:
        say(f"told the broker, process {pid}")


def _gone(pid: int, error: OSError) -> AdytonError:
    return ConfigError(f"the broker cannot be told: {error.strerror}", code="broker_unknown", field="pid", got=pid)
