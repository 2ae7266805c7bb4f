"""Options that everything which serves has: the broker, and its verifier and reference values alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])
ENVIRONMENTS = ["development", "ci", "test", "pre-production", "production"]
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_PLACE = (
    click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Data directory, made if absent."),
    click.option("--tls/--no-tls", default=None, help="TLS [default: on, except on loopback]."),
    click.option("--certificate", type=_FILE, help="PEM certificate chain."),
    click.option("--private-key", type=_FILE, help="Its PEM private key."),
    click.option(
        "--name", "names", multiple=True, help="A further name or address in the certificate it makes itself."
    ),
)
_EVIDENCE = (
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
    click.option(
        "--fetch-endorsements",
        is_flag=True,
        help="Ask the vendors' services for endorsements that are in neither; slow for who attests first.",
    ),
    click.option(
        "--fetch-from",
        multiple=True,
        metavar="[KIND=]URL",
        help="Ask this source instead (as --from of adyton collateral). Repeatable.",
    ),
    click.option(
        "--se-host-key-document",
        multiple=True,
        type=_FILE,
        help="A machine that IBM Secure Execution guests may run on. Repeatable.",
    ),
    click.option("--se-image-header", type=_FILE, help="The Secure Execution image, or its header, that may attest."),
    click.option("--se-root", multiple=True, metavar="FINGERPRINT", help="The root of IBM's host key documents."),
    click.option("--token-seconds", type=int, default=300, show_default=True, help="How long a token is valid."),
)
_WATCHING = (
    click.option("--metrics", default="", metavar="ADDR:PORT", help="Prometheus metrics, on a port of their own."),
    click.option("--otlp", default="", metavar="URL", help="Send traces there (OTLP over HTTP); needs adyton[otel]."),
    click.option("--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True),
    click.option(
        "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
    ),
)
_LIMITS = (
    click.option(
        "--rate-limit",
        "rate_limits",
        multiple=True,
        metavar="CLASS=RATE[:BURST]",
        help="At most so many requests a second of auth, attest, resource, admin or published for each tenant, in each worker.",
    ),
    click.option(
        "--peer-rate-limit",
        "peer_rate_limits",
        multiple=True,
        metavar="CLASS=RATE[:BURST]",
        help="The same for each address that asks. By default only published=50:500 is limited: lists of revoked.",
    ),
    click.option(
        "--drain-seconds", type=float, default=0.0, show_default=True, help="Say not ready so long before ending."
    ),
    click.option("--max-body", type=int, default=2_000_000, show_default=True, help="Bytes of one request."),
    click.option("--max-in-flight", type=int, default=256, show_default=True, help="Requests at once, per worker."),
    click.option(
        "--max-connections",
        type=int,
        default=1024,
        show_default=True,
        help="Connections per worker and port, unfinished TLS included.",
    ),
    click.option("--head-seconds", type=float, default=10.0, show_default=True, help="For a request's head to come."),
    click.option("--body-seconds", type=float, default=30.0, show_default=True, help="For its body to come."),
    click.option("--idle-seconds", type=float, default=75.0, show_default=True, help="For a connection to do nothing."),
)

WATCHING = ("metrics", "otlp", "log_format", "log_level")
"""In this order in the help, with ``LIMITS``."""
LIMITS = (
    *("rate_limits", "peer_rate_limits", "max_body", "max_in_flight", "max_connections"),
    *("head_seconds", "body_seconds", "idle_seconds", "drain_seconds"),
)


def _adding(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    def add(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def serving_options(command: _F) -> _F:
    """Where it is and how it is known, what is watched, and what its clients may cost."""
    return _adding(*_PLACE, *_WATCHING, *_LIMITS)(command)


def evidence_options(command: _F) -> _F:
    """What evidence is believed, and what is said of it."""
    return _adding(*_EVIDENCE)(command)


def serving(options: dict[str, Any]) -> dict[str, Any]:
    """The members of settings that ``serving_options`` are, but for the data directory and TLS."""
    return {
        "certificate": absolute(options["certificate"]),
        "private_key": absolute(options["private_key"]),
        "names": list(options["names"]),
        "client_ca": absolute(options["client_ca"]),
        "metrics_listen": options["metrics"],
        "rate_limits": list(options["rate_limits"]),
        "peer_rate_limits": list(options["peer_rate_limits"]),
        **{name: options[name] for name in (*WATCHING, *LIMITS) if name not in {"metrics", *_LISTS}},
    }


_LISTS = frozenset({"rate_limits", "peer_rate_limits"})


def evidence(options: dict[str, Any]) -> dict[str, Any]:
    """The members of settings that ``evidence_options`` are."""
    return {
        "environment": options["environment"],
        "development_roots": [_hex(root) for root in options["trust_dev_root"]],
        "endorsements": [absolute(path) for path in options["endorsements"]],
        "trust_sample_evidence": options["trust_sample_evidence"],
        "collateral_cache": absolute(options["collateral_cache"]),
        "fetch_endorsements": options["fetch_endorsements"],
        "fetch_from": list(options["fetch_from"]),
        "se_host_key_documents": [absolute(path) for path in options["se_host_key_document"]],
        "se_image_header": absolute(options["se_image_header"]),
        "se_roots": [_hex(root) for root in options["se_root"]],
        "token_seconds": options["token_seconds"],
    }


def absolute(path: Path | None) -> str:
    """The absolute path, or an empty text."""
    return str(path.absolute()) if path else ""


def _hex(fingerprint: str) -> str:
    return fingerprint.lower().removeprefix("sha256:")
