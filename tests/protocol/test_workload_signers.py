"""Signed workload documents: a signature covers everything beside it."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto import detached
from adyton.errors import DocumentInvalid
from adyton.protocol import annotated, initdata, workload, workload_signers
from adyton.protocol.workload import Workload, WorkloadDocument

OWNER = ed25519.Ed25519PrivateKey.generate()
SECOND = ec.generate_private_key(ec.SECP256R1())
PLAIN = workload.write(Workload(image="sha256:" + "a" * 64, command=["/bin/true"]), {"aa.toml": "x = 1\n"})
SIGNED = workload_signers.sign(PLAIN, OWNER)


def name(key: detached.PrivateKey) -> str:
    return detached.fingerprint(key.public_key())


def claims(document: WorkloadDocument) -> dict[str, object]:
    return {**annotated.init_data_claims(initdata.parse(document.raw))}


@pytest.mark.parametrize(
    "change",
    [
        {"aa.toml": "x = 2\n"},
        {"cdh.toml": "[kbc]\n"},
        {"policy.rego": "package agent_policy"},
        {workload.KEY: SIGNED.data[workload.KEY].replace("/bin/true", "/bin/false")},
    ],
)
def test_whoever_changes_or_adds_something_is_found_out(change: dict[str, str]) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        claims(workload.with_entries(SIGNED, change))
    assert caught.value.code == "workload_signature" and "sign" in (caught.value.hint or "")


def test_whoever_takes_something_away_is_found_out() -> None:
    data = {key: text for key, text in SIGNED.data.items() if key != "aa.toml"}
    with pytest.raises(DocumentInvalid):
        annotated.init_data_claims(initdata.parse(initdata.write(data)))


def test_another_algorithm_of_the_digest_was_not_signed() -> None:
    with pytest.raises(DocumentInvalid):
        annotated.init_data_claims(initdata.parse(initdata.write(SIGNED.data, "sha384")))


@pytest.mark.parametrize("text", ["", "\n", "a", "a.b.c", "a..b\n", "x\n" * 17])
def test_an_entry_that_is_no_signature_is_refused_not_ignored(text: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        claims(workload.with_entries(PLAIN, {workload_signers.KEY: text}))
    assert caught.value.code == "workload_signature"


def test_one_signer_signs_once() -> None:
    twice = SIGNED.data[workload_signers.KEY] * 2
    with pytest.raises(DocumentInvalid):
        claims(workload.with_entries(PLAIN, {workload_signers.KEY: twice}))


def test_a_signature_for_something_else_is_none() -> None:
    text = detached.sign(OWNER, workload_signers.payload("sha256", PLAIN.data), "another-purpose")
    with pytest.raises(DocumentInvalid):
        claims(workload.with_entries(PLAIN, {workload_signers.KEY: text}))


def test_nobody_writes_the_claim_himself() -> None:
    with pytest.raises(DocumentInvalid) as caught:
        claims(workload.with_entries(PLAIN, {"workload_signers": name(OWNER)}))
    assert caught.value.code == "init_data_malformed"


def test_a_document_with_a_broken_signature_is_not_signed_again() -> None:
    changed = workload.with_entries(SIGNED, {"aa.toml": "x = 2\n"})
    with pytest.raises(DocumentInvalid):
        workload_signers.sign(changed, SECOND)


def test_no_more_signers_than_sixteen() -> None:
    document = PLAIN
    for _ in range(workload_signers.MAX_SIGNATURES):
        document = workload_signers.sign(document, ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(DocumentInvalid, match="too many"):
        workload_signers.sign(document, OWNER)


def test_who_signed_is_a_claim() -> None:
    assert "workload_signers" not in claims(PLAIN)
    assert claims(SIGNED)["workload_signers"] == [name(OWNER)]
    both = workload_signers.sign(SIGNED, SECOND)
    assert claims(both)["workload_signers"] == [name(OWNER), name(SECOND)]
    assert claims(both)["workload"] == claims(PLAIN)["workload"]
    assert "workload.jws" not in claims(both)


def test_signing_again_replaces_ones_own() -> None:
    again = workload_signers.sign(workload_signers.sign(SIGNED, SECOND), OWNER)
    assert claims(again)["workload_signers"] == [name(SECOND), name(OWNER)]


@given(data=st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=40), max_size=4))
def test_whatever_else_the_document_carries(data: dict[str, str]) -> None:
    reserved = {workload.KEY, workload_signers.KEY, "workload", "workload_signers", "agent_policy_claims"}
    extra = {key: text for key, text in data.items() if key not in {*reserved, "aa.toml", "cdh.toml", "policy.rego"}}
    document = workload_signers.sign(workload.with_entries(PLAIN, extra), OWNER)
    assert workload.parse(document.raw).data == document.data
    assert claims(document)["workload_signers"] == [name(OWNER)]
