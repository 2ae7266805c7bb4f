"""``adyton token verify``: whether an attestation result is what its issuer signed, and what it says, in words."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from adyton.cli.administering import Noun
from adyton.cli.binding import read_bytes
from adyton.cli.output import json_option, print_json, say
from adyton.errors import ConfigError, MalformedEvidence, SessionInvalid

if TYPE_CHECKING:
    from adyton.crypto.jwt import VerifyingKeys

_MAX_TOKEN = 8 * 1024 * 1024
_TIERS = {
    "none": "nothing was claimed",
    "affirming": "everything that was asked about is accepted",
    "warning": "something is not as the reference values say",
    "contraindicated": "something is not acceptable",
}
_UNCHECKED = {
    "iss": "iss: who issued it, beyond the key that signed it (--issuer)",
    "aud": "aud: whom it is for; a token for somebody else passes too (--audience)",
}


@click.group(cls=Noun)
def token() -> None:
    """Attestation results (EAR): the signed word of a verifier."""


@token.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--jwks", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The issuer's JWK set.")
@click.option("--broker", metavar="URL", help="Ask this broker or service for its JWK set.")
@click.option("--broker-pin", metavar="PIN", help="sha256:<hex> of the SPKI of its certificate.")
@click.option("--issuer", metavar="NAME", help="Who must have issued it.")
@click.option("--audience", metavar="NAME", help="Whom it must be for.")
@click.option("--at", metavar="RFC3339", help="At this time [default: now].")
@json_option
def verify(file: Path, **options: Any) -> None:
    """Verify the token in FILE ('-': standard input): signature, time, issuer, form; then explain what it claims.

    That it verifies says who said so and that nothing was changed. It does not say that the status is good: read it.
    """
    as_json = options["as_json"]
    if bool(options["jwks"]) is bool(options["broker"]):
        raise click.UsageError("give --jwks FILE or --broker URL")
    text = _read(file)
    now = _time(options["at"])
    claims = _verified(text, _keys(options), now, options["issuer"], options["audience"])
    unchecked = [name for name, asked in (("iss", options["issuer"]), ("aud", options["audience"])) if asked is None]
    if as_json:
        print_json({"verified": True, "claims": claims, "unchecked": unchecked})
        return
    for line in explained(claims, now):
        say(line)
    for name in unchecked:
        say(f"unchecked    {_UNCHECKED[name]}")


def _read(file: Path) -> str:
    text = read_bytes(str(file), _MAX_TOKEN).decode("utf-8", "replace").strip()
    if text.startswith("{"):  # the answer of POST /attest as it stands
        try:
            text = str(cast("dict[str, Any]", json.loads(text))["token"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise MalformedEvidence("neither a token nor an answer that holds one", code="token_malformed") from error
    return text


def _keys(options: dict[str, Any]) -> VerifyingKeys:
    from adyton.crypto import jwt

    if options["jwks"]:
        return jwt.verifying_keys(read_bytes(str(options["jwks"]), _MAX_TOKEN))
    from adyton.client.address import BrokerAddress
    from adyton.client.transport import Transport

    with Transport(BrokerAddress(options["broker"], pin=options["broker_pin"])) as transport:
        reply = transport.request("GET", "/.well-known/jwks.json")
    if reply.status != 200:
        raise ConfigError(
            "the issuer does not give its keys", code="jwks_unavailable", field="broker", got=reply.status
        )
    return jwt.verifying_keys(reply.body)


def _time(text: str | None) -> float:
    from datetime import datetime

    if text is None:
        return time.time()
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.UsageError("--at is not RFC 3339") from error
    if at.tzinfo is None:
        raise click.UsageError("--at has no time zone")
    return at.timestamp()


def _verified(text: str, keys: VerifyingKeys, now: float, issuer: str | None, audience: str | None) -> dict[str, Any]:
    from adyton.crypto import jwt
    from adyton.protocol import ear

    claims = jwt.verify_any(text, keys, now=now)
    if issuer is not None and claims.get("iss") != issuer:
        raise SessionInvalid(
            "the token has another issuer",
            code="token_issuer",
            field="iss",
            expected=issuer,
            got=str(claims.get("iss")),
        )
    said = claims.get("aud")
    named = said if isinstance(said, list) else [said]
    if audience is not None and audience not in named:
        raise SessionInvalid("the token is for another audience", code="token_audience", field="aud", expected=audience)
    ear.read(claims)
    return cast("dict[str, Any]", claims)


def explained(claims: dict[str, Any], now: float) -> list[str]:
    """What verified claims say, a line each."""
    from adyton.protocol import ear

    read = ear.read(claims)
    lines = [
        "verified     signature, time and form",
        f"issuer       {_shown(claims.get('iss'))}  ({_shown(_build(claims))})",
        f"valid        for {max(0, read.expires - int(now))} s more",
    ]
    for one in read.submodules:
        said = one.evidence.get("adyton")
        own: dict[str, Any] = dict(said) if isinstance(said, dict) else {}
        lines.append(f"{one.name:<12} {one.status.text}: {_TIERS.get(one.status.text, '')}  ({_shown(one.tee)})")
        lines += [f"  {name:<18} {value}" for name, value in one.vector.items() if value]
        if one.root_fingerprint:
            told = "a development root: NO HARDWARE PROTECTION" if own.get("root") == "custom" else "the vendor's"
            lines.append(f"  root               {_shown(one.root_fingerprint)}  ({told})")
        if one.measurement:
            lines.append(f"  measurement        {_shown(one.measurement)}")
        if one.image:
            lines.append(f"  image              {_shown(one.image)}")
        unchecked = own.get("unchecked")
        if isinstance(unchecked, list) and unchecked:
            lines.append(f"  not checked        {_shown(', '.join(map(str, unchecked)))}")
    return lines


def _build(claims: dict[str, Any]) -> object:
    said = claims.get("ear.verifier-id")
    return said.get("build", "") if isinstance(said, dict) else ""


def _shown(value: object) -> str:
    return "".join(char if char.isprintable() else "?" for char in str(value)[:200])
