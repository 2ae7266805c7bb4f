"""The page in a real browser, against a real broker: what a person sees, by mouse and by keyboard."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.broker import rig
from tests.waiting import until

from adyton.client.handshake import Session
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import ReleaseRefused
from adyton.protocol import recording
from adyton.protocol.recording import RecordRules
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.stores.sqlite import FILE

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
KEY = ResourcePath("models", "key", "1")
ALLOWS = "package policy\n\nimport rego.v1\n\ndefault allow := true\n"
PATIENCE = 60_000  # milliseconds, in which what must appear has appeared
expect.set_options(timeout=PATIENCE)
pytestmark = [
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Debian's chromium is not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=3 * PATIENCE)
        yield running
        running.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[rig.RunningBroker, DevelopmentRoot]]:
    root = rig.make_root(tmp_path_factory.mktemp("root"))
    running = rig.started(tmp_path_factory.mktemp("page") / "data", root)
    running.publish()
    with running.admin() as admin:
        admin.set_resource(KEY, rig.SECRET, Binding(workloads=[str(rig.document().digest)]))
        admin.set_policy("resource", "resource-policy", "package policy\n\nimport rego.v1\n\ndefault allow := true\n")
    with running.session(rig.attester(root)) as session:
        assert session.resource(KEY) == rig.SECRET
    refused(running, root)
    yield running, root
    assert running.stop() == 0


def refused(running: rig.RunningBroker, root: DevelopmentRoot) -> None:
    other = rig.attester(root, measurement=bytes(48))
    with Session(running.address(), other, rig.document().raw) as session, pytest.raises(ReleaseRefused):
        session.resource(KEY)


@pytest.fixture
def page(browser: Browser, served: tuple[rig.RunningBroker, DevelopmentRoot]) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served[0].description["url"] + "/ui")
    yield page
    assert [line for line in complaints if not any(status in line for status in ("400", "401", "404"))] == []
    assert all(url.startswith(served[0].description["url"]) for url in asked)  # nothing is loaded from elsewhere
    context.close()


def token(running: rig.RunningBroker) -> str:
    return (running.data / "admin.token").read_text().strip()


def go(page: Page, section: str) -> None:
    """To another section, and wait until it is there: the last one's rows stand until then."""
    page.get_by_role("link", name=section, exact=True).click()
    expect(page.get_by_role("heading", level=1, name=section, exact=True)).to_be_visible()


def enter(page: Page, running: rig.RunningBroker) -> None:
    page.get_by_label("Token").fill(token(running))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Decisions")).to_be_visible()


def test_a_wrong_token_shows_nothing(page: Page) -> None:
    page.get_by_label("Token").fill("wrong" * 10)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("does not take this token")
    expect(page.get_by_role("navigation")).to_be_hidden()


def test_the_token_is_kept_nowhere_unless_asked(page: Page, served: tuple[rig.RunningBroker, DevelopmentRoot]) -> None:
    enter(page, served[0])
    assert token(served[0]) not in page.evaluate(
        "JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie])"
    )
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("keep it until").check()
    enter(page, served[0])
    page.reload()
    expect(page.get_by_role("heading", name="Decisions")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_decisions_appear_live_and_are_explained(page: Page, served: tuple[rig.RunningBroker, DevelopmentRoot]) -> None:
    running, root = served
    enter(page, running)
    before = int(page.locator("tbody tr").first.locator("th").inner_text())
    refused(running, root)
    expect(page.locator("tbody tr").first.locator("th")).to_have_text(str(before + 2))
    first = page.locator("tbody tr").first
    expect(first).to_contain_text("refused")
    first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("measurement_unknown")).to_be_visible()
    expect(page.get_by_text("Cure:").first).to_be_visible()
    page.get_by_role("button", name="Prove that it is in the record").click()
    expect(page.get_by_text("Checked in this browser")).to_be_visible()
    expect(page.get_by_text("bears the signature of the log's key")).to_be_visible()


def test_the_time_for_one_pair_of_keys_does_not_end_the_next(
    page: Page, served: tuple[rig.RunningBroker, DevelopmentRoot]
) -> None:
    enter(page, served[0])
    page.clock.install()
    page.clock.pause_at("2030-01-01")
    for key, title in [("r", "Resources"), ("p", "Policies")]:
        page.locator("main").focus()
        page.keyboard.press("g")
        page.clock.run_for(900)
        page.keyboard.press(key)
        expect(page.get_by_role("heading", level=1, name=title)).to_be_visible()
    page.keyboard.press("g")
    page.clock.run_for(1600)
    page.keyboard.press("r")
    expect(page.get_by_role("heading", level=1, name="Policies")).to_be_visible()


def test_a_filter_and_the_keyboard_lead_everywhere(
    page: Page, served: tuple[rig.RunningBroker, DevelopmentRoot]
) -> None:
    enter(page, served[0])
    page.keyboard.press("/")
    page.keyboard.type("kbs:///models")
    expect(page.locator("tbody tr").first).to_contain_text("kbs:///models/key/1")
    page.keyboard.press("Tab")
    for key, title in [
        ("r", "Resources"),
        ("p", "Policies"),
        ("v", "Reference values"),
        ("m", "Platforms"),
        ("a", "Audit"),
        ("o", "Approvals"),
        ("t", "Tenants"),
    ]:
        page.locator("main").focus()
        page.keyboard.type(f"g{key}")  # in one go: a pair has a second and a half
        expect(page.get_by_role("heading", level=1, name=title)).to_be_visible()
        expect(page.locator("nav a[aria-current]")).to_have_count(1)
    page.locator("main").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("next and previous row")
    page.keyboard.press("Escape")
    page.goto(page.url.split("#")[0] + "#decisions")


def test_resources_tell_who_received_them(page: Page, served: tuple[rig.RunningBroker, DevelopmentRoot]) -> None:
    enter(page, served[0])
    go(page, "Resources")
    row = page.locator("tbody tr").first
    expect(row).to_contain_text("kbs:///models/key/1")
    row.click()
    expect(page.get_by_role("heading", name="Who asked for it")).to_be_visible()
    expect(page.locator("tbody")).to_contain_text(rig.MEASUREMENT.hex()[:20])
    assert rig.SECRET.hex() not in page.content()


@pytest.mark.parametrize(
    "where",
    [
        "resources/..%2Fkeys%2Fa%2Fb%2Fc%2Fvalue",
        "resources/a%2F%252e%252e%2F..%2Fkeys",
        "policies/../tenants",
        "decisions/..",
    ],
)
def test_an_address_leads_nowhere_else(
    page: Page, served: tuple[rig.RunningBroker, DevelopmentRoot], where: str
) -> None:
    """Whoever sends an owner a link must not have their page ask for something else in their name."""
    enter(page, served[0])
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page.url.split("#")[0] + f"#{where}")
    expect(page.locator("main [role=alert], main .error").first).to_be_visible()
    assert not [url for url in asked if re.search(r"/api/v0/(keys|tenants|audit/$)", url)]


def test_another_log_in_the_same_place_is_noticed(
    page: Page, served: tuple[rig.RunningBroker, DevelopmentRoot]
) -> None:
    enter(page, served[0])
    go(page, "Audit")
    page.get_by_role("button", name="Check the head here").click()
    expect(page.locator("main")).to_contain_text("bears the log's signature")
    page.evaluate(
        """() => { const [key] = Object.keys(localStorage).filter((name) => name.startsWith("adyton checkpoint"));
        localStorage.setItem(key, JSON.stringify({...JSON.parse(localStorage.getItem(key)), origin: "another"})); }"""
    )
    page.get_by_role("button", name="Check the head here").click()
    expect(page.locator("main li .mark.bad")).to_be_visible()
    expect(page.locator("main")).to_contain_text("another log here before, another")
    assert "another" in page.evaluate("JSON.stringify({...localStorage})")


def test_platforms_and_reference_values(page: Page, served: tuple[rig.RunningBroker, DevelopmentRoot]) -> None:
    enter(page, served[0])
    go(page, "Platforms")
    expect(page.locator("tbody")).to_contain_text("microcode")
    expect(page.locator("tbody")).to_contain_text("no hardware")
    go(page, "Reference values")
    page.locator("tbody tr", has_text="snp_launch_measurement").click()
    expect(page.get_by_text("set by hand: no proof stands behind it")).to_be_visible()
    expect(page.get_by_role("note")).to_contain_text("NO HARDWARE PROTECTION")


def test_the_heads_signature_is_checked_and_a_cut_log_is_noticed(
    page: Page, served: tuple[rig.RunningBroker, DevelopmentRoot]
) -> None:
    enter(page, served[0])
    go(page, "Audit")
    page.get_by_role("button", name="Check the head here").click()
    expect(page.get_by_text("bears the log's signature")).to_be_visible()
    page.evaluate(
        "() => { const name = Object.keys(localStorage).find((one) => one.startsWith('adyton checkpoint'));"
        " const kept = JSON.parse(localStorage[name]); kept.size += 1000; localStorage[name] = JSON.stringify(kept); }"
    )
    page.get_by_role("button", name="Check the head here").click()
    expect(page.get_by_text("the log was cut")).to_be_visible()
    page.evaluate(
        "() => { const name = Object.keys(localStorage).find((one) => one.startsWith('adyton checkpoint'));"
        " const kept = JSON.parse(localStorage[name]); kept.size = 3; localStorage[name] = JSON.stringify(kept); }"
    )
    page.get_by_role("button", name="Check the head here").click()
    expect(page.get_by_text("changed behind the older checkpoint")).to_be_visible()


def test_a_row_that_was_changed_is_noticed(browser: Browser, tmp_path: Path) -> None:
    running = rig.started(tmp_path / "data", None)
    try:
        for _ in range(3):
            running.publish(some=1)
        connection = sqlite3.connect(running.data / FILE)
        with connection:
            connection.execute("DROP TRIGGER audit_no_update")
            connection.execute(
                "UPDATE audit SET body=CAST(replace(CAST(body AS TEXT), 'reference.set', 'reference.get') AS BLOB) WHERE sequence=5"
            )
        connection.close()
        context = browser.new_context()
        page = context.new_page()
        page.goto(running.description["url"] + "/ui")
        enter(page, running)
        page.goto(page.url.split("#")[0] + "#decisions/5")
        page.get_by_role("button", name="Prove that it is in the record").click()
        expect(page.get_by_text("the row is not in the log")).to_be_visible()
        context.close()
    finally:
        running.stop()


def test_a_policy_is_opened_on_the_bench(page: Page, served: tuple[rig.RunningBroker, DevelopmentRoot]) -> None:
    enter(page, served[0])
    go(page, "Policies")
    page.locator("tbody tr", has_text="resource-policy").click()
    text = page.get_by_label("Text of the policy")
    expect(text).to_have_value("package policy\n\nimport rego.v1\n\ndefault allow := true\n")
    text.fill("package policy\n\nallow := opa.runtime()\n")
    page.get_by_text("What differs from the version that decides").click()
    expect(page.locator(".diff .add").first).to_contain_text("opa.runtime")
    page.get_by_role("button", name="Set, so that it decides").click()
    page.get_by_role("button", name="Set it").click()
    expect(page.locator(".card.error")).to_contain_text("opa.runtime")


def test_a_policy_is_tried_kept_tried_beside_and_rolled_back(
    page: Page, served: tuple[rig.RunningBroker, DevelopmentRoot]
) -> None:
    running, root = served
    with running.admin() as admin:
        admin.set_policy("requirements", "record", recording.written(RecordRules(100, 7)))
        admin.set_policy("resource", "resource-policy", ALLOWS)
    with running.session(rig.attester(root)) as session:
        assert session.resource(KEY) == rig.SECRET
    with running.admin() as admin:
        until(lambda: len(admin.recordings(0)) == 2)  # what is recorded is written after the answer
    enter(page, running)
    go(page, "Policies")
    page.locator("tbody tr", has_text="resource-policy").click()
    page.get_by_label("Text of the policy").fill(ALLOWS.replace("true", "false"))
    page.get_by_role("button", name="Try against recorded evidence").click()
    expect(page.get_by_text("1 of 1 recorded decisions would change")).to_be_visible()
    page.get_by_role("button", name="Keep as a candidate").click()
    page.get_by_role("button", name="Try beside").first.click()
    expect(page.get_by_role("heading", name="On trial")).to_be_visible()
    with running.session(rig.attester(root)) as session:
        assert session.resource(KEY) == rig.SECRET  # the one on trial decides nothing
    page.get_by_role("button", name="End the trial").click()
    expect(page.get_by_role("heading", name="On trial")).to_be_hidden()
    page.get_by_role("button", name="Activate").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Activate").click()
    with running.admin() as admin:
        until(lambda: "false" in admin.show_policy("resource", "resource-policy").text)
    with Session(running.address(), rig.attester(root), rig.document().raw) as other, pytest.raises(ReleaseRefused):
        other.resource(KEY)
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.locator("tbody").last).to_contain_text("rollback")
    with running.session(rig.attester(root)) as session:
        assert session.resource(KEY) == rig.SECRET


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(
    browser: Browser, served: tuple[rig.RunningBroker, DevelopmentRoot], scheme: str
) -> None:
    context = browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(served[0].description["url"] + "/ui")
    enter(page, served[0])
    poor = page.evaluate(CONTRAST)
    assert poor == []
    context.close()


CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const bright = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const back = (one) => { while (one) { const c = rgb(getComputedStyle(one).backgroundColor); if (c.length < 4 || c[3] > 0) return c; one = one.parentElement; } return [255, 255, 255]; };
  const poor = [];
  for (const one of document.querySelectorAll('body *')) {
    if (!one.offsetParent || ![...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [bright(rgb(getComputedStyle(one).color)), bright(back(one))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) poor.push([one.tagName, one.className, one.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return poor;
}"""
"""WCAG 2.2, 1.4.3: 4.5 to 1."""


def test_everything_has_a_name_for_those_who_do_not_see(
    page: Page, served: tuple[rig.RunningBroker, DevelopmentRoot]
) -> None:
    enter(page, served[0])
    for section in ("decisions", "resources", "policies", "references", "platforms", "audit", "approvals", "tenants"):
        page.goto(page.url.split("#")[0] + f"#{section}")
        expect(page.locator("h1")).to_be_visible()
        nameless = page.evaluate(
            "() => [...document.querySelectorAll('input,select,textarea,button,a')].filter((one) => one.offsetParent"
            " && !one.getAttribute('aria-label') && !one.textContent.trim() && !(one.labels && one.labels.length)).map((one) => one.outerHTML)"
        )
        assert nameless == []
        assert page.locator("h1").count() == 1
        assert page.evaluate("document.documentElement.lang") == "en"


def test_it_fits_a_narrow_screen(browser: Browser, served: tuple[rig.RunningBroker, DevelopmentRoot]) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(served[0].description["url"] + "/ui")
    enter(page, served[0])
    addresses = ["resources", "policies", "references", "platforms", "audit", "approvals", "tenants", "decisions/7"]
    for address in ["decisions", *addresses, "policies/attestation/default_cpu"]:
        page.evaluate("where => { location.hash = where; }", address)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.get_by_text("Asking the broker…")).to_be_hidden()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, address
        top = page.evaluate("document.querySelector('main').getBoundingClientRect().top + scrollY")
        assert top < 370, f"{address}: what stands above leaves half a screen"
    context.close()


def test_a_host_of_a_tenants_own(browser: Browser, tmp_path: Path) -> None:
    """Whose page it is, the address does not say: rows of that tenant are proved as its own."""
    running = rig.started(tmp_path / "data", None, "--tenant-host", "acme.localhost=acme")
    try:
        with running.admin("acme") as admin:
            admin.set_policy("resource", "resource-policy", ALLOWS)
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://acme.localhost:{running.port}/ui")
        enter(page, running)
        assert "tenant acme" in page.locator("#where").inner_text()
        page.locator("tbody tr").first.click()
        page.get_by_role("button", name="Prove that it is in the record").click()
        expect(page.get_by_text("of this tenant")).to_be_visible()
        page.reload()
        page.get_by_label("Token").fill("zwölf Wörter")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("one word")
        context.close()
    finally:
        assert running.stop() == 0


def asked(
    running: rig.RunningBroker, method: str, path: str, body: object, bearer: str = ""
) -> tuple[int, dict[str, Any]]:
    with rig.raw(running) as client:
        headers = {"Authorization": f"Bearer {bearer or token(running)}"}
        status, read, _ = client.ask(method, f"/api/v0{path}", json.dumps(body), headers)
    return status, json.loads(read) if read else {}


def person(running: rig.RunningBroker, name: str, role: str) -> str:
    assert asked(running, "PUT", f"/people/{name}", {"role": role})[0] == 200
    status, made = asked(running, "POST", f"/people/{name}/tokens", {"days": 1})
    assert status == 200
    return str(made["token"])


def test_two_people_agree_on_the_page_and_an_auditor_only_reads(browser: Browser, tmp_path: Path) -> None:
    running = rig.started(tmp_path / "data", None)
    try:
        first, second, auditor = (
            person(running, *one) for one in [("ann", "owner"), ("bob", "owner"), ("eve", "auditor")]
        )
        rules = {"actions": ["resource.delete"], "needed": 2}
        assert asked(running, "PUT", "/tenant/approvals", rules)[0] in {200, 202}
        with running.admin() as admin:
            admin.set_resource(KEY, b"secret", Binding())
        assert asked(running, "DELETE", "/resources/models/key/1", None, first)[0] == 202
        context = browser.new_context()
        page = context.new_page()
        page.goto(running.description["url"] + "/ui")
        page.get_by_label("Token").fill(second)
        page.keyboard.press("Enter")
        go(page, "Approvals")
        expect(page.get_by_role("heading", name="resource.delete")).to_be_visible()
        expect(page.locator("section")).to_contain_text("ann")
        page.get_by_role("button", name="Approve").click()
        page.get_by_role("dialog").get_by_role("button", name="Approve").click()
        expect(page.get_by_text("Nothing waits.")).to_be_visible()
        expect(page.locator("table")).to_contain_text("ann: approve, bob: approve")
        assert asked(running, "GET", "/resources/models/key/1", None)[0] == 404
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("Token").fill(auditor)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1, name="Decisions")).to_be_visible()
        expect(page.get_by_role("link", name="Resources")).to_be_hidden()
        page.goto(page.url.split("#")[0] + "#resources")
        expect(page.get_by_role("alert")).to_contain_text("not for the role auditor")
        context.close()
    finally:
        running.stop()
