"""``adyton broker serve``: the key broker, on an empty directory without any configuration."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton.cli.administering import Noun, canonical
from adyton.cli.attest import attest
from adyton.cli.backups import backup, restore
from adyton.cli.broker_backends import backends
from adyton.cli.broker_status import reload, status
from adyton.cli.config_file import Configured, again
from adyton.cli.custody_options import openers, opening_options
from adyton.cli.doctor import doctor
from adyton.cli.explained import explain
from adyton.cli.known import forget, known, pin
from adyton.cli.migrate import migrate
from adyton.cli.output import say
from adyton.cli.places import places
from adyton.cli.revoke import revoke
from adyton.cli.root_key import root_key
from adyton.cli.serving_options import LIMITS, WATCHING, absolute, evidence, evidence_options, serving, serving_options
from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.broker.settings import Settings


@click.group(cls=Noun)
def broker() -> None:
    """Run the key broker: evidence in, keys out, and a record of every decision."""


_SECTIONS = {
    "Where": ("config", "data", "listen", "workers", "database", "database_password_file"),
    "TLS and listeners": (
        *("tls", "certificate", "private_key", "names", "client_ca", "admin_listen", "public_url", "page"),
        *("tenant_host", "admin_audiences"),
    ),
    "What evidence is believed": (
        *("environment", "endorsements", "collateral_cache", "fetch_endorsements", "fetch_from", "trust_dev_root"),
        *("trust_sample_evidence", "trusted_token_issuer", "allow_rsa1_5", "keep_broken_policies"),
        *("se_host_key_document", "se_image_header", "se_root"),
    ),
    "The root key and other instances": (
        *("root_key_file", "passphrase_file", "passphrase_fd", "tcti", "backends", "attester", "peer", "peer_pin"),
        *("accept_peers", "accepted_peers", "allow_debug_peers"),
    ),
    "Watching": (*WATCHING, "metrics_tenants"),
    "Limits": ("session_seconds", "token_seconds", *LIMITS),
}


@broker.command(cls=Configured, sections=_SECTIONS)
@serving_options
@evidence_options
@click.option("--listen", default="127.0.0.1:8080", show_default=True, metavar="ADDR:PORT", help="Port 0: a free one.")
@click.option(
    "--public-url", default="", metavar="URL", help="Where others reach it; certificates say where the CRL is."
)
@click.option("--page/--no-page", default=True, show_default=True, help="The web page at /ui.")
@click.option(
    "--trusted-token-issuer",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Believe tokens of another attestation service: a TOML file that says whose, for which tenant.",
)
@click.option(
    "--allow-rsa1-5",
    is_flag=True,
    help="Serve guests of protocol 0.1, which know no encryption but RSA1_5: a padding that leaks where a guest errs.",
)
@click.option("--fips", is_flag=True, help="Only algorithms that FIPS approves, on modules in their FIPS mode.")
@click.option(
    "--unvalidated-module-i-accept",
    is_flag=True,
    help="With --fips: restrict the algorithms, although a cryptographic module is not in its FIPS mode.",
)
@click.option("--workers", type=int, default=1, show_default=True, help="Worker processes.")
@click.option("--tenant-host", multiple=True, metavar="HOST=TENANT", help="A host name that is a tenant's.")
@click.option(
    "--database",
    envvar="ADYTON_DATABASE",
    metavar="URL",
    help="A PostgreSQL database that several brokers share, postgresql://USER@HOST/NAME, instead of a file in --data.",
)
@click.option(
    "--database-password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its password: a file that only you read. Never in the URL.",
)
@click.option("--root-key-file", type=click.Path(dir_okay=False, path_type=Path), help="32 bytes that seal the data.")
@opening_options
@click.option("--attester", default="", metavar="KIND", help="Prove this instance to peers: snp, or devtee:DESCRIPTOR.")
@click.option("--peer", default="", metavar="URL", help="Ask this instance for the root key, if nothing here has it.")
@click.option("--peer-pin", default="", metavar="PIN", help="sha256:<hex> of the SPKI of that instance's certificate.")
@click.option(
    "--accept-peers",
    default="",
    metavar="ADDR:PORT",
    help="Give the root key to instances that prove the same identity.",
)
@click.option(
    "--accept-peer",
    "accepted_peers",
    multiple=True,
    metavar="MEASUREMENT/sha256:DOCUMENT",
    help="Take this identity for one's own too, such as the next version's. Repeatable.",
)
@click.option("--allow-debug-peers", is_flag=True, help="Also with debug. Only in development, ci and test.")
@click.option(
    "--keep-broken-policies",
    is_flag=True,
    help="Start although a stored policy no longer compiles; its tenant gets nothing until it is replaced.",
)
@click.option(
    "--backends",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file that names back ends for values (HSM, Vault, AWS, KMIP) and external plug-ins.",
)
@click.option("--session-seconds", type=int, default=300, show_default=True, help="How long a session lasts.")
@click.option("--admin-listen", default="", metavar="ADDR:PORT", help="A port of its own for the API and the page.")
@click.option(
    "--client-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM authorities: who administers (without --admin-listen: whoever connects) shows a certificate under them.",
)
@click.option(
    "--require-admin-audience",
    "admin_audiences",
    multiple=True,
    metavar="URL",
    help="Tokens that people sign (--admin-key) must name this as aud, or another one so given: the address that they call.",
)
@click.option("--metrics-tenants", type=int, default=0, metavar="N", help="Count by tenant too, at most N by name.")
@click.pass_context
def serve(ctx: click.Context, /, **options: Any) -> None:
    """Serve until interrupted. On an empty directory it makes what it needs and says where that is.

    SIGHUP reads settings, endorsements and certificates again; SIGUSR2 relieves the workers (adyton broker reload).
    """
    from adyton.broker.custodians.custody import RootKeyFinder
    from adyton.broker.running import logs, server
    from adyton.crypto.profile import of

    logs.configure(options["log_format"], options["log_level"])
    settings = _settings(**options)
    profile = of(fips=settings.fips)
    finder = RootKeyFinder(settings, replace(openers(options), profile=profile))
    server.serve(settings, _announce, finder, again=lambda: _settings(**again(ctx)))


def _settings(data: Path | None, listen: str, tls: bool | None, **options: Any) -> Settings:
    """The options as settings, with what the data directory must hold made."""
    from adyton.broker.running import server
    from adyton.broker.settings import Settings, address
    from adyton.protocol.loopback import is_loopback

    host, port = address("listen", listen)
    certificate = options["certificate"]
    if tls is False and certificate:
        raise ConfigError("--no-tls and --certificate contradict each other", code="setting_invalid", field="tls")
    if options["database"] and "PGPASSWORD" in os.environ:
        raise ConfigError(
            "a password stands in the environment, where every process of this user can read it",
            code="database_password_shown",
            field="PGPASSWORD",
            hint="--database-password-file FILE (mode 0600), ~/.pgpass or a service file",
        )
    hosts = [pair.partition("=") for pair in options["tenant_host"]]
    settings = Settings(
        data=str((data or places().broker).absolute()),
        host=host,
        port=port,
        **serving(options),
        **evidence(options),
        tenant_hosts={name.lower(): tenant for name, _, tenant in hosts},
        public_url=options["public_url"],
        admin_audiences=[canonical(one) for one in options["admin_audiences"]],
        page=options["page"],
        database=options["database"] or "",
        database_password_file=absolute(options["database_password_file"]),
        root_key_file=absolute(options["root_key_file"]),
        attester=options["attester"],
        peer=options["peer"],
        peer_pin=options["peer_pin"],
        accept_peers=options["accept_peers"],
        accepted_peers=list(options["accepted_peers"]),
        allow_debug_peers=options["allow_debug_peers"],
        keep_broken_policies=options["keep_broken_policies"],
        backends_file=absolute(options["backends"]),
        allow_rsa1_5=options["allow_rsa1_5"],
        fips=options["fips"],
        unvalidated_module=options["unvalidated_module_i_accept"],
        trusted_token_issuers=[absolute(path) for path in options["trusted_token_issuer"]],
        workers=options["workers"],
        session_seconds=options["session_seconds"],
        admin_listen=options["admin_listen"],
        metrics_tenants=options["metrics_tenants"],
    )
    with_tls = bool(certificate) or (tls if tls is not None else not is_loopback(host))
    return server.prepare(settings, tls=with_tls)


def _announce(listening: object) -> None:
    from adyton.broker.running.server import Listening
    from adyton.protocol.loopback import is_loopback

    assert isinstance(listening, Listening)  # noqa: S101 -- what serve hands over
    settings = listening.settings
    say(
        f"broker     {listening.url}  (environment {settings.environment}, {settings.workers} worker(s), pid {os.getpid()})"
    )
    say(f"data       {settings.data}")
    if settings.database:
        say(f"store      {settings.database}  (shared: other brokers may use it too)")
    say(f"admin      {settings.admin_token}  (the token; keep it)")
    if listening.pin:
        say(f"TLS        {settings.certificate}")
        say(f"pin        {listening.pin}")
    if settings.page:
        say(f"page       {listening.admin_url}/ui")
    if listening.admin_url != listening.url:
        say(f"admin at   {listening.admin_url}" + ("  (client certificates)" if settings.client_ca else ""))
    if listening.metrics_url:
        say(f"metrics    {listening.metrics_url}/metrics")
    say(f"JWK set    {listening.url}/.well-known/jwks.json")
    if listening.peers_url:
        say(f"peers      {listening.peers_url}")
    if listening.root_key_by.startswith("peer "):
        say(f"root key   from {listening.root_key_by}, in memory only")
    elif listening.root_key_by != "plain":
        say(f"root key   from slot {listening.root_key_by!r}")
    elif not settings.root_key_file:
        _warn(f"the root key lies in a plain file, {settings.root_key}: whoever reads it reads every secret here.")
    if not settings.tls and not is_loopback(settings.host):
        _warn("no TLS on an address that others reach: the admin token and what owners send can be read on the way.")
    if settings.fips:
        from adyton.broker.running import fips

        found = fips.state(fips=True)
        say(f"FIPS       {found.text}")
        if not found.validated:
            _warn("the algorithms are restricted to what FIPS approves; what computes them is NOT a validated module.")
    for root in settings.development_roots:
        _warn(f"development root {root} is trusted: NO HARDWARE PROTECTION stands behind its evidence.")
    if settings.trust_sample_evidence:
        _warn(
            "SAMPLE EVIDENCE IS BELIEVED: whoever reaches this broker can claim to run anything. It protects NOTHING."
        )
    if not settings.endorsements and not settings.collateral_cache:
        _warn("no --endorsements: without the endorser's CRL every piece of evidence is refused.")


def _warn(text: str) -> None:
    say(click.style("warning    ", fg="yellow", reset=True) + text)


broker.add_command(attest)
broker.add_command(backends)
broker.add_command(explain)
broker.add_command(forget)
broker.add_command(known)
broker.add_command(pin)
broker.add_command(reload)
broker.add_command(revoke)
broker.add_command(status)
broker.add_command(root_key)
broker.add_command(doctor)
broker.add_command(backup)
broker.add_command(restore)
broker.add_command(migrate)
