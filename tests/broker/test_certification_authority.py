"""A tenant's certificates are revoked, and openssl believes it; roots follow one another, and each goes on telling."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Awaitable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.broker import rig
from tests.broker.rig import RunningBroker
from tests.broker.test_recorded import Broker
from tests.waiting import LONG, until

from adyton.broker.door.answer import Answer
from adyton.broker.door.asked import Asked
from adyton.broker.door.connection import HttpRequest
from adyton.broker.door.rates import Rates
from adyton.broker.key_service import published as published_files
from adyton.broker.key_service.authority import Authority
from adyton.broker.key_service.authority_api import AuthorityApi
from adyton.broker.record.recorded import Recorded
from adyton.client.authority import CertificationAuthority
from adyton.client.keys import Keys
from adyton.crypto import crl
from adyton.crypto.key_kinds import Kind, generate, public_der
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, MalformedRequest, NotFound
from adyton.protocol.key_record import CertificateRequest
from adyton.protocol.keys import NewKey, RotateBody
from adyton.protocol.resource import ResourcePath
from adyton.stores import authorities
from adyton.stores.sqlite import Store

URL = "https://broker.example/kms"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
MADE = iter(range(1000))


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot) -> Iterator[RunningBroker]:
    running = rig.started(tmp_path_factory.mktemp("ca") / "data", root, "--public-url", f"{URL}/", "--workers", "2")
    yield running
    running.stop()


def certified(keys: Keys, days: int = 30) -> ResourcePath:
    path = ResourcePath("tls", "web", str(next(MADE)))
    keys.create(path, NewKey("p-256", certificate=CertificateRequest("web", ["web.example"], days)))
    return path


def published(broker: RunningBroker, name: str, tenant: str = "default") -> tuple[int, bytes, str]:
    with rig.raw(broker) as client:
        status, body, headers = client.ask("GET", f"/t/{tenant}/.well-known/ca/{name}")
    return status, body, headers.get("Content-Type", "")


def says(broker: RunningBroker, place: Path, chain: str, number: int = 1, tenant: str = "default") -> str:
    """What openssl says of the first certificate of ``chain``, with the root's published list and certificate."""
    root = x509.load_der_x509_certificate(published(broker, f"{number}.crt", tenant)[1])
    listed = x509.load_der_x509_crl(published(broker, f"{number}.crl", tenant)[1])
    (place / "ca.pem").write_bytes(root.public_bytes(Encoding.PEM))
    (place / "crl.pem").write_bytes(listed.public_bytes(Encoding.PEM))
    (place / "leaf.pem").write_text(chain.partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
    done = subprocess.run(
        ["openssl", "verify", "-crl_check", "-x509_strict", "-CAfile", "ca.pem", "-CRLfile", "crl.pem", "leaf.pem"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def code_of(call: object, *given: object, **named: object) -> str:
    assert callable(call)
    with pytest.raises(AdytonError) as caught:
        call(*given, **named)
    return caught.value.code


def test_what_is_refused(serving: RunningBroker) -> None:
    with serving.admin("nothing") as admin:
        ours = CertificationAuthority(admin)
        assert code_of(ours.show) == code_of(ours.rotate) == code_of(ours.crl, 1) == "authority_absent"
        assert ours.all() == [] == ours.certificates()
        odd: tuple[dict[str, object], ...] = ({"serials": ["00"]}, {"uri": "kbs:///a/b/c"})
        for given in odd:
            assert code_of(ours.revoke, "superseded", **given) == "certificate_absent"
        odd = ({}, {"serials": ["xx"]}, {"serials": ["1"], "uri": "kbs:///a/b/c"}, {"serials": ["1"] * 1001})
        for given in odd:
            assert code_of(ours.revoke, "superseded", **given) == "revocation_malformed"
        assert code_of(ours.revoke, "because", serials=["1"]) == "revocation_malformed"
        assert code_of(ours.rotate, days=0) == code_of(ours.rotate, days=3651) == "authority_days"
    for name in ("1.crl", "0.crl", "01.crl", "x.crl", "1.pem", "1", "99999.crl"):
        assert published(serving, name, "nothing")[0] == 404
    with serving.admin() as admin:
        path = certified(Keys(admin))
        serial = CertificationAuthority(admin).certificates()[0].serial
    with serving.admin("other") as admin:  # another tenant's certificate is not there
        assert code_of(CertificationAuthority(admin).revoke, "superseded", serials=[serial]) == "certificate_absent"
        assert code_of(CertificationAuthority(admin).revoke, "superseded", uri=path.uri) == "certificate_absent"


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_openssl_believes_it(serving: RunningBroker, tmp_path: Path) -> None:
    with serving.admin() as admin:
        keys, ours = Keys(admin), CertificationAuthority(admin)
        good, bad = certified(keys), certified(keys)
        chains = {path: keys.public(path).chain for path in (good, bad)}
        assert says(serving, tmp_path, chains[bad]).endswith("leaf.pem: OK\n")
        before = ours.crl(1)
        (done,) = ours.revoke("key-compromise", uri=bad.uri)
        assert (done.uri, done.version, done.reason) == (bad.uri, 1, "key-compromise") and done.revoked
        said = says(serving, tmp_path, chains[bad])  # at once, whichever worker answers
        assert "certificate revoked" in said
        assert says(serving, tmp_path, chains[good]).endswith("leaf.pem: OK\n")
        after = ours.crl(1)
        assert after.number > before.number and after.revoked == before.revoked + 1
        assert ours.revoke("superseded", serials=[f"00{done.serial.upper()}"])[0].reason == "key-compromise"
        assert ours.crl(1).number == after.number  # nothing changed: nothing was signed
        row = [one["row"] for one in admin.audit(limit=20) if one["row"]["action"] == "ca.revoke"]
        assert bad.uri in row[0]["resource"] and row[0]["resource"].endswith(": key-compromise")
        assert row[1]["resource"].endswith(": revoked already, key-compromise")  # it changed nothing
        keys.delete(bad)
        assert "certificate revoked" in says(serving, tmp_path, chains[bad])  # also of a key that is gone
    status, der, kind = published(serving, "1.crl")
    assert (status, kind) == (200, "application/pkix-crl")
    read = x509.load_der_x509_crl(der)
    leaf = x509.load_pem_x509_certificate(chains[bad].encode())
    entry = read.get_revoked_certificate_by_serial_number(leaf.serial_number)
    assert entry is not None
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    place = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert f"{URL}/t/default/.well-known/ca/1.crl" in str(place)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_a_new_root_issues_and_the_old_one_goes_on_telling(serving: RunningBroker, tmp_path: Path) -> None:
    with serving.admin("turning") as admin:
        keys, ours = Keys(admin), CertificationAuthority(admin)
        old = certified(keys)
        old_chain, first = keys.public(old).chain, ours.show()
        prepared = ours.rotate(prepare=True, days=700)
        assert (prepared.number, prepared.state, ours.show().number) == (2, "prepared", 1)
        assert code_of(ours.rotate, prepare=True) == "authority_prepared"
        assert published(serving, "2.crt", "turning")[0] == 200
        second = ours.rotate()
        assert (second.number, second.state, second.fingerprint) == (2, "active", prepared.fingerprint)
        assert [one.state for one in ours.all()] == ["retired", "active"]
        assert first.crl == f"{URL}/t/turning/.well-known/ca/1.crl"
        keys.rotate(old, RotateBody())
        new_chain = keys.public(old).chain
        assert says(serving, tmp_path, new_chain, 2, "turning").endswith("leaf.pem: OK\n")
        assert "OK" not in says(serving, tmp_path, new_chain, 1, "turning")
        assert says(serving, tmp_path, old_chain, 1, "turning").endswith("leaf.pem: OK\n")
        (done,) = ours.revoke("superseded", uri=old.uri, version=1)
        assert done.authority == 1
        assert "certificate revoked" in says(serving, tmp_path, old_chain, 1, "turning")
        assert says(serving, tmp_path, new_chain, 2, "turning").endswith("leaf.pem: OK\n")
        third = ours.rotate(days=10)
        assert (third.number, [one.state for one in ours.all()]) == (3, ["retired", "retired", "active"])
        with pytest.raises(MalformedRequest):
            certified(keys, days=30)  # would outlive its root
    assert len({published(serving, f"{number}.crt", "turning")[1] for number in (1, 2, 3)}) == 3


def stored(store: Store, authority: Authority, serial: int, days: int, now: datetime = NOW) -> authorities.Issued:
    public = public_der(Kind.P256, generate(Kind.P256))
    asked = CertificateRequest("x", ["x.example"], days)
    _, issued = authority.issue("default", f"a/b/{serial}", 1, Kind.P256, public, asked, now)
    with store._database.write() as transaction:
        authorities.note(transaction, "default", issued)
    return issued


def test_a_list_is_signed_anew_in_time_and_forgets_what_expired(tmp_path: Path) -> None:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    ours = Authority(store.authorities)
    short, long = stored(store, ours, 1, 10), stored(store, ours, 2, 300)
    first = ours.crl("default", 1, NOW)
    assert ours.crl("default", 1, NOW + timedelta(hours=23)) == first
    second = ours.crl("default", 1, NOW + timedelta(hours=25))
    assert crl.facts(first)[0] < crl.facts(second)[0]
    assert crl.facts(second)[2] == NOW + timedelta(hours=25) + crl.LASTS
    store.authorities.revoke("default", [short.serial, long.serial], "superseded", NOW.timestamp())
    assert crl.facts(ours.crl("default", 1, NOW + timedelta(hours=25)))[3] == 2
    assert crl.facts(ours.crl("default", 1, NOW + timedelta(days=39)))[3] == 2
    assert crl.facts(ours.crl("default", 1, NOW + timedelta(days=41)))[3] == 1
    back = ours.crl("default", 1, NOW)  # a clock that was set back: signed anew, with the next number
    assert crl.facts(back)[0] > crl.facts(second)[0]
    with pytest.raises(NotFound):
        store.authorities.revoke("default", [long.serial, "abc"], "superseded", NOW.timestamp())
    listed = store.authorities.certificates("default", "", 1)
    assert len(listed) == 1 and len(store.authorities.certificates("default", listed[0].serial, 10)) == 1
    store.close()


def test_nobody_waits_for_a_list_that_is_being_signed(tmp_path: Path) -> None:
    """Strangers may ask for it and it may be long: decisions' rows are written meanwhile."""
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    ours = Authority(store.authorities)
    stored(store, ours, 1, 10)
    numbers = []

    def sign(root: authorities.StoredAuthority, number: int, revoked: Sequence[authorities.Issued]) -> bytes:
        writing = threading.Thread(target=store.check_writable, daemon=True)
        writing.start()
        writing.join(LONG)
        assert not writing.is_alive()
        numbers.append(number)
        return crl.make(root.key, root.certificate, number, [], NOW)

    store.authorities.signed_list("default", 1, NOW.timestamp(), sign)
    assert len(numbers) == 1
    store.close()


def test_lists_that_are_signed_at_once_have_numbers_of_their_own_and_miss_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    ours, at = Authority(store.authorities), NOW.timestamp()
    one, two = stored(store, ours, 1, 10), stored(store, ours, 2, 10)
    store.authorities.revoke("default", [one.serial], "superseded", at)
    quicker: list[bytes] = []

    def sign(root: authorities.StoredAuthority, number: int, revoked: Sequence[authorities.Issued]) -> bytes:
        if not quicker:
            quicker.append(ours.crl("default", 1, NOW))  # another worker
            store.authorities.revoke("default", [two.serial], "superseded", at)
        entries = [(entry.serial, NOW, entry.reason) for entry in revoked]
        return crl.make(root.key, root.certificate, number, entries, NOW)

    made = store.authorities.signed_list("default", 1, at, sign)
    assert (crl.facts(quicker[0])[3], crl.facts(made)[3]) == (1, 2)
    assert crl.facts(quicker[0])[0] < crl.facts(made)[0]
    assert ours.crl("default", 1, NOW) == made  # it is the newest

    def late(root: authorities.StoredAuthority, number: int, revoked: Sequence[authorities.Issued]) -> bytes:
        store.authorities.revoke("default", [stored(store, ours, number % 1000, 9).serial], "superseded", at)
        return crl.make(root.key, root.certificate, number, [], NOW)

    tomorrow = NOW + timedelta(days=1)
    old = store.authorities.signed_list("default", 1, tomorrow.timestamp(), late)
    assert crl.facts(ours.crl("default", 1, tomorrow))[0] > crl.facts(old)[0]
    assert crl.facts(ours.crl("default", 1, tomorrow))[3] == 3
    store.close()


def test_a_store_that_was_restored_goes_on_above_the_lists_that_were_published(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "a", root_key=bytes(32), now=NOW)
    ours = Authority(store.authorities)
    serials = [stored(store, ours, number, 10).serial for number in range(5)]
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # a backup, before any list
    for serial in serials:
        store.authorities.revoke("default", [serial], "superseded", NOW.timestamp())
        newest = crl.facts(ours.crl("default", 1, NOW))[0]
    store.close()
    restored = Store.open(tmp_path / "b", root_key=bytes(32), now=NOW)
    assert crl.facts(Authority(restored.authorities).crl("default", 1, NOW + timedelta(hours=1)))[0] > newest
    restored.close()


def test_what_expired_long_ago_is_forgotten_in_parts(tmp_path: Path) -> None:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    ours, at = Authority(store.authorities), NOW.timestamp()
    stays = stored(store, ours, 1, 10)
    with store._database.write() as transaction:
        for number in range(1, 1502):
            authorities.note(transaction, "default", authorities.Issued(f"{number:x}", 1, "a/b/old", number, at))
    store.authorities.revoke("default", ["1", stays.serial], "superseded", at)
    assert store.authorities.forget_expired(at + authorities.KEPT - 1, steady=True) == 0
    assert crl.facts(ours.crl("default", 1, NOW + timedelta(days=29)))[3] == 2
    after = at + authorities.KEPT
    assert store.authorities.forget_expired(after, steady=False) == 0  # the clock may have jumped
    assert [store.authorities.forget_expired(after, steady=True) for _ in range(3)] == [1000, 501, 0]
    assert [one.serial for one in store.authorities.certificates("default", "", 10)] == [stays.serial]
    assert crl.facts(ours.crl("default", 1, NOW + timedelta(days=30)))[3] == 1
    store.close()


def test_a_key_of_many_certificates_is_revoked_in_parts_with_their_rows(tmp_path: Path) -> None:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    ours = Authority(store.authorities)
    stored(store, ours, 1, 10)
    with store._database.write() as transaction:
        for number in range(1, 2501):
            one = authorities.Issued(f"{number:x}", 1, "a/b/many", number, NOW.timestamp() + 1000)
            authorities.note(transaction, "default", one)
    rows: list[int] = []

    class Counted(Recorded):
        def settle(self, *changes: tuple[str, str]) -> None:
            super().settle(*changes)
            rows.append(len(changes))

    with Counted(store, "default", NOW, actor="ann", peer="") as deed:
        body = b'{"uri": "kbs:///a/b/many", "reason": "superseded"}'
        asked = Asked("POST", "default", body, NOW, deed=deed)
        answer = AuthorityApi(ours, store.authorities).handle(asked, ("authority", "revocations"))
        deed.settle(*answer.changes)
    assert rows == [1000, 1000, 500, 0] and store.audit.size("default") == 2500
    assert crl.facts(ours.crl("default", 1, NOW))[3] == 2500
    store.close()


@pytest.mark.parametrize("limit", ["%C2%B2", "0", "-1", "0000000010000000", "9" * 500, "1_0", "10001"])
def test_pages_that_are_none(serving: RunningBroker, limit: str) -> None:
    with rig.raw(serving) as client:
        for target in ("authority/certificates", "keys", "resources"):
            sent = {"Authorization": f"Bearer {(serving.data / 'admin.token').read_text().strip()}"}
            status, body, _ = client.ask("GET", f"/api/v0/{target}?limit={limit}", headers=sent)
            assert status == 400 and b"page_malformed" in body, (target, status, body)


def fetch(broker: Broker, name: str, peer: str = "192.0.2.7", tenant: str = "default") -> Awaitable[Answer] | Answer:
    target = f"/t/{tenant}/.well-known/ca/{name}".encode()
    return broker.program._front(HttpRequest("GET", target, {b"host": b"x"}, b"", keep_alive=True, peer=peer))


async def fetched(broker: Broker, name: str, peer: str = "192.0.2.7", tenant: str = "default") -> Answer:
    answer = fetch(broker, name, peer, tenant)
    return answer if isinstance(answer, Answer) else await answer


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path / "a")
    body = {"kind": "p-256", "certificate": {"subject": "x", "names": ["x.example"]}}
    assert broker.ask("PUT", "keys/k/e/y", body).status == 200
    yield broker
    broker.close()


def test_strangers_who_ask_for_lists_take_neither_all_threads_nor_all_places(
    alone: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    at_once: list[int] = []
    whole = Authority.crl

    def slow(*given: object) -> bytes:
        at_once.append(1)
        go.wait(LONG)
        return whole(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Authority, "crl", slow)

    async def flood() -> list[int]:
        waiting = [asyncio.ensure_future(fetched(alone, "1.crl")) for _ in range(200)]
        await asyncio.wait_for(asyncio.to_thread(lambda: None), LONG)
        await asyncio.to_thread(until, lambda: len(at_once) == 2)
        await asyncio.sleep(0.1)  # no third one comes
        assert len(at_once) == 2 and alone.program._front.in_flight == 64
        go.set()
        return [(await one).status for one in waiting]

    found = asyncio.run(flood())
    assert found.count(200) == 64 and found.count(429) == 136
    assert len(at_once) == 2  # who waited was served from memory
    assert alone.program._front.in_flight == 0


def test_what_is_known_is_served_from_memory_and_nothing_else_is(
    alone: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asyncio.run(fetched(alone, "1.crl")).status == asyncio.run(fetched(alone, "1.crt")).status == 200
    known = fetch(alone, "1.crl")
    assert isinstance(known, Answer) and isinstance(fetch(alone, "1.crt"), Answer)
    for name, tenant in (("2.crl", "default"), ("1.crl", "nobody"), ("1.crt", "nobody"), ("0.crl", "default")):
        absent = fetch(alone, name, tenant=tenant)
        assert isinstance(absent, Answer) and absent.status == 404  # no thread for what is made up
    assert alone.ask("POST", "authority/revocations", {"uri": "kbs:///k/e/y", "reason": "superseded"}).status == 200
    again = fetch(alone, "1.crl")
    assert not isinstance(again, Answer)  # acknowledged: the old list is no answer any more
    after = asyncio.run(_awaited(again))
    assert crl.facts(after.body)[3] == 1 and crl.facts(known.body)[3] == 0
    memory = alone.program._front._authority
    monkeypatch.setattr(published_files, "MAX_BYTES", 10)
    memory._keep(("default", 1, "crl"), 1, b"x" * 11)
    assert memory._known == {} and memory._bytes == 0


async def _awaited(answer: Awaitable[Answer]) -> Answer:
    return await answer


def test_an_address_fetches_so_often_and_no_more(alone: Broker) -> None:
    alone.program._front._rates = Rates((), ("published=0.001:4",))
    for peer, name, status in (("192.0.2.1", "1.crl", 200), ("192.0.2.2", "1.crt", 200), ("192.0.2.3", "77.crl", 404)):
        found = [asyncio.run(fetched(alone, name, peer)).status for _ in range(6)]
        assert found == [status] * 4 + [429] * 2
    refused = asyncio.run(fetched(alone, "1.crt", "192.0.2.1"))
    assert refused.status == 429 and refused.retry_after
    assert asyncio.run(fetched(alone, "1.crl", "192.0.2.4")).status == 200


def test_a_tenant_is_fetched_from_so_often(alone: Broker) -> None:
    alone.program._front._rates = Rates(("published=0.001:2",), ("published=1000:1000",))
    found = [asyncio.run(fetched(alone, "1.crl", f"192.0.2.{number}")).status for number in range(3)]
    assert found == [200, 200, 429]


def test_lists_of_revoked_sessions_are_fetched_under_the_same_rate(alone: Broker) -> None:
    alone.program._front._rates = Rates((), ("published=0.001:2",))
    found = []
    for _ in range(3):
        request = HttpRequest("GET", b"/.well-known/revocations.jwt", {b"host": b"x"}, b"", keep_alive=True, peer="::1")
        answer = alone.program._front(request)
        assert isinstance(answer, Answer)
        found.append(answer.status)
    assert found == [200, 200, 429]


def test_without_a_public_url_a_certificate_does_not_say_where(tmp_path: Path) -> None:
    store = Store.open(tmp_path, root_key=bytes(32), now=NOW)
    ours = Authority(store.authorities)
    public = public_der(Kind.P256, generate(Kind.P256))
    (leaf, _), _ = ours.issue("default", "a/b/c", 1, Kind.P256, public, CertificateRequest("x", ["x.example"], 1), NOW)
    with pytest.raises(x509.ExtensionNotFound):
        x509.load_der_x509_certificate(leaf).extensions.get_extension_for_class(x509.CRLDistributionPoints)
    assert ours.show("default").crl == ""
    store.close()
