"""``adyton ca``: the tenant's certification authority, what it has issued, and its list of revoked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_table, say

_REASONS = click.Choice(
    [
        *("unspecified", "key-compromise", "affiliation-changed"),
        *("superseded", "cessation-of-operation", "privilege-withdrawn"),
    ]
)


@click.group(cls=Noun)
def ca() -> None:
    """The certification authority that every tenant has for the keys that are made inside."""


@ca.command()
@click.option("--all", "every", is_flag=True, help="All roots, also those that are prepared or retired.")
@broker_options
@json_option
def show(every: bool, as_json: bool, **options: Any) -> None:
    """Print the authority's certificate (PEM): what whoever verifies its certificates must trust."""
    from msgspec import to_builtins

    from adyton.client.authority import CertificationAuthority

    with open_admin(**options) as admin:
        authority = CertificationAuthority(admin)
        views = authority.all() if every else [authority.show()]
    for view in views:
        if as_json:
            print_json(to_builtins(view))
            continue
        click.echo(view.certificate, nl=False)
        where = f", list at {view.crl}" if view.crl else ""
        say(f"number {view.number}, {view.state}, sha256:{view.fingerprint}, valid until {view.not_after}{where}")


@ca.command()
@click.option("--prepare", is_flag=True, help="Make the next root and let it not issue yet, so that it can be trusted.")
@click.option("--days", type=int, default=3650, show_default=True, help="How long the new root is valid.")
@broker_options
@json_option
def rotate(prepare: bool, days: int, as_json: bool, **options: Any) -> None:
    """Issue under a new root from now on: the one that was prepared, or one made now. The old one publishes its list on."""
    from msgspec import to_builtins

    from adyton.client.authority import CertificationAuthority

    with open_admin(**options) as admin:
        view = CertificationAuthority(admin).rotate(prepare=prepare, days=days)
    if as_json:
        print_json(to_builtins(view))
    else:
        say(f"number {view.number} is {view.state}, sha256:{view.fingerprint}, valid until {view.not_after}")


@ca.command()
@broker_options
@json_option
def certificates(as_json: bool, **options: Any) -> None:
    """All certificates that were issued, with what was revoked and why."""
    from msgspec import to_builtins

    from adyton.client.authority import CertificationAuthority

    with open_admin(**options) as admin:
        views = CertificationAuthority(admin).certificates()
    if as_json:
        for view in views:
            print_json(to_builtins(view))
        return
    print_table(
        ("serial", "under", "key", "version", "until", "revoked", "why"),
        [(v.serial, v.authority, v.uri, v.version, v.expires, v.revoked or "-", v.reason) for v in views],
    )


@ca.command()
@click.argument("uri", required=False)
@click.option("--version", type=click.IntRange(min=1), help="Of this version of the key [default: of all].")
@click.option(
    "--serial", "serials", multiple=True, metavar="HEX", help="This certificate, whatever it is of. Repeatable."
)
@click.option("--reason", type=_REASONS, default="unspecified", show_default=True, help="As RFC 5280 has them.")
@broker_options
@json_option
def revoke(
    uri: str | None, version: int | None, serials: tuple[str, ...], reason: str, as_json: bool, **options: Any
) -> None:
    """Revoke the certificates of the key at URI, or those with a serial number. It cannot be taken back."""
    from msgspec import to_builtins

    from adyton.client.authority import CertificationAuthority

    if (uri is None) is not bool(serials):
        raise click.UsageError("give a URI, or --serial HEX")
    with open_admin(**options) as admin:
        done = CertificationAuthority(admin).revoke(reason, serials=list(serials), uri=uri or "", version=version)
    for view in done:
        if as_json:
            print_json(to_builtins(view))
        else:
            say(f"revoked {view.serial} of {view.uri}, version {view.version}: {view.reason}")


@ca.command("crl")
@click.option("--number", type=click.IntRange(min=1), help="Of this root [default: of the one that issues].")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="[default: stdout]")
@broker_options
@json_option
def crl_(number: int | None, output: Path | None, as_json: bool, **options: Any) -> None:
    """Print a root's list of revoked certificates (PEM). Anybody gets it as DER at /t/TENANT/.well-known/ca/NUMBER.crl."""
    from msgspec import to_builtins

    from adyton.client.authority import CertificationAuthority

    with open_admin(**options) as admin:
        authority = CertificationAuthority(admin)
        view = authority.crl(number or authority.show().number)
    if as_json:
        print_json(to_builtins(view))
        return
    if output is not None:
        output.write_text(view.pem)
    else:
        click.echo(view.pem, nl=False)
    say(f"list {view.number} of root {view.authority}: {view.revoked} revoked, the next one is due {view.next_update}")
