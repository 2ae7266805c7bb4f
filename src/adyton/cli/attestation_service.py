"""``adyton attestation-service serve`` and ``adyton reference serve``: the verifier's services alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adyton.cli.administering import Noun
from adyton.cli.broker import ENVIRONMENTS
from adyton.cli.output import say
from adyton.cli.places import places
from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.broker.services.program import Serving

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_COMMON = (
    click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Data directory, made if absent."),
    click.option("--tls/--no-tls", default=None, help="TLS [default: on, except on loopback]."),
    click.option("--certificate", type=_FILE, help="PEM certificate chain."),
    click.option("--private-key", type=_FILE, help="Its PEM private key."),
    click.option("--client-ca", type=_FILE, help="Talk only to clients that this CA certifies (PEM)."),
    click.option(
        "--changes-by",
        type=click.Choice(["token", "peers"]),
        default="token",
        show_default=True,
        help="Who may change policies and reference values: who has the admin token, or every certified client too.",
    ),
    click.option("--tenant", default="default", show_default=True, help="Whose policies and reference values."),
)
_EVALUATING = (
    click.option("--environment", type=click.Choice(ENVIRONMENTS), default="production", show_default=True),
    click.option("--trust-dev-root", multiple=True, metavar="FINGERPRINT", help="Trust a development TEE's root."),
    click.option(
        "--endorsements",
        multiple=True,
        type=click.Path(exists=True, path_type=Path),
        help="Certificates and CRLs: a file or directory; read again when it changes, or on SIGHUP.",
    ),
    click.option(
        "--trust-sample-evidence",
        is_flag=True,
        help="Believe evidence that ANYBODY can write (CoCo's sample). Only in development, ci and test.",
    ),
    click.option(
        "--collateral-cache",
        type=click.Path(file_okay=False, path_type=Path),
        help="Endorsements that were fetched, used where --endorsements do not do; made if absent.",
    ),
    click.option("--fetch-endorsements", is_flag=True, help="Ask the vendors' services for what is in neither."),
    click.option("--fetch-from", multiple=True, metavar="[KIND=]URL", help="Ask this source instead. Repeatable."),
    click.option("--se-host-key-document", multiple=True, type=_FILE, help="A machine of IBM Secure Execution guests."),
    click.option("--se-image-header", type=_FILE, help="The Secure Execution image, or its header, that may attest."),
    click.option("--se-root", multiple=True, metavar="FINGERPRINT", help="The root of IBM's host key documents."),
    click.option("--issuer", default="Adyton", show_default=True, help="What tokens say of their issuer."),
    click.option("--token-seconds", type=int, default=300, show_default=True, help="How long a token is valid."),
    click.option(
        "--evidence-without-runtime-data-i-accept",
        is_flag=True,
        help="Appraise evidence that binds no challenge: it may be old, or another's.",
    ),
)


def _options(*groups: tuple[Callable[[_F], _F], ...]) -> Callable[[_F], _F]:
    def add(command: _F) -> _F:
        for option in reversed([one for group in groups for one in group]):
            command = option(command)
        return command

    return add


@click.group("attestation-service", cls=Noun)
def attestation_service() -> None:
    """The attestation service alone: evidence in, a signed result out; no secrets."""


@attestation_service.command()
@click.option("--grpc", metavar="ADDR:PORT", help="Serve gRPC here (as CoCo's grpc-as). Port 0: a free one.")
@click.option("--rest", metavar="ADDR:PORT", help="Serve REST here (as CoCo's restful-as). Port 0: a free one.")
@_options(_COMMON, _EVALUATING)
def serve(grpc: str | None, rest: str | None, **options: Any) -> None:
    """Serve until interrupted. Without --grpc and --rest: gRPC on 127.0.0.1:50004."""
    if grpc is None and rest is None:
        grpc = "127.0.0.1:50004"
    _serve(grpc, rest, options, evaluates=True)


@click.command("serve")
@click.option(
    "--grpc", metavar="ADDR:PORT", default="127.0.0.1:50003", show_default=True, help="Where. Port 0: a free one."
)
@_options(_COMMON)
def reference_serve(grpc: str, **options: Any) -> None:
    """Serve reference values over gRPC until interrupted (as CoCo's rvps)."""
    _serve(grpc, None, options, evaluates=False)


def _serve(grpc: str | None, rest: str | None, options: dict[str, Any], *, evaluates: bool) -> None:
    import logging

    from adyton.broker.services import program
    from adyton.broker.settings import Settings
    from adyton.protocol.loopback import is_loopback

    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    addresses = [_listen(text) for text in (grpc, rest) if text is not None]
    certificate, tls = options["certificate"], options["tls"]
    if tls is False and certificate:
        raise ConfigError("--no-tls and --certificate contradict each other", code="setting_invalid", field="tls")
    name = "attestation-service" if evaluates else "reference-service"
    given: dict[str, Any] = {}
    if evaluates:
        given = {
            "environment": options["environment"],
            "development_roots": [root.lower().removeprefix("sha256:") for root in options["trust_dev_root"]],
            "endorsements": [_absolute(path) for path in options["endorsements"]],
            "trust_sample_evidence": options["trust_sample_evidence"],
            "collateral_cache": _absolute(options["collateral_cache"]),
            "fetch_endorsements": options["fetch_endorsements"],
            "fetch_from": list(options["fetch_from"]),
            "se_host_key_documents": [_absolute(path) for path in options["se_host_key_document"]],
            "se_image_header": _absolute(options["se_image_header"]),
            "se_roots": [root.lower().removeprefix("sha256:") for root in options["se_root"]],
            "token_seconds": options["token_seconds"],
        }
    settings = Settings(
        data=str((options["data"] or places().broker.with_name(name)).absolute()),
        host=addresses[0][0],
        certificate=_absolute(certificate),
        private_key=_absolute(options["private_key"]),
        **given,
    )
    asked = program.ServiceSettings(
        settings,
        _listen(rest) if rest is not None else None,
        _listen(grpc) if grpc is not None else None,
        evaluates=evaluates,
        tenant=options["tenant"],
        issuer=options.get("issuer", "Adyton"),
        client_ca=_absolute(options["client_ca"]),
        peers_may_change=options["changes_by"] == "peers",
        accept_unbound=options.get("evidence_without_runtime_data_i_accept", False),
    )
    everywhere = not all(is_loopback(host) for host, _ in addresses)
    with_tls = bool(certificate) or (tls if tls is not None else everywhere or bool(options["client_ca"]))
    program.serve(asked, with_tls=with_tls, ready=lambda serving: _announce(serving, asked.client_ca))


def _absolute(path: Path | None) -> str:
    return str(path.absolute()) if path else ""


def _listen(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            "not an address to listen on",
            code="setting_invalid",
            field="listen",
            expected="ADDR:PORT, such as 127.0.0.1:50004 or [::]:50004",
            got=text[:80],
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _announce(serving: Serving, client_ca: str) -> None:
    settings = serving.settings
    if serving.grpc:
        say(f"gRPC       {serving.grpc}")
    if serving.rest:
        say(f"REST       {serving.rest}")
        say(f"JWK set    {serving.rest}/.well-known/jwks.json")
    say(f"data       {settings.data}  (pid {os.getpid()})")
    say(f"admin      {settings.admin_token}  (the token; changes need it)")
    if serving.pin:
        say(f"TLS        {settings.certificate}")
        say(f"pin        {serving.pin}")
    if client_ca:
        say(f"clients    certified by {client_ca}")
    for root in settings.development_roots:
        _warn(f"development root {root} is trusted: NO HARDWARE PROTECTION stands behind its evidence.")
    if settings.trust_sample_evidence:
        _warn("SAMPLE EVIDENCE IS BELIEVED: whoever reaches this service can claim to run anything.")
    say("serving")


def _warn(text: str) -> None:
    say(click.style("warning    ", fg="yellow", reset=True) + text)
