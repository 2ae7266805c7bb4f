"""Where a broker is and by what it is known: a URL, and the digest of its public key or a CA's certificate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from adyton.errors import ConfigError
from adyton.protocol.loopback import is_loopback

_PIN = re.compile(r"sha256:[0-9a-f]{64}\Z")
_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """``pin`` is ``sha256:<hex>`` of the SPKI of the broker's certificate; with it nothing else about it matters.

    Without a pin the certificate must lead to ``ca_pem``, or to the machine's CAs if that is ``None`` too. Plain http
    is for loopback; elsewhere ``insecure_http`` must say that whoever listens may answer in the broker's place (what
    is released is encrypted to the TEE's key all the same; what an owner sends is not).

    ``others`` are further addresses of the same broker, its replicas, asked in turn when one does not answer. They
    differ in host and port only; pin and CA are theirs too.
    """

    url: str
    pin: str | None = None
    ca_pem: str | None = None
    tenant: str = "default"
    insecure_http: bool = False
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for url in self.urls:
            self._check(url)
            if urlsplit(url).path.rstrip("/") != urlsplit(self.url).path.rstrip("/"):
                raise _wrong("url", f"the same path as {self.url}", url)
        if self.pin is not None and not _PIN.match(self.pin):
            raise _wrong("pin", "sha256:<64 lower-case hex digits>", self.pin)
        if not _TENANT.match(self.tenant):
            raise _wrong("tenant", "1 to 63 of a-z, 0-9 and inner hyphens", self.tenant)

    def _check(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise _wrong("url", "https://host[:port]", url) from error
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or port == 0:
            raise _wrong("url", "https://host[:port]", url)
        if parts.username is not None or not url.isascii() or not url.isprintable() or " " in url:
            raise _wrong("url", "an address without user name, spaces or control characters", parts.hostname)
        try:
            parts.hostname.encode("idna")  # as every resolver will, with errors of its own
        except UnicodeError as error:
            raise _wrong("url", "a host's name or address", parts.hostname) from error
        if parts.scheme == "http" and not self.insecure_http and not is_loopback(parts.hostname):
            raise ConfigError(
                "plain http to a broker on another machine",
                code="broker_http",
                field="url",
                expected="https, or http on loopback",
                got=url,
                hint="use the broker's https address and its pin (adyton broker serve prints both)",
            )

    @property
    def urls(self) -> tuple[str, ...]:
        """The address and the others."""
        return (self.url, *self.others)

    @property
    def base(self) -> str:
        """Path prefix of everything at this broker for this tenant, without a slash at its end."""
        path = urlsplit(self.url).path.rstrip("/")
        return path if self.tenant == "default" else f"{path}/t/{self.tenant}"


def _wrong(field: str, expected: str, got: str) -> ConfigError:
    return ConfigError(
        "the broker's address cannot be used", code="broker_address", field=field, expected=expected, got=got[:200]
    )
