"""``adyton person`` and ``adyton identity``: who may administer, and what they show who they are with."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import msgspec

from adyton.cli import files
from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.binding import read_text
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.client.people import People
from adyton.protocol.people import ROLES, Mapped, PersonBody, PersonView, ProviderBody

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=Noun)
def person() -> None:
    """Register people of the tenant's organisation, with roles, keys and tokens."""


@person.command()
@broker_options
@json_option
def whoami(as_json: bool, **options: Any) -> None:
    """Say whom the broker takes you for."""
    with open_admin(**options) as admin:
        view = People(admin).whoami()
    if as_json:
        print_json(msgspec.to_builtins(view))
        return
    where = "everything" if view.tenants is None else ", ".join(view.tenants) or "nothing"
    say(f"{view.name}: {view.role} of {where}{f' of {view.organisation}' if view.organisation else ''}, by {view.by}")


@person.command("set")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True)
@click.option("--only", "tenants", multiple=True, metavar="TENANT", help="Only this tenant; repeatable [default: all].")
@click.option(
    "--subject", "subjects", multiple=True, metavar="PROVIDER:SUB", help="What an identity provider calls them."
)
@click.option("--key", type=_FILE, help="Their Ed25519 public key, PEM.")
@broker_options
@json_option
def set_(  # noqa: PLR0917 -- click's options
    name: str,
    role: str,
    tenants: tuple[str, ...],
    subjects: tuple[str, ...],
    key: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Register NAME, or change what they may do."""
    pem = read_text(key) if key is not None else ""
    with open_admin(**options) as admin:
        people = People(admin)
        view = people.set_person(name, PersonBody(role, tenants or None, subjects))
        if pem:
            people.add_key(name, pem)
            view = people.show_person(name)
    _said([view], as_json, one=True)


@person.command("list")
@broker_options
@json_option
def list_(as_json: bool, **options: Any) -> None:
    """List people."""
    with open_admin(**options) as admin:
        _said(People(admin).list_people(), as_json)


@person.command()
@click.argument("name")
@broker_options
@json_option
def show(name: str, as_json: bool, **options: Any) -> None:
    """Show somebody with their keys and tokens."""
    with open_admin(**options) as admin:
        view = People(admin).show_person(name)
    _said([view], as_json, one=True)
    if not as_json:
        for one in view.credentials:
            say(f"{one.kind} {one.id}{f', until {one.expires}' if one.expires else ''}")


@person.command()
@click.argument("name")
@broker_options
@json_option
def delete(name: str, as_json: bool, **options: Any) -> None:
    """Forget NAME with all keys and tokens; they are nobody when this returns."""
    with open_admin(**options) as admin:
        People(admin).delete_person(name)
    _done(as_json, f"deleted {name}", deleted=name)


@person.command()
@click.argument("name")
@click.argument("file", type=_FILE)
@broker_options
@json_option
def key(name: str, file: Path, as_json: bool, **options: Any) -> None:
    """Register the Ed25519 public key in FILE (PEM) as one of NAME's."""
    with open_admin(**options) as admin:
        view = People(admin).add_key(name, read_text(file))
    _done(as_json, f"key {view.id} is {name}'s", **msgspec.to_builtins(view))


@person.command()
@click.argument("name", required=False)
@click.option("--days", type=click.IntRange(1, 366), default=90, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it there (0600) and not print it.")
@broker_options
@json_option
def token(name: str | None, days: int, out: Path | None, as_json: bool, **options: Any) -> None:
    """Make a personal token, for yourself or for NAME. It is shown this once."""
    place = files.new(out, "the token is lost: revoke it") if out is not None else nullcontext()
    with open_admin(**options) as admin, place as opened:  # a token that cannot be kept is not made
        people = People(admin)
        made = people.own_token(days) if name is None else people.add_token(name, days)
        if opened is not None:
            opened.write(made.token.encode() + b"\n")
    if out is not None:
        _done(as_json, f"token {made.id}, until {made.expires}, is in {out}", id=made.id, expires=made.expires)
    elif as_json:
        print_json(msgspec.to_builtins(made))
    else:
        say(f"token {made.id}, until {made.expires}; it is not shown again:")
        click.echo(made.token)


@person.command()
@click.argument("number", metavar="ID")
@click.option("--of", "name", help="Whose it is [default: yours].")
@click.option("--key", "is_key", is_flag=True, help="It is a key, not a token.")
@broker_options
@json_option
def revoke(number: str, name: str | None, is_key: bool, as_json: bool, **options: Any) -> None:
    """Take a token or key away; it opens nothing when this returns."""
    if is_key and name is None:
        raise click.UsageError("--key needs --of")
    with open_admin(**options) as admin:
        people = People(admin)
        if name is None:
            people.remove_own_token(number)
        elif is_key:
            people.remove_key(name, number)
        else:
            people.remove_token(name, number)
    _done(as_json, f"revoked {number}", revoked=number)


@person.command("admin-token")
@click.argument("state", type=click.Choice(["on", "off"]))
@broker_options
@json_option
def admin_token(state: str, as_json: bool, **options: Any) -> None:
    """Accept the broker's admin token, or refuse it once people own the broker. Ask without that token."""
    with open_admin(**options) as admin:
        People(admin).switch_admin_token(enabled=state == "on")
    _done(as_json, f"the admin token is {state}", admin_token=state)


@click.group(cls=Noun)
def identity() -> None:
    """Identity providers (OpenID Connect): whose tokens make known who somebody is."""


@identity.command("set")
@click.argument("name")
@click.option("--issuer", required=True, metavar="URL", help="As in its tokens' iss; https.")
@click.option("--audience", required=True, help="What its tokens must have in aud.")
@click.option("--organisation", default="", help="Whose people it knows [default: the broker's].")
@click.option("--role-claim", default="role", show_default=True, help="The claim that says the role.")
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="VALUE=ROLE[:TENANT,…]",
    help="What a value of it means; repeatable, in order.",
)
@click.option("--algorithm", "algorithms", multiple=True, help="Signatures that are accepted [default: all known].")
@click.option("--ca", type=_FILE, help="PEM of the only roots that its certificate may lead to.")
@broker_options
@json_option
def set_identity(name: str, maps: tuple[str, ...], ca: Path | None, as_json: bool, **options: Any) -> None:
    """Set the provider NAME. Nobody has a role that --map does not name."""
    given = {key: options.pop(key) for key in ("issuer", "audience", "organisation", "role_claim")}
    algorithms = options.pop("algorithms")
    roles = dict(_mapped(pair) for pair in maps)
    body = ProviderBody(**given, roles=roles, ca=read_text(ca) if ca else "")
    if algorithms:
        body = msgspec.structs.replace(body, algorithms=algorithms)
    with open_admin(**options) as admin:
        view = People(admin).set_provider(name, body)
    _done(
        as_json, f"{view.issuer} says who {view.organisation or 'the broker'}'s people are", **msgspec.to_builtins(view)
    )


@identity.command("list")
@broker_options
@json_option
def list_identities(as_json: bool, **options: Any) -> None:
    """List identity providers."""
    with open_admin(**options) as admin:
        found = People(admin).list_providers()
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        print_table(
            ("name", "organisation", "issuer", "audience"),
            [(one.name, one.organisation or "-", one.issuer, one.audience) for one in found],
        )


@identity.command("delete")
@click.argument("name")
@click.option("--organisation", default="", help="Whose people it knows [default: the broker's].")
@broker_options
@json_option
def delete_identity(name: str, organisation: str, as_json: bool, **options: Any) -> None:
    """Forget a provider: whom it knows is nobody when this returns."""
    with open_admin(**options) as admin:
        People(admin).delete_provider(name, organisation)
    _done(as_json, f"deleted {name}", deleted=name)


def _mapped(pair: str) -> tuple[str, Mapped]:
    value, equals, meaning = pair.rpartition("=")
    role, colon, tenants = meaning.partition(":")
    if not equals or not value or role not in ROLES:
        raise click.UsageError(f"{pair}: VALUE=ROLE or VALUE=ROLE:TENANT,TENANT")
    return value, Mapped(role, tuple(tenants.split(",")) if colon else None)


def _said(views: list[PersonView], as_json: bool, *, one: bool = False) -> None:
    if as_json:
        print_json(msgspec.to_builtins(views[0] if one else views))
        return
    print_table(
        ("name", "organisation", "role", "tenants", "credentials"),
        [
            (
                view.name,
                view.organisation or "-",
                view.role,
                "all" if view.tenants is None else ", ".join(view.tenants),
                len(view.credentials) + len(view.subjects),
            )
            for view in views
        ],
    )


def _done(as_json: bool, told: str, **value: object) -> None:
    if as_json:
        print_json(value)
    else:
        say(told)
