"""How often somebody may ask: exact over time, bounded in memory, cheap, and told with Retry-After."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.broker import rig
from tests.waiting import until

from adyton.broker.door import rates
from adyton.broker.door.paths import Route
from adyton.broker.door.rates import Rate, Rates
from adyton.client.people import People
from adyton.errors import AdytonError, ConfigError
from adyton.protocol import rcar

ATTEST = Route("default", "kbs", ("attest",), "")


def where(*parts: str, tenant: str = "default", area: str = "kbs") -> Route:
    return Route(tenant, area, parts, "")


@pytest.mark.parametrize(
    "text",
    ["", "attest", "attest=", "attest=0", "attest=-1", "attest=1:0", "x=1", "attest=1e9", "attest=1:2:3", "attest=1 "],
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigError):
        Rate.parse(text)


def test_nothing_is_limited_by_default() -> None:
    assert Rates.of([], []) is None


@given(st.integers(1, 50), st.integers(1, 20), st.lists(st.floats(0, 0.5, allow_nan=False), min_size=1, max_size=200))
def test_never_more_than_burst_and_rate(per_second: int, burst: int, gaps: list[float]) -> None:
    """In any window of time: at most the burst, and the rate times its length."""
    limits = Rates([f"attest={per_second}:{burst}"], [])
    now, allowed = 0.0, []
    for gap in gaps:
        now += gap
        if not limits.wait(ATTEST, "", now):
            allowed.append(now)
    for first in range(len(allowed)):
        for last in range(first, len(allowed)):
            assert last - first + 1 <= burst + per_second * (allowed[last] - allowed[first]) + 1e-3


def test_what_anybody_may_fetch_is_limited_by_default() -> None:
    list_of_revoked = where(".well-known", "ca", "1.crl", area="top")
    for operators in (None, Rates(["auth=1"], ["resource=1:1"])):
        fetches = rates.Fetches()
        assert [fetches.wait(operators, list_of_revoked, "192.0.2.1", 1.0) for _ in range(501)] == [0] * 500 + [1]
        assert not fetches.wait(operators, list_of_revoked, "192.0.2.2", 1.0)
        assert not fetches.wait(operators, list_of_revoked, "192.0.2.1", 2.0)
    set_wider = Rates([], ["published=1000:1000"])
    assert not any(rates.Fetches().wait(set_wider, list_of_revoked, "192.0.2.1", 1.0) for _ in range(1000))
    assert not any(set_wider.wait(where("auth"), "192.0.2.1", 1.0) for _ in range(2000))


def test_who_waits_as_told_is_let_through() -> None:
    limits = Rates([], ["auth=0.5:1"])
    assert limits.wait(where("auth"), "192.0.2.1", 10.0) == 0
    told = limits.wait(where("auth"), "192.0.2.1", 10.0)
    assert told == 2
    assert limits.wait(where("auth"), "192.0.2.1", 10.0 + told) == 0


def test_each_by_itself() -> None:
    limits = Rates(["attest=1:1"], ["resource=1:1", "admin=1:1"])
    assert [limits.wait(where("attest", tenant=tenant), "a", 1.0) for tenant in ("a", "b", "a")] == [0, 0, 1]
    for peer, expected in (("192.0.2.1", 0), ("192.0.2.2", 0), ("192.0.2.1", 1)):
        assert limits.wait(where("resource", "a", "b", "c"), peer, 1.0) == expected
    assert limits.wait(where("key", "sign", "a", "b", "c"), "192.0.2.1", 1.0) == 1  # a key's use counts as a resource
    assert limits.wait(where("auth"), "192.0.2.1", 1.0) == 0
    assert limits.wait(where("resources", area="api"), "192.0.2.1", 1.0) == 0
    assert limits.wait(where("attestation-policy"), "192.0.2.1", 1.0) == 1
    for peer in ("2001:db8::1", "2001:db8::2", "2001:db8::3%eth0"):
        assert bool(limits.wait(where("resource"), peer, 1.0)) == (peer != "2001:db8::1")
    assert limits.wait(where("resource"), "2001:db8:0:1::1", 1.0) == 0
    for peer, expected in (("::ffff:192.0.2.7", 0), ("::ffff:192.0.2.8", 0), ("::ffff:192.0.2.7", 1), ("192.0.2.7", 1)):
        assert limits.wait(where("resource"), peer, 1.0) == expected


def test_invented_addresses_gain_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_BUCKETS", 100)
    limits = Rates([], ["auth=1:1"])
    let = sum(not limits.wait(where("auth"), f"10.0.{number // 256}.{number % 256}", 5.0) for number in range(5000))
    assert let == 101  # those that have a bucket, and the one that the others share
    assert len(limits.peers["auth"].empty_at) <= 101
    assert limits.wait(where("auth"), "10.9.9.9", 8.0) == 0  # when the others are quiet again, there is room


@pytest.mark.slow
def test_what_it_costs() -> None:
    limits = Rates(["attest=1000000:1000000"], ["attest=1000000:1000000"])
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(20_000):
            limits.wait(ATTEST, "192.0.2.1", began)
        best = min(best, (time.perf_counter() - began) / 20_000)
    assert best < 2e-6, f"{best * 1e6:.2f} us"


def test_a_broker_says_when_to_ask_again(tmp_path: Path) -> None:
    running = rig.started(tmp_path / "data", None, "--peer-rate-limit", "auth=0.02:2")
    try:
        with rig.raw(running) as client:
            answers = [client.ask("POST", "/kbs/v0/auth", rcar.request_body("snp")) for _ in range(3)]
            assert [status for status, _, _ in answers] == [200, 200, 429]
            assert 1 <= int(answers[2][2]["Retry-After"]) <= 50
            assert b"kbs/errors/" in answers[2][1]
            assert client.ask("GET", "/healthz")[0] == 200
    finally:
        assert running.stop() == 0


@pytest.mark.parametrize("texts", [["attest=1", "attest=2"], ["x=1"], ["attest=0"]])
def test_a_tenants_own_rates_are_checked(texts: list[str]) -> None:
    with pytest.raises(ConfigError):
        rates.parse_all(texts)


def test_a_tenants_own_rate_takes_the_place_of_the_brokers() -> None:
    own = {"strict": rates.parse_all(["attest=1:1"]), "wide": rates.parse_all(["attest=100:100"])}
    limits = Rates(["attest=10:3"], [], lambda tenant, _: own.get(tenant, {}))

    def through(tenant: str, name: str = "attest") -> int:
        return sum(not limits.wait(where(name, tenant=tenant), "", 5.0) for _ in range(200))

    assert (through("strict"), through("wide"), through("other")) == (1, 100, 3)
    assert through("strict", "auth") == 200  # a class that neither names
    own["strict"] = rates.parse_all(["attest=0.5:2"])
    assert limits.wait(where("attest", tenant="strict"), "", 5.5) == 0  # what was taken before is still taken
    assert through("strict") == 0
    del own["strict"]
    assert through("strict") == 3


def test_a_tenants_rate_set_while_it_runs(tmp_path: Path) -> None:
    """In force in a worker within a second, also for those who only ever ask for a challenge."""
    running = rig.started(tmp_path / "data", None)

    def refused(base: str) -> int:
        with rig.raw(running, base) as client:
            body = rcar.request_body("snp")
            return [client.ask("POST", "/kbs/v0/auth", body)[0] for _ in range(6)].count(429)

    try:
        with running.admin("limited") as admin:
            people = People(admin)
            for wrong in (("attest=0",), ("auth=1", "auth=2"), ("nothing",)):
                with pytest.raises(AdytonError) as caught:
                    people.set_rates(wrong)
                assert caught.value.code == "rate_invalid"
            assert people.set_rates(("auth=0.001:2",)).rates == ["auth=0.001:2"]
            until(lambda: refused("/t/limited") >= 4)
            assert refused("/t/other") == 0
            assert people.set_rates(()).rates == []
            until(lambda: refused("/t/limited") == 0)
    finally:
        assert running.stop() == 0
