"""``adyton broker revoke``: stop what runs, at once, in every worker and replica; the record keeps why."""

from __future__ import annotations

from typing import Any, TextIO

import click

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.errors import ConfigError

_KINDS = {
    "platform": ("ID", "Machines, by what evidence calls them: the claim platform_id."),
    "chip": ("ID", "Processors and devices, by chip id (AMD's HWID), PPID or serial number."),
    "workload": (
        "DIGEST",
        "What runs: a measurement, sha256:<document> (HOST_DATA), or both as MEASUREMENT/sha256:<document>.",
    ),
    "session": ("HANDLE", "All sessions of a TEE's key, by the request_id of audit rows."),
    "token": ("ID", "Tokens, by jti or by the claims of audit rows."),
    "key": ("KID", "The broker's own signing keys, for all tenants; it signs with a new one at once."),
}
_EVERYWHERE = click.option("--everywhere", is_flag=True, help="For all tenants of the broker: the operator's business.")
_REASON = click.option("--reason", required=True, help="Why: kept in the record, never published.")


@click.group(cls=Noun)
def revoke() -> None:
    """Revoke a platform, chip, workload, session, token or signing key. It is decided when the command returns."""


def _command(kind: str, metavar: str, text: str) -> click.Command:
    @click.command(kind, help=text)
    @click.argument("values", nargs=-1, required=True, metavar=f"{metavar}...")
    @_REASON
    @_EVERYWHERE
    @broker_options
    @json_option
    def command(values: tuple[str, ...], reason: str, everywhere: bool, as_json: bool, **options: Any) -> None:
        from msgspec import to_builtins

        from adyton.client.revocation import Revoking

        with open_admin(**options) as admin:
            added = Revoking(admin, everywhere=everywhere or kind == "key").revoke(kind, list(values), reason)
        for one in added:
            if as_json:
                print_json(to_builtins(one))
            else:
                say(f"revoked {one.kind} {one.value}" + (" for all tenants" if one.everywhere else ""))

    return command


for _kind, (_metavar, _text) in _KINDS.items():
    revoke.add_command(_command(_kind, _metavar, _text))


@revoke.command("list")
@_EVERYWHERE
@broker_options
@json_option
def list_(everywhere: bool, as_json: bool, **options: Any) -> None:
    """What is revoked, by whom and why; with the broker's own."""
    from msgspec import to_builtins

    from adyton.client.revocation import Revoking

    with open_admin(**options) as admin:
        found = Revoking(admin, everywhere=everywhere).list()
    if as_json:
        for one in found:
            print_json(to_builtins(one))
    else:
        rows = ((v.kind, v.value, "all tenants" if v.everywhere else "", v.since, v.by, v.reason) for v in found)
        print_table(("kind", "value", "for", "since", "by", "reason"), rows)


@revoke.command()
@click.argument("kind", type=click.Choice(list(_KINDS)))
@click.argument("value")
@_REASON
@_EVERYWHERE
@broker_options
@json_option
def lift(kind: str, value: str, reason: str, everywhere: bool, as_json: bool, **options: Any) -> None:
    """Take a revocation back. Sessions and tokens of before stay ended."""
    from adyton.client.revocation import Revoking

    with open_admin(**options) as admin:
        Revoking(admin, everywhere=everywhere or kind == "key").lift(kind, value, reason)
    if as_json:
        print_json({"lifted": value, "kind": kind})
    else:
        say(f"lifted {kind} {value}")


@revoke.command()
@click.argument("token_file", type=click.File("r"))
@broker_options
@json_option
def check(token_file: TextIO, as_json: bool, **options: Any) -> None:
    """Whether a token (in a file, - for standard input) is good now: its signature, its time, and the published list.

    As whoever relies on tokens without being the broker does it: asks for nothing that is not public.
    """
    import time

    from adyton.cli.administering import address
    from adyton.client.relying import check_token
    from adyton.client.transport import Transport
    from adyton.crypto.jwt import MAX_TOKEN

    try:
        token = token_file.read(MAX_TOKEN + 1).strip()
    except UnicodeDecodeError as error:
        raise ConfigError("this file holds no token", code="file_unreadable", field=token_file.name) from error
    tenant = options["tenant"]
    where = address(options["broker"], options["broker_pin"], tenant, insecure_http=options["insecure_http"])
    transport = Transport(where)
    try:
        claims = check_token(transport, token, tenant, time.time())
    finally:
        transport.close()
    if as_json:
        print_json({"good": True, "expires": claims.expires, "status": claims.primary.status.text})
    else:
        say(f"good: signed by this broker, not revoked, {claims.primary.status.text}")
