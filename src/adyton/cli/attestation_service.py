"""``adyton attestation-service serve`` and ``adyton reference serve``: the verifier's services alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adyton.cli.administering import Noun
from adyton.cli.config_file import Configured, again
from adyton.cli.output import say
from adyton.cli.places import places
from adyton.cli.serving_options import LIMITS, WATCHING, absolute, evidence, evidence_options, serving, serving_options
from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.broker.services.program import Serving
    from adyton.broker.services.settings import ServiceSettings

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_WHO = ("client_ca", "changes_by", "tenant", "providers")
_SECTIONS = {
    "Where": ("config", "data", "grpc", "rest"),
    "TLS": ("tls", "certificate", "private_key", "names"),
    "Who may change what": _WHO,
    "What evidence is believed": (
        *("environment", "endorsements", "collateral_cache", "fetch_endorsements", "fetch_from", "trust_dev_root"),
        *("trust_sample_evidence", "evidence_without_runtime_data_i_accept"),
        *("se_host_key_document", "se_image_header", "se_root"),
    ),
    "Tokens": ("issuer", "token_seconds"),
    "Watching": WATCHING,
    "Limits": LIMITS,
}
_OF_REFERENCES = {
    title: names for title, names in _SECTIONS.items() if title not in {"What evidence is believed", "Tokens"}
}


def _changing(command: _F) -> _F:
    for option in (
        click.option(
            "--providers",
            type=_FILE,
            help="Who may publish signed reference values: the tenant's providers, as adyton apply takes them.",
        ),
        click.option("--tenant", default="default", show_default=True, help="Whose policies and reference values."),
        click.option(
            "--changes-by",
            type=click.Choice(["token", "peers"]),
            default="token",
            show_default=True,
            help="Who may change policies and reference values: who has the admin token, or every certified client too.",
        ),
        click.option("--client-ca", type=_FILE, help="Talk only to clients that this CA certifies (PEM)."),
    ):
        command = option(command)
    return command


@click.group("attestation-service", cls=Noun)
def attestation_service() -> None:
    """The attestation service alone: evidence in, a signed result out; no secrets."""


@attestation_service.command(cls=Configured, sections=_SECTIONS)
@click.option("--grpc", metavar="ADDR:PORT", help="Serve gRPC here (as CoCo's grpc-as). Port 0: a free one.")
@click.option("--rest", metavar="ADDR:PORT", help="Serve REST here (as CoCo's restful-as). Port 0: a free one.")
@_changing
@serving_options
@evidence_options
@click.option("--issuer", default="Adyton", show_default=True, help="What tokens say of their issuer.")
@click.option(
    "--evidence-without-runtime-data-i-accept",
    is_flag=True,
    help="Appraise evidence that binds no challenge: it may be old, or another's.",
)
@click.pass_context
def serve(ctx: click.Context, /, **options: Any) -> None:
    """Serve until interrupted. Without --grpc and --rest: gRPC on 127.0.0.1:50004.

    SIGHUP reads settings, certificates, endorsements and providers again.
    """
    _serve(ctx, options, evaluates=True)


@click.command("serve", cls=Configured, sections=_OF_REFERENCES)
@click.option(
    "--grpc", metavar="ADDR:PORT", default="127.0.0.1:50003", show_default=True, help="Where. Port 0: a free one."
)
@_changing
@serving_options
@click.pass_context
def reference_serve(ctx: click.Context, /, **options: Any) -> None:
    """Serve reference values over gRPC until interrupted (as CoCo's rvps).

    SIGHUP reads settings, certificates and providers again.
    """
    _serve(ctx, options, evaluates=False)


def _serve(ctx: click.Context, options: dict[str, Any], *, evaluates: bool) -> None:
    from adyton.broker.running import logs
    from adyton.broker.services import program

    logs.configure(options["log_format"], options["log_level"])
    settings = _settings(options, evaluates=evaluates)
    program.serve(settings, _announce, again=lambda: _settings(again(ctx), evaluates=evaluates))


def _settings(options: dict[str, Any], *, evaluates: bool) -> ServiceSettings:
    from adyton.broker.running import server
    from adyton.broker.services.settings import ServiceSettings, check
    from adyton.broker.settings import address
    from adyton.protocol.loopback import is_loopback

    grpc, rest = options["grpc"] or "", options.get("rest") or ""
    if not grpc and not rest:
        grpc = "127.0.0.1:50004"
    hosts = [address(name, text)[0] for name, text in (("grpc", grpc), ("rest", rest)) if text]
    certificate, tls = options["certificate"], options["tls"]
    if tls is False and certificate:
        raise ConfigError("--no-tls and --certificate contradict each other", code="setting_invalid", field="tls")
    name = "attestation-service" if evaluates else "reference-service"
    more: dict[str, Any] = {}
    if evaluates:
        more = {
            **evidence(options),
            "issuer": options["issuer"],
            "accept_unbound": options["evidence_without_runtime_data_i_accept"],
        }
    settings = ServiceSettings(
        data=str((options["data"] or places().broker.with_name(name)).absolute()),
        host=hosts[0],
        grpc=grpc,
        rest=rest,
        evaluates=evaluates,
        tenant=options["tenant"],
        peers_may_change=options["changes_by"] == "peers",
        providers=absolute(options["providers"]),
        **serving(options),
        **more,
    )
    everywhere = not all(is_loopback(host) for host in hosts)
    with_tls = bool(certificate) or (tls if tls is not None else everywhere or bool(options["client_ca"]))
    return check(server.prepare(settings, tls=with_tls))


def _announce(serving: Serving) -> None:
    settings = serving.settings
    if serving.grpc:
        say(f"gRPC       {serving.grpc}")
    if serving.rest:
        say(f"REST       {serving.rest}")
        say(f"JWK set    {serving.rest}/.well-known/jwks.json")
    if serving.metrics:
        say(f"metrics    {serving.metrics}/metrics")
    say(f"data       {settings.data}  (pid {os.getpid()})")
    say(f"admin      {settings.admin_token}  (the token; changes need it)")
    if serving.pin:
        say(f"TLS        {settings.certificate}")
        say(f"pin        {serving.pin}")
    if settings.client_ca:
        say(f"clients    certified by {settings.client_ca}")
    for root in settings.development_roots:
        _warn(f"development root {root} is trusted: NO HARDWARE PROTECTION stands behind its evidence.")
    if settings.trust_sample_evidence:
        _warn("SAMPLE EVIDENCE IS BELIEVED: whoever reaches this service can claim to run anything.")
    say("serving")


def _warn(text: str) -> None:
    say(click.style("warning    ", fg="yellow", reset=True) + text)
