"""Data keys of single tenants: what is left of a tenant when it is deleted opens no more, whoever has the root key."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.postgresql import Server
from tests.stores.conftest import Engine

from adyton.errors import AdytonError, NotFound, Unavailable
from adyton.protocol import key_record
from adyton.protocol.key_record import KeyVersion, State
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores import schema, seal
from adyton.stores.keys import Material
from adyton.stores.people import Person
from adyton.stores.proposals import Ballot, Proposal
from adyton.stores.reference_rows import StoredReference
from adyton.stores.sqlite import FILE, Store
from adyton.stores.tenant_settings import TenantSettings

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ROOT_KEY = bytes(range(32))
PATH, OTHER = ResourcePath("a", "b", "c"), ResourcePath("a", "b", "key")
BINDING = Binding(any_workload_i_accept=True)
KEPT = {"audit", "audit_nodes", "checkpoints", "tenants", "removals", "intents"}


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def store(place: Path, engine: Engine) -> Iterator[Store]:
    opened = Store.open(place, root_key=ROOT_KEY, now=NOW, database=engine)
    yield opened
    opened.close()


@pytest.fixture
def filed(tmp_path: Path) -> Iterator[Store]:
    """The same, where a test looks at the file."""
    opened = Store.open(tmp_path, root_key=ROOT_KEY, now=NOW)
    yield opened
    opened.close()


def proposal() -> tuple[str, Proposal, str, Ballot]:
    value = Proposal("resource.delete", "api", "DELETE", ("resources",), "", b"", "ab" * 32, "ann", "", "ann", False,
                     NOW.timestamp(), NOW.timestamp() + 60)  # fmt: skip
    return "0" * 12, value, "ann", Ballot("ann", "approve", NOW.timestamp(), "", "ann", False)


def writes(store: Store, tenant: str) -> dict[str, Callable[[], object]]:
    """Everything that makes a row for a tenant."""
    record = key_record.make("aes-256", KeyVersion(1, State.ENABLED, 1, 1), never_export=False)
    one = StoredReference("p", 1, 0, NOW, None, provider="who", kind="plain", proof=bytes(32), series="s", issue=1)
    return {
        "resource": lambda: store.resources.set(tenant, PATH, b"a secret", BINDING, NOW),
        "elsewhere": lambda: store.resources.seal_elsewhere(tenant, PATH, b"a secret", "value", "x", NOW),
        "key": lambda: store.keys.create(tenant, OTHER, record, Material(b"k" * 32), BINDING, NOW),
        "policy": lambda: store.policies.set(tenant, "resource", "p", "package policy", NOW),
        "candidate": lambda: store.policies.set(tenant, "resource", "q", "package policy", NOW, activate=False),
        "reference": lambda: store.references.set(tenant, "r", 1, None, NOW),
        "publication": lambda: store.references.publish(
            tenant, "who", ["p"], lambda *_: [one], NOW, unchanged=lambda _: None
        ),
        "provider": lambda: store.providers.set(tenant, "who", b"{}", lambda _: True, NOW),
        "proposal": lambda: store.proposals.make(tenant, *proposal()),
        "secret": lambda: store.secrets.set("own", b"secret", tenant),
        "made secret": lambda: store.secrets.get_or_create("made", lambda: b"secret", tenant),
        "claims": lambda: store.claims.put(tenant, b"claims", NOW + timedelta(hours=1), NOW),
        "recording": lambda: store.recordings.add(tenant, [b"recorded"], NOW, keep=9, since=NOW),
        "staged": lambda: store.staged.announce(tenant, "resource", "p", 1, NOW),
        "dry run": lambda: store.dry_runs.begin(tenant, "resource", "p", 1, NOW),
        "revocation": lambda: store.revoked.add(tenant, "chip", ["00"], "", "", NOW),
        "settings": lambda: store.registry.change(tenant, lambda _, found: found),
    }


def fill(store: Store, tenant: str) -> None:
    for write in writes(store, tenant).values():
        write()


def files(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.glob("broker.sqlite*")))


def sealed_of(store: Store, tenant: str) -> list[bytes]:
    """Every sealed value of a tenant, and the wrapped keys."""
    found = []
    for table in schema.tables_of_tenants():
        if table in {"removals", "intents"}:  # where things lie in back ends, under the broker's own key
            continue
        for row in store._database.read(f'SELECT * FROM "{table}" WHERE tenant=?', (tenant,)):
            found += [bytes(value) for value in row if isinstance(value, bytes) and len(value) >= 33]
    return found


@pytest.mark.parametrize("what", [*writes(None, "")])  # type: ignore[arg-type]  # its names
def test_a_deleted_tenant_gets_no_rows_any_more(store: Store, what: str) -> None:
    """Whoever passed the gate before the deletion comes too late."""
    fill(store, "gone")
    store.registry.delete("gone")
    with pytest.raises(NotFound):
        writes(store, "gone")[what]()
    for table in schema.tables_of_tenants():
        if table not in KEPT:
            rows = store._database.read(f'SELECT 1 FROM "{table}" WHERE tenant=?', ("gone",))
            assert len(rows) == (1 if table == "tenant_settings" else 0), table


@pytest.mark.parametrize("what", [*writes(None, "")])  # type: ignore[arg-type]
def test_nor_one_that_was_used_never_and_must_be_made_now(store: Store, what: str) -> None:
    store.registry.make_organisation("acme", NOW)
    with pytest.raises(AdytonError):
        writes(store, "never")[what]()
    for table in schema.tables_of_tenants():
        assert not store._database.read(f'SELECT 1 FROM "{table}" WHERE tenant=?', ("never",)), table


def test_a_copy_of_after_and_the_root_key_open_nothing(filed: Store, tmp_path: Path) -> None:
    for tenant in ("gone", "stays"):
        fill(filed, tenant)
    before = sealed_of(filed, "gone")
    wrapped = [bytes(row[0]) for row in filed._database.read("SELECT wrapped FROM tenant_keys WHERE tenant='gone'")]
    assert len(before) > 12 and len(wrapped) == 1
    filed.registry.delete("gone")
    assert filed.registry.finish_erasure()
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob("broker.sqlite*"):
        shutil.copy(path, copy)
    raw = files(copy)
    for old in (*before, *wrapped):
        assert old not in raw
        assert old[17:33] not in raw  # not in part either: free pages and the log are overwritten
    keys = every_key(copy)
    assert len(keys) == 2  # the store's, and the other tenant's
    for old in before:  # whoever kept the ciphertexts themselves, from the disk's own copies
        for key in keys:
            with pytest.raises(InvalidTag):
                AESGCM(key).decrypt(old[5:17], old[17:], None)
    again = Store.open(copy, root_key=ROOT_KEY, now=NOW)
    try:
        for old in before:
            for kind in ("resource", "key version", "policy resource", "reference 2", "secret"):
                with pytest.raises(Unavailable):
                    again.sealer.open(old, "gone", kind, str(PATH), 1)
        assert again.resources.get("gone", PATH) is None
        kept = again.resources.get("stays", PATH)
        assert kept is not None and kept.value == b"a secret"
    finally:
        again.close()


def test_a_row_that_is_put_back_opens_nothing(filed: Store, tmp_path: Path) -> None:
    """Whoever kept the sealed rows and writes them into the file has none of them read again."""
    fill(filed, "gone")
    row = filed._database.read("SELECT * FROM resources WHERE tenant='gone' AND path=?", (str(PATH),))[0]
    filed.registry.delete("gone")
    filed.registry.finish_erasure()
    connection = sqlite3.connect(tmp_path / FILE)
    with connection:
        connection.execute("INSERT INTO resources VALUES (?,?,?,?,?,?)", row)
    connection.close()
    with pytest.raises(Unavailable) as caught:
        filed.resources.get("gone", PATH)
    assert caught.value.code == "sealed_value_broken"


def every_key(directory: Path) -> list[bytes]:
    """All data keys that the file and the root key give."""
    connection = sqlite3.connect(directory / FILE)
    try:
        (store,) = connection.execute("SELECT value FROM meta WHERE name='store'").fetchone()
        root = AESGCM(ROOT_KEY)
        rows = connection.execute("SELECT '', id, wrapped FROM data_keys UNION ALL SELECT * FROM tenant_keys")
        return [seal.unwrap(root, store, number, wrapped, tenant) for tenant, number, wrapped in rows]
    finally:
        connection.close()


def test_a_key_row_of_another_tenant_opens_and_seals_nothing(filed: Store, tmp_path: Path) -> None:
    for tenant in ("a", "b"):
        filed.resources.set(tenant, PATH, b"x", BINDING, NOW)
    filed.close()
    connection = sqlite3.connect(tmp_path / FILE)
    with connection:
        connection.execute(
            "UPDATE tenant_keys SET wrapped=(SELECT wrapped FROM tenant_keys WHERE tenant='b') WHERE tenant='a'"
        )
    connection.close()
    again = Store.open(tmp_path, root_key=ROOT_KEY, now=NOW)
    try:
        for call in (
            lambda: again.resources.get("a", PATH),
            lambda: again.resources.set("a", PATH, b"y", BINDING, NOW),
            lambda: again.references.set("a", "r", 1, None, NOW),
        ):
            with pytest.raises(Unavailable) as caught:
                call()
            assert caught.value.code == "sealed_value_broken"
    finally:
        again.close()


@pytest.mark.parametrize("form", [0, 1, 3, 255])
def test_another_form_opens_nothing(store: Store, form: int) -> None:
    with store._database.write() as transaction:
        sealed = store.sealer.seal_for(transaction, b"x", "t", "k", "n", 1)
    assert sealed[0] == 2 and store.sealer.open(sealed, "t", "k", "n", 1) == b"x"
    for changed in (bytes([form]) + sealed[1:], sealed[:1] + b"\0\0\0\2" + sealed[5:], sealed[:32]):
        with pytest.raises(Unavailable):
            store.sealer.open(changed, "t", "k", "n", 1)
    with pytest.raises(Unavailable):
        store.sealer.open(sealed, "u", "k", "n", 1)


def test_a_key_that_was_never_committed_seals_nothing(store: Store, place: Path, engine: Engine) -> None:
    """A transaction makes the tenant's key and comes to nothing; another worker makes another one."""
    with pytest.raises(RuntimeError), store._database.write() as transaction:
        lost = store.sealer.seal_for(transaction, b"lost", "t", "k", "n", 1)
        assert store.sealer.open(lost, "t", "k", "n", 1) == b"lost"
        raise RuntimeError
    other = Store.open(place, root_key=ROOT_KEY, now=NOW, instance=store.instance, database=engine)
    try:
        other.resources.set("t", PATH, b"kept", BINDING, NOW)
        found = store.resources.get("t", PATH)
        assert found is not None and found.value == b"kept"
        store.resources.set("t", PATH, b"again", BINDING, NOW)
        found = other.resources.get("t", PATH)
        assert found is not None and found.value == b"again"
        with pytest.raises(Unavailable):
            store.sealer.open(lost, "t", "k", "n", 1)
        other.registry.delete("t")
        assert any(tenant == "t" for tenant, _ in store.sealer._owned)
        store.sealer.forget_deleted()
        assert not store.sealer._owned and not other.sealer._owned
    finally:
        other.close()


def test_few_keys_are_remembered_and_all_values_open(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "MAX_REMEMBERED", 2)
    names = [f"t{number}" for number in range(5)]
    for name in names:
        store.resources.set(name, PATH, name.encode(), BINDING, NOW)
    for name in (*names, *reversed(names)):
        found = store.resources.get(name, PATH)
        assert found is not None and found.value == name.encode()
        assert len(store.sealer._owned) <= 2


def test_what_was_sealed_before_tenants_had_keys_moves_when_it_is_set_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as then:
        then.setattr(store.sealer, "seal_for", lambda _, *what: store.sealer.seal(*what))
        store.resources.set("t", PATH, b"old", BINDING, NOW)

    def form() -> int:
        return int(bytes(store._database.read("SELECT sealed FROM resources")[0][0])[0])

    found = store.resources.get("t", PATH)
    assert found is not None and found.value == b"old" and form() == 1
    store.resources.bind("t", PATH, Binding(), NOW)
    found = store.resources.get("t", PATH)
    assert found is not None and found.value == b"old" and form() == 2


def test_an_organisation_is_not_its_namesake(store: Store) -> None:
    store.registry.make_organisation("acme", NOW)
    store.people.set("acme", "ann", Person("owner"), (), NOW)
    store.registry.make("acme", TenantSettings("acme"))
    store.resources.set("acme", PATH, b"x", BINDING, NOW)
    store.registry.delete("acme")
    assert store.registry.finish_erasure()
    assert store.people.get("acme", "ann") == Person("owner")
    assert store.registry.find("acme") is None
    assert [one.name for one in store.registry.tenants()] == ["default"]


def test_killed_between_deletion_and_erasure(tmp_path: Path) -> None:
    """What the dead one had still to overwrite, the next one does."""
    store = Store.open(tmp_path, root_key=ROOT_KEY, now=NOW)
    fill(store, "gone")
    before = sealed_of(store, "gone")
    store.close()
    child = os.fork()
    if child == 0:
        dying = Store.open(tmp_path, root_key=ROOT_KEY, now=NOW)
        dying.registry.delete("gone")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    again = Store.open(tmp_path, root_key=ROOT_KEY, now=NOW)
    try:
        assert again.registry.find("gone") is None
        assert again.registry.finish_erasure() and again.registry.finish_erasure()
        raw = files(tmp_path)
        for old in before:
            assert old not in raw
        assert not again._database.read("SELECT 1 FROM meta WHERE name='erasing'")
    finally:
        again.close()


def test_whoever_reads_an_older_state_is_waited_for_later(filed: Store, tmp_path: Path) -> None:
    fill(filed, "gone")
    reader = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM resources").fetchone()
    filed.registry.delete("gone")
    filed._database._writer.execute("PRAGMA busy_timeout=20")  # type: ignore[attr-defined]
    assert not filed.registry.finish_erasure()
    assert filed._database.read("SELECT 1 FROM meta WHERE name='erasing'")
    reader.execute("COMMIT")
    reader.close()
    assert filed.registry.finish_erasure()
    assert not filed._database.read("SELECT 1 FROM meta WHERE name='erasing'")


def test_in_postgresqls_files_the_wrapped_keys_are_not_found_either(tmp_path: Path, postgresql: Server) -> None:
    opener = postgresql.opener()
    store = Store.open(tmp_path, root_key=ROOT_KEY, now=NOW, database=opener)
    try:
        fill(store, "gone")
        (wrapped,) = (
            bytes(row[0]) for row in store._database.read("SELECT wrapped FROM tenant_keys WHERE tenant='gone'")
        )
        postgresql.sql("CHECKPOINT", "postgres")
        assert wrapped in tables(postgresql)
        store.registry.delete("gone")
        assert store.registry.finish_erasure()
        postgresql.sql("CHECKPOINT", "postgres")
        assert wrapped not in tables(postgresql)
    finally:
        store.close()


def tables(server: Server) -> bytes:
    return b"".join(path.read_bytes() for path in (server.data / "base").rglob("*") if path.is_file())
