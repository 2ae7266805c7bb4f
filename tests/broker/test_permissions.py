"""The one table of who may call what: no route without a line, nothing unknown allowed, no role too strong."""

from __future__ import annotations

import contextlib
import inspect
import typing
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import pytest
from tests.broker import rig

from adyton.broker.people import permissions
from adyton.broker.people.people import ROOT, Principal, Role
from adyton.broker.people.permissions import TABLE, Line
from adyton.client.address import BrokerAddress
from adyton.client.admin import Admin
from adyton.client.authority import CertificationAuthority
from adyton.client.keys import Keys
from adyton.client.people import People
from adyton.client.transport import Reply
from adyton.errors import AdytonError, NotPermitted
from adyton.protocol.admin import BASE
from adyton.protocol.resource import ResourcePath

OWN = Principal("a", Role.OWNER, "acme", None)
ONE = Principal("b", Role.OWNER, "acme", frozenset({"one"}))
READS = Principal("c", Role.AUDITOR, "acme", None)
RUNS = Principal("d", Role.OPERATOR)
READS_ALL = Principal("e", Role.AUDITOR)


def who_may(line: Line, tenant: str = "one", organisation: str = "acme") -> str:
    allowed = ""
    for who in (OWN, ONE, READS, RUNS, READS_ALL, ROOT):
        try:
            permissions.check(line, who, tenant, organisation)
        except NotPermitted:
            continue
        allowed += who.name[0] if who is not ROOT else "R"
    return allowed


def _line(who: str) -> Line:
    return Line("api", "GET", ("x",), who, "")


@pytest.mark.parametrize(
    ("who", "allowed"),
    [
        ("any", "abcdeR"), ("auditor", "abceR"), ("owner", "abR"), ("whole", "aR"),
        ("watcher", "deR"), ("operator", "dR"), ("broker", "R"),
    ],
)  # fmt: skip
def test_what_each_role_may(who: str, allowed: str) -> None:
    assert who_may(_line(who)) == allowed


@pytest.mark.parametrize("who", ["any", "auditor", "owner", "whole"])
def test_a_tenant_of_somebody_else_is_nobodys(who: str) -> None:
    assert not set(who_may(_line(who), "two", "other")) & set("abc")
    assert not set(who_may(_line(who), "one", "")) & set("abc")  # a tenant of no organisation
    assert "b" not in who_may(_line(who), "two", "acme")


@pytest.mark.parametrize("method", ["PATCH", "get", "", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("parts", [("resources",), ("about",), ("nothing",), ()])
def test_unknown_is_refused(method: str, parts: tuple[str, ...]) -> None:
    assert permissions.line("api", method, parts) is None
    assert permissions.line("kbs", method, parts) is None
    assert permissions.line("top", method, parts) is None


def test_a_path_is_matched_whole() -> None:
    for parts in (
        ("resources", "a", "b"),
        ("resources", "a", "b", "c", "bindings"),
        ("about", "x"),
        ("reference-value",),
    ):
        assert permissions.line("api", "GET", parts) is None
    assert permissions.line("kbs", "GET", ("reference-value",)) is None
    assert permissions.line("kbs", "GET", ("reference-value", "a", "b", "c")) is not None


def test_no_line_twice_and_none_that_another_hides() -> None:
    assert len({(line.area, line.method, line.path) for line in TABLE}) == len(TABLE)
    for line in TABLE:
        example = tuple("~" if part in {"*", "**"} else part for part in line.path)
        assert permissions.line(line.area, line.method, example) == line, line


READ_BY_POST = {("promotions", "plan")}
"""What is asked about with a body, and changes nothing."""


def test_what_changes_has_a_name_and_what_reads_has_none() -> None:
    for line in TABLE:
        if line.action == "key.export":  # nothing changes, and it may need several people all the same
            continue
        reads = line.method == "GET" or line.who == "none" or line.path in READ_BY_POST
        assert bool(line.action) != reads, line
        assert line.who != "none" or line.area == "kbs", line


class Recorder:
    """Stands where a client's transport does, and writes down what would be asked."""

    address = BrokerAddress("http://127.0.0.1:1")

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def request(self, method: str, path: str, body: bytes | None = None, headers: object = None) -> Reply:
        self.asked.append((method, path))
        return Reply(200, {}, b"{}")

    def close(self) -> None:
        pass


def _argument(kind: Any) -> Any:
    kinds = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return kinds[0]
    for plain, value in (
        (str, "x"),
        (int, 1),
        (bytes, b"x"),
        (bool, True),
        (ResourcePath, ResourcePath("a", "b", "c")),
    ):
        if kind is plain or plain in kinds:
            return value
    origin = typing.get_origin(kind)
    if origin in {list, tuple, dict, frozenset, set}:
        return origin()
    if inspect.isclass(kind) and issubclass(kind, msgspec.Struct):
        needed = [one for one in msgspec.structs.fields(kind) if one.required]
        return kind(**{one.name: _argument(one.type) for one in needed})
    return None


def routes_of_the_client() -> Iterator[tuple[str, str, str]]:
    """Every request that the client can make: method's name, HTTP method, path."""
    named: list[tuple[type, str, Any]] = [(Admin, *one) for one in inspect.getmembers(Admin, inspect.isfunction)]
    named += [(Keys, *one) for one in inspect.getmembers(Keys, inspect.isfunction)]
    authority = inspect.getmembers(CertificationAuthority, inspect.isfunction)
    named += [(CertificationAuthority, *one) for one in authority]
    named += [(People, *one) for one in inspect.getmembers(People, inspect.isfunction)]
    for kind, name, method in named:
        if name.startswith("_") or name in {
            "close",
            "ask",
            "send",
            "outside",
            "pages",
        }:  # the latter ones are what other modules ask with
            continue
        recorder = Recorder()
        client = Admin.__new__(Admin)
        client._transport = recorder  # type: ignore[assignment]
        client._headers, client._token = {}, None
        hints = typing.get_type_hints(method)
        given = {
            parameter.name: _argument(hints.get(parameter.name))
            for parameter in list(inspect.signature(method).parameters.values())[1:]
            if parameter.default is inspect.Parameter.empty
        }
        if name == "audit_verify":
            yield name, "GET", BASE + "/audit/verify"
            continue
        with contextlib.suppress(AdytonError, KeyError, TypeError):  # what was asked counts, and no answer
            method(client if kind is Admin else kind(client), **given)
        assert recorder.asked, f"{name} asked nothing: teach _argument its parameters"
        for asked in recorder.asked:
            yield name, *asked


def test_every_request_of_the_client_has_a_line() -> None:
    for name, method, target in routes_of_the_client():
        path = target.partition("?")[0].removeprefix(BASE + "/")
        assert permissions.line("api", method, tuple(path.split("/"))), f"{name}: {method} {path} has no line"


def test_every_line_is_served(broker: rig.RunningBroker) -> None:
    token = (broker.data / "admin.token").read_text().strip()
    with rig.raw(broker, "/t/lines") as client:
        for line in TABLE:
            if line.who == "none":
                continue
            path = "/".join("x" if part in {"*", "**"} else part for part in line.path)
            base = "/api/v0/" if line.area == "api" else "/kbs/v0/"
            status, body, _ = client.ask(line.method, base + path, b"{}", {"Authorization": f"Bearer {token}"})
            assert status != 405 and b"nothing at this path" not in body and b"no such plug-in" not in body, (
                line,
                body,
            )
            assert status < 500, (line, body)
