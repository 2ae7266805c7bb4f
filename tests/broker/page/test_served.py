"""The page's files as they are served: nothing else can be had there, and nothing else can run there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.broker import rig

from adyton.broker.page import Page

FILES = Path(__file__).parents[3] / "src" / "adyton" / "broker" / "page" / "files"


@pytest.mark.parametrize(
    "parts", [("index.htm",), ("..",), ("files",), ("app.js", "x"), ("__init__.py",), ("app.js%00",), ("/etc/passwd",)]
)
def test_what_is_no_file_of_the_page_is_not_there(parts: tuple[str, ...]) -> None:
    assert Page().answer(parts) is None


def test_every_file_forbids_what_it_does_not_need() -> None:
    page = Page()
    for name in [path.name for path in FILES.iterdir()]:
        answer = page.answer((name,))
        assert answer is not None
        head = answer.render().partition(b"\r\n\r\n")[0].decode()
        policy = re.search(r"content-security-policy: (.*)\r", head)
        assert policy
        assert "default-src 'none'" in policy[1]
        assert "unsafe" not in policy[1]
        assert "frame-ancestors 'none'" in policy[1]
        assert "x-content-type-options: nosniff" in head
        assert "cache-control: no-store" in head


def test_no_markup_is_made_from_text() -> None:
    for script in FILES.glob("*.js"):
        text = script.read_text()
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "http://",
            "https://",
        ):
            assert word not in text.replace("http://www.w3.org/2000/svg", "").replace("use https, or", ""), (
                script.name,
                word,
            )
    index = (FILES / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=", index)


def test_the_page_holds_no_data_and_can_be_switched_off(tmp_path: Path) -> None:
    running = rig.started(tmp_path / "data", None, "--no-page")
    try:
        with rig.raw(running) as client:
            assert client.ask("GET", "/ui")[0] == 404
            assert client.ask("GET", "/healthz")[0] == 200
    finally:
        running.stop()


def test_over_http(broker: rig.RunningBroker) -> None:
    with rig.raw(broker) as client:
        status, body, headers = client.ask("GET", "/ui")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert client.ask("GET", "/t/other/ui")[1] == body  # the same for every tenant: there is nothing of any in it
        assert client.ask("POST", "/ui")[0] == 405
        assert client.ask("HEAD", "/ui/app.js")[0] == 200
        assert client.ask("GET", "/ui/../admin.token")[0] == 404
        for name in ("about", "platforms", "receivers"):
            assert client.ask("GET", f"/api/v0/{name}")[0] == 401
