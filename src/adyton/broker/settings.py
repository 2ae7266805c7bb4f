"""What a broker is started with. Read once, in ``cli/``; handed to worker processes as JSON over a pipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import msgspec

from adyton.broker.door.rates import Rates
from adyton.config import Environment
from adyton.crypto import profile
from adyton.errors import ConfigError
from adyton.tee.sample.anybody import ANYBODY

_FINGERPRINT = re.compile(r"[0-9a-f]{64}\Z")
_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,200}(/[A-Za-z0-9._~/-]{0,200})?\Z")
_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Paths are absolute. ``certificate`` and ``private_key`` are PEM files, empty without TLS.

    ``names`` are further ones for the certificate that the broker makes itself.
    ``development_roots``: fingerprints (SHA-256 of the root key's SPKI, hex) of roots without hardware behind them.
    ``trust_sample_evidence``: believe evidence that anybody can write (CoCo's ``sample``); development only.
    ``collateral_cache``: a directory of fetched endorsements; empty for none. ``fetch_endorsements``: ask the
    vendors' services for what is not there; ``fetch_from``: ask these instead (``[KIND=]URL``).
    ``database``: the URL of a PostgreSQL database that several brokers share, without a password; empty for the file in
    ``data``. ``database_password_file``: where the password is, if it needs one.
    ``attester``: what this instance proves itself with (``snp``, ``devtee:DESCRIPTOR``). ``peer``: the URL of an instance
    that is asked for the root key, known by ``peer_pin``; ``accept_peers``: ADDR:PORT where peers may ask this one;
    ``accepted_peers``: identities besides its own that it takes for its own, ``allow_debug_peers`` also with debug.
    ``admin_audiences``: what tokens that people sign must name as ``aud``, one of them; none: ``adyton``, or nothing.
    ``backends_file`` names back ends for values and external plug-ins (``stores.backends.options``), empty for none.
    ``keep_broken_policies``: start although a tenant's policy no longer compiles; that tenant then gets nothing.
    ``public_url``: where others reach the broker, such as ``https://broker.example``; issued certificates say it.
    ``page``: serve the web page at ``/ui``; without, only the API that it uses.
    ``tenant_hosts`` maps a configured host name to its tenant; everything else goes by the URL's path.
    ``allow_rsa1_5``: serve guests of protocol 0.1, which know no other encryption. ``trusted_token_issuers``: TOML files
    that say whose tokens a tenant believes (``broker.issuers``). ``se_*``: host key documents, the image's header and
    the root's fingerprints for IBM Secure Execution (``broker.secure_execution``).
    ``admin_listen`` and ``metrics_listen`` are ``ADDR:PORT``, empty for none: then the API is on the broker's own port,
    and there are no metrics. ``client_ca``: PEM file; who administers (or, without ``admin_listen``, whoever connects)
    must show a certificate under it. ``metrics_tenants``: at most so many tenants have a label of their own.
    ``drain_seconds``: how long a broker that is to end says so before it does. ``otlp``: URL of a collector of traces.
    ``rate_limits`` and ``peer_rate_limits``: how often a tenant's, or one address's, requests are answered (``rates.py``).
    ``fips``: the profile of ``crypto.profile``; ``unvalidated_module``: although a module is not in its FIPS mode.
    Seconds and bytes throughout; ``max_in_flight`` and ``max_connections`` count per worker, the latter
    per listener as well.
    """

    data: str
    host: str = "127.0.0.1"
    port: int = 8080
    certificate: str = ""
    private_key: str = ""
    names: list[str] = []
    environment: str = Environment.PRODUCTION.value
    development_roots: list[str] = []
    endorsements: list[str] = []
    tenant_hosts: dict[str, str] = {}
    database: str = ""
    database_password_file: str = ""
    root_key_file: str = ""
    attester: str = ""
    peer: str = ""
    peer_pin: str = ""
    accept_peers: str = ""
    accepted_peers: list[str] = []
    allow_debug_peers: bool = False
    admin_token_file: str = ""
    admin_audiences: list[str] = []
    trust_sample_evidence: bool = False
    collateral_cache: str = ""
    fetch_endorsements: bool = False
    fetch_from: list[str] = []
    keep_broken_policies: bool = False
    backends_file: str = ""
    public_url: str = ""
    page: bool = True
    allow_rsa1_5: bool = False
    trusted_token_issuers: list[str] = []
    se_host_key_documents: list[str] = []
    se_image_header: str = ""
    se_roots: list[str] = []
    workers: int = 1
    session_seconds: int = 300
    token_seconds: int = 300
    max_body: int = 2 * 1000 * 1000
    max_in_flight: int = 256
    max_connections: int = 1024
    rate_limits: list[str] = []
    peer_rate_limits: list[str] = []
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    admin_listen: str = ""
    client_ca: str = ""
    metrics_listen: str = ""
    metrics_tenants: int = 0
    drain_seconds: float = 0.0
    log_format: str = "json"
    log_level: str = "info"
    otlp: str = ""
    fips: bool = False
    unvalidated_module: bool = False

    @property
    def directory(self) -> Path:
        """The data directory."""
        return Path(self.data)

    @property
    def root_key(self) -> Path:
        """The file that holds the root key."""
        return Path(self.root_key_file) if self.root_key_file else self.directory / "root.key"

    @property
    def admin_token(self) -> Path:
        """The file that holds the admin's bearer token."""
        return Path(self.admin_token_file) if self.admin_token_file else self.directory / "admin.token"

    @property
    def trusted_fingerprints(self) -> frozenset[str]:
        """Roots without hardware behind them whose evidence may count here, in hex; among them the one that is none."""
        return frozenset([*self.development_roots, *([ANYBODY.hex()] if self.trust_sample_evidence else [])])

    @property
    def tls(self) -> bool:
        """Whether the broker speaks TLS."""
        return bool(self.certificate)

    @property
    def connections(self) -> int:
        """As many as one worker may hold, at all its listeners but the collectors'."""
        return self.max_connections * (2 if self.admin_listen else 1)


_S = TypeVar("_S", bound=Settings)


def check(settings: _S) -> _S:
    """``settings`` itself, or ``ConfigError`` naming the one that is wrong. Contracts 3 is enforced here."""
    try:
        environment = Environment(settings.environment)
    except ValueError as error:
        raise _wrong("environment", [item.value for item in Environment], settings.environment) from error
    for fingerprint in settings.development_roots:
        if not _FINGERPRINT.match(fingerprint):
            raise _wrong("trust-dev-root", "64 hex digits: SHA-256 of the root key's SPKI", fingerprint[:80])
    if settings.development_roots and not environment.may_trust_development_roots:
        allowed = [item.value for item in Environment if item.may_trust_development_roots]
        raise ConfigError(
            f"a development root protects nothing from the host, and this is {environment.value}",
            code="development_root_refused",
            field="environment",
            expected=allowed,
            got=environment.value,
            spec="contracts 3",
            hint="add --environment development, or leave --trust-dev-root out",
        )
    if ANYBODY.hex() in settings.development_roots:
        raise ConfigError(
            "this is no root: it stands for evidence that anybody can write",
            code="development_root_refused",
            field="trust-dev-root",
            got=ANYBODY.hex(),
            spec="contracts 3",
            hint="--trust-sample-evidence says what it does",
        )
    if settings.trust_sample_evidence and not environment.may_trust_development_roots:
        allowed = [item.value for item in Environment if item.may_trust_development_roots]
        raise ConfigError(
            f"sample evidence can be written by anybody, and this is {environment.value}",
            code="sample_evidence_refused",
            field="environment",
            expected=allowed,
            got=environment.value,
            spec="contracts 3",
            hint="leave --trust-sample-evidence out",
        )
    if (settings.peer or settings.accept_peers) and not settings.attester:
        raise _wrong("attester", "snp, or devtee:DESCRIPTOR: peers prove to each other what they are", "none")
    if settings.allow_debug_peers and not environment.may_trust_development_roots:
        allowed = [item.value for item in Environment if item.may_trust_development_roots]
        raise _wrong("environment", allowed, environment.value)
    for audience in settings.admin_audiences:
        if not 0 < len(audience) <= 255 or not audience.isprintable():
            raise _wrong("require-admin-audience", "what callers call this broker, such as its URL", audience[:80])
    if (settings.fetch_endorsements or settings.fetch_from) and not settings.collateral_cache:
        raise _wrong("collateral-cache", "a directory, where endorsements are fetched", "none")
    if bool(settings.se_host_key_documents) != bool(settings.se_image_header):
        raise _wrong("se-image-header", "host key documents and the header of one image", "one of them")
    for fingerprint in settings.se_roots:
        if not _FINGERPRINT.match(fingerprint):
            raise _wrong("se-root", "64 hex digits: SHA-256 of the root key's SPKI", fingerprint[:80])
    if settings.database_password_file and not settings.database:
        raise _wrong("database", "postgresql://…, which the password is for", "none")
    if not 1 <= settings.workers <= 256:
        raise _wrong("workers", "1 to 256", settings.workers)
    if not 0 <= settings.port < 65536:
        raise _wrong("listen", "a port from 0 to 65535", settings.port)
    if settings.client_ca and not settings.tls:
        raise _wrong("client-ca", "TLS, which client certificates are a part of", "plain HTTP")
    if settings.log_format not in {"json", "text"}:
        raise _wrong("log-format", ["json", "text"], settings.log_format)
    if settings.log_level not in {"debug", "info", "warning", "error"}:
        raise _wrong("log-level", ["debug", "info", "warning", "error"], settings.log_level)
    if not 0 <= settings.drain_seconds <= 3600:
        raise _wrong("drain-seconds", "0 to 3600 seconds", settings.drain_seconds)
    if not 0 <= settings.metrics_tenants <= 1000:
        raise _wrong("metrics-tenants", "0 to 1000", settings.metrics_tenants)
    for name in ("max_body", "max_in_flight", "max_connections", "head_seconds", "body_seconds", "idle_seconds"):
        if getattr(settings, name) <= 0:
            raise _wrong(name.replace("_", "-"), "more than 0", getattr(settings, name))
    for field, text in (("admin-listen", settings.admin_listen), ("metrics", settings.metrics_listen)):
        if text:
            address(field, text)
    profile.of(fips=settings.fips).check_rsa1_5(wanted=settings.allow_rsa1_5)
    if settings.unvalidated_module and not settings.fips:
        raise _wrong("unvalidated-module-i-accept", "with --fips, whose demand it waives", "without")
    if settings.public_url and not _URL.match(settings.public_url):
        raise _wrong("public-url", "https://HOST[:PORT][/PATH], or http://…", settings.public_url[:200])
    if bool(settings.certificate) != bool(settings.private_key):
        raise _wrong("tls", "a certificate and its private key", "one of them")
    Rates(settings.rate_limits, settings.peer_rate_limits)
    for name in ("session_seconds", "token_seconds"):
        if not 10 <= getattr(settings, name) <= 86400:
            raise _wrong(name, "10 to 86400 seconds", getattr(settings, name))
    for host, tenant in settings.tenant_hosts.items():
        if not _TENANT.match(tenant) or not host.isascii():
            raise _wrong("tenant-host", "HOST=TENANT", f"{host}={tenant}")
    return settings


LIVE = frozenset(
    {
        "certificate", "private_key", "client_ca", "endorsements", "tenant_hosts", "session_seconds", "token_seconds",
        "max_body", "max_in_flight", "max_connections", "head_seconds", "body_seconds", "idle_seconds", "drain_seconds",
        "log_level", "rate_limits", "peer_rate_limits",
    }
)  # fmt: skip
"""Settings that change while a broker runs; everything else needs another start."""


def merged(old: _S, new: _S) -> tuple[_S, list[str]]:
    """``old`` with what of ``new`` can change live, and the names of what differs and cannot."""
    differ = [name for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name)]
    stuck = [name for name in differ if name not in LIVE]
    if old.tls != new.tls:
        stuck.append("tls")
        differ = [name for name in differ if name not in {"certificate", "private_key", "client_ca"}]
    live = {name: getattr(new, name) for name in differ if name in LIVE}
    return msgspec.structs.replace(old, **live), stuck


def address(field: str, text: str) -> tuple[str, int]:
    """``ADDR:PORT`` in its two parts; ``ConfigError``."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            "not an address to listen on",
            code="setting_invalid",
            field=field,
            expected="ADDR:PORT, such as 127.0.0.1:8080 or [::]:8443",
            got=text[:80],
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _wrong(field: str, expected: object, got: object) -> ConfigError:
    return ConfigError("a setting cannot be used", code="setting_invalid", field=field, expected=expected, got=got)
