"""Names that only look like this machine, then those that are."""

from __future__ import annotations

import pytest

from adyton.protocol.loopback import is_loopback


@pytest.mark.parametrize(
    "host",
    ["", "localhost.example", "127.0.0.1.example", "127.1", "2130706433", "0.0.0.0", "::", "[::1]", "::ffff:1.2.3.4"],
)
def test_what_is_not_this_machine_for_sure(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.255.255.254", "::1"])
def test_what_is(host: str) -> None:
    assert is_loopback(host)
