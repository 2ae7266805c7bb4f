"""What a service is started with: a broker's settings, and what only a service has."""

from __future__ import annotations

from adyton.broker import settings as broker
from adyton.broker.door.rates import parse_all
from adyton.broker.settings import Settings
from adyton.errors import ConfigError

LIMITED = frozenset({"auth", "attest", "admin"})


class ServiceSettings(Settings, frozen=True, forbid_unknown_fields=True):
    """``rest`` and ``grpc`` are ``ADDR:PORT``, empty for none; ``evaluates`` is false for the reference values alone.

    ``tenant``: whose policies and reference values; ``issuer``: of its tokens. ``peers_may_change``: a client that
    ``client_ca`` certifies needs no token. ``accept_unbound``: appraise evidence that binds no challenge.
    ``providers``: a document as ``adyton apply`` takes it, which names the tenant's providers of reference values;
    empty: those of the store stay.
    """

    rest: str = ""
    grpc: str = ""
    evaluates: bool = True
    tenant: str = "default"
    issuer: str = "Adyton"
    peers_may_change: bool = False
    accept_unbound: bool = False
    providers: str = ""

    @property
    def connections(self) -> int:
        """As many as it may hold, at both ports."""
        return self.max_connections * 2


def check(settings: ServiceSettings) -> ServiceSettings:
    """``settings`` themselves, or ``ConfigError`` naming the one that is wrong."""
    broker.check(settings)
    if not settings.rest and not settings.grpc:
        raise ConfigError("no port to serve on", code="setting_invalid", field="grpc", hint="--grpc ADDR:PORT")
    if settings.peers_may_change and not settings.client_ca:
        raise ConfigError("only certified peers can be told from others", code="setting_invalid", field="changes-by")
    unused = sorted((parse_all(settings.rate_limits) | parse_all(settings.peer_rate_limits)).keys() - LIMITED)
    if unused:
        raise ConfigError(
            "a service has no such calls to limit",
            code="setting_invalid",
            field="rate-limit",
            expected=sorted(LIMITED),
            got=unused,
        )
    for name in ("rest", "grpc"):
        if text := getattr(settings, name):
            broker.address(name, text)
    return settings


def fitting(old: ServiceSettings, new: ServiceSettings) -> ServiceSettings:
    """``new``, to go on with. ``ConfigError`` where it differs in whether clients must be certified.

    The port of gRPC cannot learn that while it is open, and going on without would let in who is to stay outside.
    """
    check(new)
    if bool(old.client_ca) != bool(new.client_ca):
        raise ConfigError(
            "whether clients must be certified changes only when the service starts anew",
            code="setting_invalid",
            field="client-ca",
        )
    return new
