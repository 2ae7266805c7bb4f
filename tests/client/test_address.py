"""Addresses: what may carry a secret in clear, and what is no address."""

from __future__ import annotations

import pytest

from adyton.client.address import BrokerAddress
from adyton.errors import ConfigError


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost", "http://127.8.9.10/base/"])
def test_plain_http_on_loopback(url: str) -> None:
    assert BrokerAddress(url).url == url


@pytest.mark.parametrize(
    "url", ["http://broker.example", "http://10.0.0.1", "http://127.0.0.1.evil.example", "http://localhost.example"]
)
def test_plain_http_elsewhere(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        BrokerAddress(url)
    assert refused.value.code == "broker_http"
    assert BrokerAddress(url, insecure_http=True).url == url


@pytest.mark.parametrize(
    "url",
    ["", "broker", "ftp://x", "https://", "https://x:99999", "https://x:0", "https://u:p@x", "https://x/?a", "https://x#a",
     "https://x/ y", "https://x\r\nHost: y", "https://é"],
)  # fmt: skip
def test_no_address(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        BrokerAddress(url)
    assert "p@" not in str(refused.value.as_dict())


@pytest.mark.parametrize("pin", ["", "sha256:", "sha256:" + "A" * 64, "a" * 64, "sha256:" + "a" * 63])
def test_no_pin(pin: str) -> None:
    with pytest.raises(ConfigError):
        BrokerAddress("https://x", pin=pin)


@pytest.mark.parametrize("tenant", ["", "A", "a/b", "..", "a" * 64, "-a"])
def test_no_tenant(tenant: str) -> None:
    with pytest.raises(ConfigError):
        BrokerAddress("https://x", tenant=tenant)


def test_bases() -> None:
    assert BrokerAddress("https://x").base == ""
    assert BrokerAddress("https://x/").base == ""
    assert BrokerAddress("https://x/kbs-proxy/", tenant="acme").base == "/kbs-proxy/t/acme"
