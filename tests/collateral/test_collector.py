"""Fresh from the cache, refreshed within a budget, never past its validity, never older than what was seen."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from tests.collateral.conftest import NOW, Collect
from tests.collateral.endorser import Answer, Clock, Endorser, play_amd, running, vcek_path
from tests.collateral.test_items import vcek_of

from adyton.collateral.cache import Cache
from adyton.collateral.collector import Collector, fresh_until
from adyton.collateral.wanted import AmdChain, AmdCrl, IntelRootCrl
from adyton.devtee.forge import Forge
from adyton.errors import (
    ConfigError,
    EndorsementError,
    EndorsementExpired,
    EndorsementMalformed,
    NotFound,
    TooMany,
    Unavailable,
)
from adyton.tee.snp.product import Product

CRL = AmdCrl(Product.GENOA)
CHAIN = AmdChain(Product.GENOA)
PATH = "/vcek/v1/Genoa/crl"


def test_a_second_time_comes_from_the_cache(endorser: Endorser, forge: Forge, collect: Collect, clock: Clock) -> None:
    play_amd(endorser, forge)
    collector = collect(f"kds={endorser.url}")
    first = collector.get(CRL)
    clock.step(hours=1)
    assert collector.get(CRL) == first
    assert endorser.asked == [PATH]
    assert collect().get(CRL) == first  # without any source
    collector.get(vcek_of(forge))
    clock.step(days=20)
    collector.get(vcek_of(forge))
    assert endorser.asked.count(vcek_path(forge)) == 1
    collector.refresh(vcek_of(forge))
    assert endorser.asked.count(vcek_path(forge)) == 2


def test_stale_is_asked_for_again_and_served_if_nobody_answers(
    endorser: Endorser, forge: Forge, collect: Collect, clock: Clock
) -> None:
    play_amd(endorser, forge)
    collector = collect(f"kds={endorser.url}")
    collector.get(CRL)
    clock.step(hours=7)
    newer = forge.crl(number=2, start=NOW + timedelta(hours=3))
    endorser.routes[PATH] = Answer(newer)
    assert collector.get(CRL).body == newer
    clock.step(hours=7)
    endorser.outage = True
    assert collector.get(CRL).body == newer
    clock.step(days=60)  # beyond nextUpdate
    with pytest.raises(Unavailable):
        collector.get(CRL)
    with pytest.raises(ConfigError) as caught:
        collect().get(CRL)
    assert caught.value.code == "endorsement_no_source"


def test_stale_is_served_at_once_while_it_is_refreshed_behind(
    endorser: Endorser, forge: Forge, collect: Collect, clock: Clock, cache: Cache
) -> None:
    play_amd(endorser, forge)
    collector = collect(f"kds={endorser.url}", background=True)
    first = collector.get(CRL)
    clock.step(hours=7)
    newer = forge.crl(number=2, start=NOW + timedelta(hours=3))
    endorser.routes[PATH] = Answer(newer)
    endorser.delay = 3.0
    begun = time.monotonic()
    for _ in range(5):
        assert collector.get(CRL) == first
    assert time.monotonic() - begun < 2.5
    collector.close()
    stored = cache.find(CRL, clock())
    assert stored is not None
    assert stored.item.body == newer
    assert len(endorser.asked) == 2  # five callers, one refresh


def test_an_earlier_time_gets_what_was_valid_then(
    endorser: Endorser, forge: Forge, collect: Collect, clock: Clock
) -> None:
    play_amd(endorser, forge, crl=forge.crl(number=1, lifetime=timedelta(days=10)))
    collector = collect(f"kds={endorser.url}")
    old = collector.get(CRL)
    clock.step(days=12)
    endorser.routes[PATH] = Answer(forge.crl(number=2, start=clock(), lifetime=timedelta(days=10)))
    new = collector.get(CRL)
    assert new != old
    assert collector.get(CRL, at=NOW + timedelta(days=1)) == old
    assert collector.get(CRL, at=clock()) == new
    with pytest.raises(EndorsementExpired) as caught:
        collector.get(CRL, at=NOW - timedelta(days=30))
    assert caught.value.code == "endorsement_not_current"


def test_http_may_say_how_long(endorser: Endorser, forge: Forge, collect: Collect, clock: Clock) -> None:
    endorser.routes[PATH] = Answer(forge.crl(), headers={"Cache-Control": "max-age=86400"})
    collector = collect(f"kds={endorser.url}")
    collector.get(CRL)
    clock.step(hours=23)
    collector.get(CRL)
    assert len(endorser.asked) == 1
    endorser.routes[PATH] = Answer(forge.crl(), headers={"Cache-Control": "no-store"})
    clock.step(hours=2)
    collector.get(CRL)
    clock.step(minutes=5)  # nobody makes us ask more often than this
    collector.get(CRL)
    assert len(endorser.asked) == 2
    clock.step(minutes=6)
    collector.get(CRL)
    assert len(endorser.asked) == 3


def test_near_its_end_it_is_asked_for_ahead(
    endorser: Endorser, forge: Forge, collect: Collect, clock: Clock, cache: Cache
) -> None:
    endorser.routes[PATH] = Answer(forge.crl(lifetime=timedelta(days=10)), headers={"Cache-Control": "max-age=9999999"})
    collect(f"kds={endorser.url}").get(CRL)
    stored = cache.find(CRL, clock())
    assert stored is not None
    assert stored.item.facts.expires is not None
    assert fresh_until(stored) == stored.item.facts.expires - timedelta(days=1)


def test_older_than_seen_is_refused(
    endorser: Endorser, forge: Forge, collect: Collect, clock: Clock, cache: Cache
) -> None:
    """Rule 14: an older CRL that is still unexpired would otherwise undo a revocation for weeks."""
    play_amd(endorser, forge, crl=forge.crl(number=5))
    collector = collect(f"kds={endorser.url}")
    collector.get(CHAIN)
    kept = collector.get(CRL)
    clock.step(hours=7)
    endorser.routes[PATH] = Answer(forge.crl(number=4))
    assert collector.get(CRL) == kept
    with pytest.raises(EndorsementError) as caught:
        collector.refresh(CRL)
    assert caught.value.code == "endorsement_older"
    assert caught.value.spec == "evidence 1, rule 14"
    endorser.routes[PATH] = Answer(forge.crl(number=5, start=NOW - timedelta(hours=1)))
    with pytest.raises(EndorsementError):
        collector.refresh(CRL)
    with running() as honest:
        play_amd(honest, forge, crl=forge.crl(number=6, start=clock()))
        found = collect(f"kds={endorser.url}", f"kds={honest.url}").refresh(CRL)
        assert found.facts.order is not None
        assert found.facts.order[0] == 6
    seen = [stored.item.facts.order[0] for stored in cache.all() if stored.item.facts.order]
    assert sorted(seen) == [5, 6]


def test_somebody_elses_number_does_not_lock_the_vendor_out(endorser: Endorser, forge: Forge, collect: Collect) -> None:
    play_amd(endorser, forge)
    collector = collect(f"kds={endorser.url}")
    collector.get(CHAIN)
    other = Forge.new(NOW)
    endorser.routes[PATH] = Answer(other.crl(number=2**60))  # AMD's name, another's key
    foreign = collector.refresh(CRL)
    assert foreign.facts.signer is None
    endorser.routes[PATH] = Answer(forge.crl(number=1))
    genuine = collector.refresh(CRL)
    assert genuine.facts.signer is not None
    assert collector.get(CRL) == genuine


def test_absent_is_remembered_for_a_while(endorser: Endorser, forge: Forge, collect: Collect, clock: Clock) -> None:
    collector = collect(f"kds={endorser.url}")
    for _ in range(5):
        with pytest.raises(NotFound):
            collector.get(vcek_of(forge))
    assert len(endorser.asked) == 1
    play_amd(endorser, forge)
    clock.step(minutes=11)
    collector.get(vcek_of(forge))
    assert len(endorser.asked) == 2


def test_a_budget_for_each_host(endorser: Endorser, forge: Forge, collect: Collect, clock: Clock) -> None:
    play_amd(endorser, forge)
    collector = collect(f"kds={endorser.url}", per_minute=3)
    for _ in range(3):
        collector.refresh(CRL)
    with pytest.raises(TooMany) as caught:
        collector.refresh(CRL, seconds=5)
    assert caught.value.code == "endorser_busy"
    assert 55 <= caught.value.retry_after <= 60
    assert len(endorser.asked) == 3
    collector.get(CRL)  # what is there is served
    collector.refresh(CRL, seconds=90)  # whoever has the time waits
    assert clock.slept >= 55
    assert len(endorser.asked) == 4
    times: list[float] = []
    for _ in range(20):
        collector.refresh(CRL, seconds=600)
        times.append(clock().timestamp())
    for begin in times:
        assert sum(begin <= moment < begin + 60 for moment in times) <= 3


def test_two_collectors_share_a_budget(endorser: Endorser, forge: Forge, collect: Collect) -> None:
    play_amd(endorser, forge)
    one, other = (collect(f"kds={endorser.url}", per_minute=3) for _ in range(2))
    for collector in (one, other, one):
        collector.refresh(CRL)
    with pytest.raises(TooMany):
        other.refresh(CRL, seconds=5)


@pytest.mark.parametrize("said", ["30", "Mon, 01 Jun 2026 12:00:30 GMT"])
def test_retry_after_is_obeyed(endorser: Endorser, forge: Forge, collect: Collect, clock: Clock, said: str) -> None:
    play_amd(endorser, forge)
    endorser.limit, endorser.retry_after = 0, said
    collector = collect(f"kds={endorser.url}")
    with pytest.raises(TooMany) as caught:
        collector.get(CRL, seconds=10)
    assert 29 <= caught.value.retry_after <= 31
    with pytest.raises(TooMany):
        collector.get(CRL, seconds=10)
    assert len(endorser.asked) == 1  # the second did not even ask
    endorser.limit = None
    begun = clock()
    collector.get(CRL, seconds=60)
    assert (clock() - begun).total_seconds() >= 29


def test_failures_are_asked_less_and_less(endorser: Endorser, collect: Collect, clock: Clock) -> None:
    endorser.outage = True
    collector = collect(f"kds={endorser.url}")
    pauses = []
    for _ in range(3):
        begun = clock()
        with pytest.raises((Unavailable, TooMany)):
            collector.get(CRL, seconds=600)
        pauses.append((clock() - begun).total_seconds())
    assert len(endorser.asked) == 9  # three attempts each
    assert pauses == [1 + 2, 4 + 8 + 16, 32 + 64 + 128]
    begun = clock()
    with pytest.raises(TooMany):
        collector.get(CRL, seconds=10)
    assert clock() == begun


def test_another_source_is_asked_if_one_fails(endorser: Endorser, forge: Forge, collect: Collect) -> None:
    with running() as second:
        play_amd(second, forge)
        collector = collect(f"kds={endorser.url}", f"kds={second.url}")
        assert collector.get(CRL).url.startswith(second.url)  # the first has none
        endorser.routes["/vcek/v1/Genoa/cert_chain"] = Answer(b"<html>not it</html>")
        assert collector.get(CHAIN).url.startswith(second.url)
        endorser.outage = True
        assert collector.get(vcek_of(forge)).url.startswith(second.url)


def test_what_is_not_it_is_not_kept(endorser: Endorser, forge: Forge, collect: Collect, cache: Cache) -> None:
    collector = collect(f"kds={endorser.url}")
    for body in (b"", b"<html>", forge.certificates[0][1], b"-----BEGIN X509 CRL-----\n"):
        endorser.routes[PATH] = Answer(body)
        with pytest.raises(EndorsementMalformed):
            collector.get(CRL)
    endorser.routes[PATH] = Answer(forge.crl(start=NOW - timedelta(days=90)))
    with pytest.raises(EndorsementExpired):
        collector.get(CRL)
    assert cache.all() == []


def test_no_source_offers_it(endorser: Endorser, collect: Collect) -> None:
    with pytest.raises(ConfigError) as caught:
        collect(f"kds={endorser.url}").get(IntelRootCrl())
    assert caught.value.code == "endorsement_no_source"
    assert endorser.asked == []


def test_many_who_want_one_thing_ask_once(endorser: Endorser, forge: Forge, cache: Cache) -> None:
    from adyton.collateral import services

    play_amd(endorser, forge)
    endorser.delay = 0.3
    collectors = [
        Collector(cache, [services.source(f"kds={endorser.url}", clock=lambda: NOW)], clock=lambda: NOW)
        for _ in range(2)
    ]
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda c=collectors[number % 2]: found.append(c.get(CRL, seconds=10).body))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 12
    assert len(set(found)) == 1
    assert len(endorser.asked) == 1
