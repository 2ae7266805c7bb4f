"""Every route with every role, on a running broker: who may is let to the handler, everybody else gets 401 or 403."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.broker import rig
from tests.broker.people_rig import Somebody

from adyton.broker.people.permissions import TABLE, Line
from adyton.client.people import People
from adyton.protocol.people import TenantBody

# Said once more here, apart from the table's own code: the column's word, and which of the people it lets through.
LET = {
    "any": {"root", "boss", "runs", "reads-all", "whole", "part", "reads"},
    "auditor": {"root", "boss", "reads-all", "whole", "part", "reads"},
    "owner": {"root", "boss", "whole", "part"},
    "whole": {"root", "boss", "whole"},
    "keeper": {"root", "boss"},
    "runner": {"root", "boss", "runs"},
    "watcher": {"root", "boss", "runs", "reads-all"},
    "operator": {"root", "boss", "runs"},
    "broker": {"root", "boss"},
}
EVERYBODY = {*LET["any"], "other", "elsewhere", "stranger"}


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[rig.RunningBroker, dict[str, dict[str, str]]]]:
    busy = rig.started(tmp_path_factory.mktemp("matrix") / "data", None)
    with busy.admin() as admin:
        for name in ("acme", "bolt"):
            People(admin).make_organisation(name)
    for name, organisation in (("acme-one", "acme"), ("acme-two", "acme"), ("bolt-one", "bolt")):
        with busy.admin(name) as admin:
            People(admin).make_tenant(TenantBody(organisation))
    people = {
        "boss": Somebody(busy, "default", "boss"),
        "runs": Somebody(busy, "default", "runs", "operator"),
        "reads-all": Somebody(busy, "default", "reads-all", "auditor"),
        "whole": Somebody(busy, "acme-one", "whole"),
        "part": Somebody(busy, "acme-one", "part", tenants=("acme-one",)),
        "reads": Somebody(busy, "acme-one", "reads", "auditor", tenants=("acme-one",)),
        "other": Somebody(busy, "acme-two", "other", tenants=("acme-two",)),
        "elsewhere": Somebody(busy, "bolt-one", "elsewhere"),
    }
    found = {name: one.header() for name, one in people.items()}
    found["root"] = {"Authorization": f"Bearer {(busy.data / 'admin.token').read_text().strip()}"}
    found["stranger"] = {}
    yield busy, found
    assert busy.stop() == 0


def administered() -> list[Line]:
    return [line for line in TABLE if line.who != "none"]


@pytest.mark.parametrize("line", administered(), ids=lambda line: f"{line.area} {line.method} {'/'.join(line.path)}")
def test_who_is_let_through(headers: tuple[rig.RunningBroker, dict[str, dict[str, str]]], line: Line) -> None:
    busy, known = headers
    base = "/api/v0/" if line.area == "api" else "/kbs/v0/"
    path = base + "/".join("no-such-name" if part in {"*", "**"} else part for part in line.path)
    own = line.path[0] == "own-tokens"  # a handler's own 403: who is not registered has none
    with rig.raw(busy, "/t/acme-one") as client:
        for name, header in known.items():
            status, body, _ = client.ask(line.method, path, b"{", header)
            if name in LET[line.who] and not (own and name == "root"):
                assert status not in {401, 403, 405}, (name, status, body)
            else:
                assert status == (401 if name in {"stranger", "elsewhere"} else 403), (name, status, body)
                assert b"no-such-name" not in body


def test_the_matrix_is_whole(headers: tuple[rig.RunningBroker, dict[str, dict[str, str]]]) -> None:
    assert set(headers[1]) == EVERYBODY
    assert {line.who for line in administered()} <= set(LET)


@pytest.mark.parametrize("tenant", ["bolt-one", "default", "broker", "no-such-tenant", "acme-two"])
def test_somebody_elses_tenant_and_none_look_the_same(
    headers: tuple[rig.RunningBroker, dict[str, dict[str, str]]], tenant: str
) -> None:
    """To an owner of one tenant, every other one answers as one that does not exist."""
    busy, known = headers
    seen = set()
    with rig.raw(busy, f"/t/{tenant}") as client:
        for line in administered():
            if line.area != "api":
                continue
            path = "/api/v0/" + "/".join("no-such-name" if part in {"*", "**"} else part for part in line.path)
            status, body, found = client.ask(line.method, path, b"{}", known["part"])
            seen.add((status, body, tuple(sorted(found.items()))))
    statuses = {status for status, _, _ in seen}
    assert statuses <= ({403} if tenant == "acme-two" else {401}), seen
    assert len({body for status, body, _ in seen if status == 401}) <= 1
