"""Providers, publications and revocations over a broker's API and command line, and what they decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.broker import rig
from tests.provenance import signing

from adyton.cli.reference import STATES as CLI_STATES
from adyton.cli.reference import reference
from adyton.cli.reference_providers import KINDS as CLI_KINDS
from adyton.cli.reference_providers import WORDS as CLI_WORDS
from adyton.devtee.root import DevelopmentRoot
from adyton.errors import AdytonError, Conflict, MalformedRequest, NotFound, ReleaseRefused, SessionInvalid
from adyton.protocol.providers import KINDS, STATES, WORDS, ProviderSettings, RevocationBody
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.provenance.plain import MEDIA_TYPE
from adyton.rats.types import JsonValue

PATH = ResourcePath("provenance", "key", "1")
LAUNCH = "snp_launch_measurement"
GOOD: list[JsonValue] = [rig.MEASUREMENT.hex()]
BAD = ["00" * 48]
KEY = signing.OWNER


def settings(key: signing.Private = KEY, **members: Any) -> ProviderSettings:
    given: dict[str, Any] = {"keys": [signing.pem(key)], "names": [LAUNCH], "kinds": ["json"], "valid_days": 3650}
    return ProviderSettings(**(given | members))


def document(value: Any = None, issue: int = 1, key: signing.Private = KEY, **members: Any) -> bytes:
    given = signing.plain({LAUNCH: GOOD if value is None else value}, issue=issue, **members)
    return signing.envelope(given, MEDIA_TYPE, key)


def refused(code: str, call: Any, *arguments: Any) -> AdytonError:
    with pytest.raises(AdytonError) as caught:
        call(*arguments)
    assert caught.value.code == code, caught.value.as_dict()
    return caught.value


def test_nobody_is_a_provider_by_default(broker: rig.RunningBroker) -> None:
    with broker.admin("nobody") as admin:
        assert isinstance(refused("provider_absent", admin.publish, "vendor", document()), NotFound)
        assert not admin.list_providers() and not admin.list_references()
        for name in ("show_provider", "delete_provider"):
            refused("provider_absent", getattr(admin, name), "vendor")
        refused("provider_invalid", admin.set_provider, "vendor", ProviderSettings())


def test_a_valid_signature_of_a_cannot_publish_what_is_bs(broker: rig.RunningBroker) -> None:
    with broker.admin("two-providers") as admin:
        admin.set_provider("a", settings(names=["a-*"]))
        admin.set_provider("b", settings(signing.P256))
        refused("reference_not_the_providers", admin.publish, "a", document())
        refused("provenance_unsigned", admin.publish, "b", document())
        admin.set_provider("a", settings(names=["*"]))
        assert isinstance(refused("reference_ambiguous", admin.publish, "a", document()), Conflict)
        assert not admin.list_references()
        admin.set_provider("a", settings(names=["a-*"]))
        admin.publish("b", document(key=signing.P256))
        admin.set_provider("b", settings(signing.P256, names=["b-*"]))
        assert admin.show_reference(LAUNCH).state == "revoked"
        admin.set_provider("a", settings(names=[LAUNCH]))
        refused("reference_of_another", admin.publish, "a", document())


def test_rollback_by_hand_and_what_is_not_comparable(broker: rig.RunningBroker) -> None:
    with broker.admin("rollback") as admin:
        admin.set_provider("vendor", settings())
        admin.set_reference(LAUNCH, GOOD)
        refused("reference_of_another", admin.publish, "vendor", document())
        admin.delete_reference(LAUNCH)
        admin.publish("vendor", document(issue=1))
        admin.publish("vendor", document(BAD, issue=2))
        refused("reference_rollback", admin.publish, "vendor", document(issue=1))
        refused("reference_equivocation", admin.publish, "vendor", document(issue=2))
        refused("reference_not_comparable", admin.publish, "vendor", document([0.123456789], issue=3))
        refused("document_unrecognised", admin.publish, "vendor", b"{}")
        assert admin.show_reference(LAUNCH).value == BAD
        assert isinstance(
            refused("state_invalid", admin.publish, "vendor", document(issue=3), "revoked"), MalformedRequest
        )


def test_revocations_say_exactly_one_thing(broker: rig.RunningBroker) -> None:
    with broker.admin("saying") as admin:
        admin.set_provider("vendor", settings())
        view = admin.publish("vendor", document())
        for body in (
            RevocationBody(),
            RevocationBody([LAUNCH], view.proof),
            RevocationBody(proof="x", provider="vendor"),
        ):
            refused("revocation_malformed", admin.revoke, body)
        for body in (RevocationBody([LAUNCH, "x"]), RevocationBody(proof="00"), RevocationBody(provider="x")):
            refused("reference_absent", admin.revoke, body)
        assert admin.show_reference(LAUNCH).counts
        assert [one.name for one in admin.revoke(RevocationBody(proof=view.proof, reason="leaked"))] == [LAUNCH]
        shown = admin.show_reference(LAUNCH)
        assert (shown.state, shown.counts, shown.reason) == ("revoked", False, "leaked")
        refused("reference_revoked", admin.publish, "vendor", document())
        assert admin.publish("vendor", document(issue=2)).values[0].counts


def test_what_counts_decides_and_a_revocation_takes_effect_at_once(
    broker: rig.RunningBroker, root: DevelopmentRoot
) -> None:
    tenant = "decides"
    broker.publish(tenant)

    def get() -> bytes:
        with broker.session(rig.attester(root), tenant=tenant) as session:
            return session.resource(PATH)

    with broker.admin(tenant) as admin:
        admin.set_resource(PATH, b"secret", Binding(any_workload_i_accept=True))
        admin.delete_reference(LAUNCH)
        with pytest.raises(ReleaseRefused):
            get()
        admin.set_provider("vendor", settings())
        for state, not_before in (("candidate", None), ("stable", "2099-01-01T00:00:00Z")):
            made = document()
            if not_before:
                admin.set_provider("vendor", settings(valid_days=None))
                made = document(issue=2, not_before=not_before, not_after="2100-01-01T00:00:00Z")
            view = admin.publish("vendor", made, state)
            assert not view.values[0].counts
            with pytest.raises(ReleaseRefused):
                get()
        admin.set_provider("vendor", settings())
        admin.publish("vendor", document(issue=3))
        assert get() == b"secret"
        with broker.session(rig.attester(root), tenant=tenant) as session:
            assert session.resource(PATH) == b"secret"
            admin.publish("vendor", document(issue=4), "deprecated")
            assert session.resource(PATH) == b"secret"
            admin.revoke(RevocationBody([LAUNCH]))
            with pytest.raises((ReleaseRefused, SessionInvalid)):
                session.resource(PATH)
        rows = [entry["row"] for entry in admin.audit(limit=1000)]
        warned = [row for row in rows if any("reference_deprecated" in said for said in row.get("reasons", ()))]
        assert warned and all(row["decision"] == "allowed" for row in warned)
        published = [row["resource"] for row in rows if row["action"] == "reference.publish"]
        assert [text.split()[1] for text in published] == ["candidate", "stable", "stable", "deprecated"]
        assert {row["action"] for row in rows} >= {"provider.set", "reference.revoke"}


def test_a_key_that_is_taken_away_takes_its_values_with_it(broker: rig.RunningBroker) -> None:
    with broker.admin("keys") as admin:
        admin.set_provider("vendor", settings(keys=[signing.pem(KEY), signing.pem(signing.P256)]))
        admin.publish("vendor", document())
        view = admin.set_provider("vendor", settings(signing.P256))
        assert view.revoked == [LAUNCH] and len(view.key_ids) == 1
        assert not admin.show_reference(LAUNCH).counts
        assert admin.publish("vendor", document(issue=2, key=signing.P256)).values[0].counts
        assert admin.delete_provider("vendor") == [LAUNCH]
        assert not admin.show_reference(LAUNCH).counts


def test_tenants_do_not_share_providers(broker: rig.RunningBroker) -> None:
    with broker.admin("here") as here, broker.admin("there") as there:
        here.set_provider("vendor", settings())
        refused("provider_absent", there.publish, "vendor", document())
        assert not there.list_providers()


# The command line


class Line:
    """``adyton reference`` against the broker."""

    def __init__(self, broker: rig.RunningBroker, tenant: str) -> None:
        about = broker.description
        self.options = [
            "--broker", about["url"], "--broker-pin", about["pin"], "--tenant", tenant,
            "--admin-token-file", str(broker.data / "admin.token"),
        ]  # fmt: skip

    def __call__(self, *arguments: str) -> Any:
        result = CliRunner().invoke(reference, [*arguments, *self.options, "--json"])
        if isinstance(result.exception, AdytonError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_command_line(broker: rig.RunningBroker, tmp_path: Path) -> None:
    run = Line(broker, "command-line")
    key = tmp_path / "key.pem"
    key.write_text(signing.pem(KEY))
    folder = tmp_path / "chain"
    folder.mkdir()
    signing.Chain(folder).write()
    for arguments in (["--name", "*"], ["--kind", "json"], []):
        refused("provider_invalid", run, "provider", "set", "vendor", "--key", str(key), *arguments)
    private = tmp_path / "private.pem"
    private.write_text("-----BEGIN PRIVATE KEY-----")
    refused("provider_key_private", run, "provider", "set", "vendor", "--key", str(private))
    (made,) = run(
        "provider", "set", "vendor", "--key", str(key), "--name", "*.erofs", "--kind", "in-toto", "--kind", "json"
    )
    assert made["name"] == "vendor" and len(made["key_ids"]) == 1
    assert [one["name"] for one in run("provider", "list")] == ["vendor"]
    (shown,) = run("provider", "show", "vendor")
    entry = tmp_path / "entry.json"
    entry.write_text(json.dumps(shown["settings"]))
    assert run("provider", "set", "vendor", "--file", str(entry))[0]["key_ids"] == made["key_ids"]
    for paths in ([folder], sorted(folder.iterdir())):
        (view,) = run("publish", *map(str, paths), "--provider", "vendor")
        assert [one["name"] for one in view["values"]] == ["guest.erofs"] and view["kind"] == "in-toto"
    refused("file_unreadable", run, "publish", *[str(one) for one in folder.glob("*.link")], "--provider", "vendor")
    (value,) = run("show", "guest.erofs")
    assert value["provider"] == "vendor" and value["proof"] == view["proof"] and value["expires"].startswith("2099")
    assert [one["state"] for one in run("list")] == ["stable"]
    assert run("revoke", "guest.erofs", "--reason", "leaked")[0]["reason"] == "leaked"
    refused("reference_revoked", run, "publish", str(folder), "--provider", "vendor")
    assert run("provider", "delete", "vendor") == [{"deleted": "vendor", "revoked": []}]


def test_the_command_line_in_words(broker: rig.RunningBroker, tmp_path: Path) -> None:
    run = Line(broker, "words")
    key, path = tmp_path / "key.pem", tmp_path / "values.json"
    key.write_text(signing.pem(KEY))

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(reference, [*arguments, *run.options])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    def publish(made: bytes, *arguments: str) -> str:
        path.write_bytes(made)
        return said("publish", str(path), "--provider", "vendor", *arguments)

    entry = ["provider", "set", "vendor", "--key", str(key), "--name", "snp_*", "--kind", "json"]
    assert "may publish snp_* as json" in said(*entry, "--valid-days", "9", "--accept", WORDS[0])
    assert "vendor" in said("provider", "list") and "snp_*" in said("provider", "show", "vendor")
    assert "(candidate)" in publish(document(), "--state", "candidate")
    assert "candidate: it matches nothing" in said("show", LAUNCH)
    later = document(issue=2, not_before="2098-01-01T00:00:00Z", not_after="2099-01-01T00:00:00Z")
    said(*entry)
    assert "begins 2098-01-01" in publish(later) and "begins 2098-01-01" in said("list")
    assert "warning" in publish(document("no list", issue=3, not_after="2099-01-01T00:00:00Z"))
    assert "published by vendor" in said("show", LAUNCH)
    assert f"revoked {LAUNCH}" in said("revoke", "--provider", "vendor", "--reason", "leaked")
    assert "revoked (leaked)" in said("list") and "revoked (leaked): it matches nothing" in said("show", LAUNCH)
    publish(document(issue=4, not_after="2099-01-01T00:00:00Z"))
    assert f"revoked {LAUNCH}" in said("provider", "delete", "vendor")
    for wrong in (["revoke"], ["revoke", "x", "--proof", "00"]):
        assert CliRunner().invoke(reference, [*wrong, *run.options]).exit_code == 2


def test_keys_from_certificates_and_files_that_are_none(tmp_path: Path) -> None:
    from adyton.cli.reference_providers import _pem
    from adyton.devtee.nvidia_endorsements import manifest_chain, pem

    holders = manifest_chain(signing.NOW)
    (tmp_path / "chain.pem").write_bytes(pem(holders[:1]))
    assert _pem(tmp_path / "chain.pem").startswith("-----BEGIN PUBLIC KEY-----")
    (tmp_path / "bad.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    for name in ("bad.pem", "binary", "absent"):
        refused("file_unreadable", _pem, tmp_path / name)


def test_words_of_the_command_line_are_the_protocols() -> None:
    assert (CLI_KINDS, CLI_STATES, CLI_WORDS) == (KINDS, STATES, WORDS)
