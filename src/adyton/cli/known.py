"""``adyton broker pin``, ``known`` and ``forget``; and whether a secret may be sent to a broker at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from adyton.cli.collecting import now
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.cli.places import places
from adyton.errors import ConfigError, NotFound, ReleaseRefused

if TYPE_CHECKING:
    from adyton.client.address import BrokerAddress
    from adyton.client.known_brokers import Known


def for_secrets(where: BrokerAddress, *, ours: bool, accept: bool) -> BrokerAddress:
    """``where`` as a secret may be sent there: with the pin by which the broker is known.

    Brokers on loopback and this machine's own (``ours``) are who they are. Anything else was attested, or pinned (for
    good, or in ``where``); ``ConfigError`` ``broker_unattested``, unless somebody says ``accept``. ``ReleaseRefused``
    ``broker_pin_changed`` where the pin that was given is not the known one: nothing waives that.
    """
    from adyton.client import known_brokers
    from adyton.protocol.loopback import is_loopback

    if ours or is_loopback(urlsplit(where.url).hostname or ""):
        return where
    known = known_brokers.read(places().known_brokers).get(known_brokers.origin(where.url))
    if known is not None:
        if where.pin is not None and where.pin != known.pin:
            raise ReleaseRefused(
                f"{known.url} is known by another TLS key since {known.first_seen[:10]}",
                code="broker_pin_changed",
                reasons=(f"pin: known {known.pin}, given {where.pin}",),
                hint="adyton broker attest URL finds out what it is now; nothing was sent",
            )
        return replace(where, pin=known.pin)
    if where.pin is not None and urlsplit(where.url).scheme == "https":
        return where
    if accept:
        say(click.style("warning    ", fg="yellow", reset=True) + f"{where.url} never proved what it is")
        return where
    raise ConfigError(
        "nothing was sent: nobody knows what runs behind this broker's address",
        code="broker_unattested",
        field="broker",
        got=where.url,
        expected="a broker that was attested or pinned",
        hint="adyton broker attest URL --measurement …; or adyton broker pin URL PIN, or --broker-pin PIN, with its owner's"
        " pin; or --unattested-broker-i-accept",
    )


@click.command()
@click.argument("url")
@click.argument("pin")
@click.option("--replace", "anew", is_flag=True, help="It had another pin, or was attested: keep this one.")
@json_option
def pin(url: str, pin: str, anew: bool, as_json: bool) -> None:
    """Know the broker at URL by the PIN (sha256:<hex>) that its owner told you. It proves nothing about what runs there.

    Refused if the broker at URL has another key.
    """
    from adyton.client import known_brokers
    from adyton.client.address import BrokerAddress
    from adyton.client.known_brokers import Known
    from adyton.client.transport import Transport

    address = BrokerAddress(url, pin=pin)
    if urlsplit(url).scheme != "https":
        raise ConfigError("without TLS there is no key to pin", code="broker_http", field="url", got=url)
    with Transport(address) as transport:
        transport.request("GET", "/healthz")
    seen = now().isoformat(timespec="seconds")
    found = Known(url=known_brokers.origin(url), pin=pin, by="pin", first_seen=seen, seen=seen)

    def keep(table: dict[str, Known]) -> None:
        old = table.get(found.url)
        if old is not None and not anew:
            if old.pin == pin and old.by == "attested":
                return  # it is known for more than that
            known_brokers.compare(old, found)
        table[found.url] = found

    known_brokers.change(places().known_brokers, keep)
    if as_json:
        print_json({"url": found.url, "pin": pin})
    else:
        say(f"{found.url} is known by its key; what runs there, nothing proves")


@click.command()
@json_option
def known(as_json: bool) -> None:
    """List the brokers that were attested or pinned."""
    from msgspec import to_builtins

    from adyton.client import known_brokers

    table = known_brokers.read(places().known_brokers)
    if as_json:
        for one in table.values():
            print_json(to_builtins(one))
        return
    rows = (
        (one.url, one.by, one.first_seen[:10], one.seen[:10], one.measurement or None, one.pin)
        for one in table.values()
    )
    print_table(("url", "by", "since", "last", "measurement", "pin"), rows)


@click.command()
@click.argument("url")
@json_option
def forget(url: str, as_json: bool) -> None:
    """Know the broker at URL no more: secrets go there only after it was attested anew."""
    from adyton.client import known_brokers

    name = known_brokers.origin(url)

    def drop(table: dict[str, Any]) -> None:
        if table.pop(name, None) is None:
            raise NotFound("this broker is not known", code="broker_not_known", hint="adyton broker known")

    known_brokers.change(places().known_brokers, drop)
    if as_json:
        print_json({"url": name})
    else:
        say(f"{name} is forgotten")
