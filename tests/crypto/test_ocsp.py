"""OCSP answers: whom to believe, about what, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from adyton.crypto.algorithms import ECDSA_P384_SHA384, RSA_SHA256
from adyton.crypto.chain import Role
from adyton.crypto.ocsp import MAX_SIZE, Answer, Fresh, check_good
from adyton.crypto.x509 import Certificate
from adyton.devtee import nvidia_endorsements as made
from adyton.errors import (
    EndorsementError,
    EndorsementExpired,
    EndorsementMalformed,
    EndorsementMissing,
    EndorsementRevoked,
    EndorsementUntrusted,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ROLE = Role("nvidia", "chip", "RFC 6960")
LEAF, ISSUER, AUTHORITY, ROOT = made.manifest_chain(NOW)
STRANGERS = made.manifest_chain(NOW)
GOOD = made.answer(ISSUER, AUTHORITY, NOW)


def asked(*answers: bytes, now: datetime = NOW) -> Fresh:
    return check_good(
        Certificate(ISSUER.der),
        Certificate(AUTHORITY.der),
        [Answer(encoded) for encoded in answers],
        now,
        whose=ROLE,
        algorithms=(RSA_SHA256, ECDSA_P384_SHA384),
    )


def refused(kind: type[EndorsementError], code: str, *answers: bytes, now: datetime = NOW) -> None:
    with pytest.raises(kind) as caught:
        asked(*answers, now=now)
    assert caught.value.code == code


def test_no_answer_about_it() -> None:
    refused(EndorsementMissing, "revocation_unknown")
    refused(EndorsementMissing, "revocation_unknown", made.answer(LEAF, ISSUER, NOW))
    refused(EndorsementMissing, "revocation_unknown", made.answer(ISSUER, STRANGERS[2], NOW))
    refused(EndorsementMissing, "revocation_unknown", made.answer(ISSUER, AUTHORITY, NOW, serial=7))


def test_who_may_answer() -> None:
    asked(made.answer(ISSUER, AUTHORITY, NOW, responder=AUTHORITY))  # the issuer itself
    refused(EndorsementUntrusted, "ocsp_responder", made.answer(ISSUER, AUTHORITY, NOW, responder=ROOT))
    refused(
        EndorsementUntrusted,
        "ocsp_responder",
        made.answer(ISSUER, AUTHORITY, NOW, responder=made.new_responder(STRANGERS[2], NOW)),
    )
    for purpose in ("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"):
        server = made.new_responder(AUTHORITY, NOW, purpose=x509.ObjectIdentifier(purpose))
        refused(EndorsementUntrusted, "ocsp_responder", made.answer(ISSUER, AUTHORITY, NOW, responder=server))
    bare = made.new_holder("no purpose", NOW, issuer=AUTHORITY, ca=False)
    refused(EndorsementUntrusted, "ocsp_responder", made.answer(ISSUER, AUTHORITY, NOW, responder=bare))


def test_a_responder_of_the_past() -> None:
    old = made.new_responder(AUTHORITY, NOW - 4000 * DAY)
    refused(EndorsementExpired, "ocsp_responder_validity", made.answer(ISSUER, AUTHORITY, NOW, responder=old))


def test_a_signature_that_is_not_its_own() -> None:
    changed = bytearray(GOOD)
    at = bytes(changed).index(Answer(GOOD).signature)
    changed[at + 20] ^= 1
    refused(EndorsementUntrusted, "ocsp_sig", bytes(changed))


def test_when_it_holds() -> None:
    for moment in (NOW - timedelta(hours=2), NOW + DAY):
        refused(EndorsementExpired, "ocsp_validity", GOOD, now=moment)
    fresh = asked(GOOD, made.answer(ISSUER, AUTHORITY, NOW - DAY / 2), now=NOW)
    assert fresh.status.next_update == NOW - timedelta(hours=1) + DAY  # the one that holds longer


def test_what_it_says() -> None:
    refused(EndorsementRevoked, "chip_revoked", GOOD, made.answer(ISSUER, AUTHORITY, NOW - 99 * DAY, status="revoked"))
    refused(EndorsementRevoked, "chip_held", GOOD, made.answer(ISSUER, AUTHORITY, NOW, status="hold"))
    refused(EndorsementMissing, "revocation_unknown", made.answer(ISSUER, AUTHORITY, NOW, status="unknown"))
    asked(GOOD, made.answer(ISSUER, AUTHORITY, NOW - 99 * DAY, status="hold"))
    asked(GOOD, made.answer(ISSUER, AUTHORITY, NOW, status="unknown"))


def test_a_strangers_word_of_revocation_is_not_believed() -> None:
    asked(GOOD, made.answer(ISSUER, AUTHORITY, NOW, status="revoked", responder=STRANGERS[2]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30\x00",
        bytes.fromhex("30030a0106"),  # unauthorized
        bytes.fromhex("30030a0100"),  # successful, and nothing in it
        GOOD[:-1],
        GOOD + b"\0",
        b"\x30" + bytes(MAX_SIZE + 1),
    ],
)
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(EndorsementMalformed) as caught:
        Answer(data)
    assert caught.value.code == "ocsp_malformed"


@given(
    st.binary(max_size=100)
    | st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255)).map(
        lambda change: GOOD[: change[0]] + bytes((GOOD[change[0]] ^ change[1],)) + GOOD[change[0] + 1 :]
    )
)
def test_no_changed_answer_is_believed(data: bytes) -> None:
    try:
        answer = Answer(data)
    except EndorsementMalformed:
        return
    signed = answer.signed == Answer(GOOD).signed
    try:
        asked(data)
    except EndorsementError:
        return
    assert signed  # what was changed lies outside of what is signed: the responder's certificate's unused bytes


def test_more_answers_than_anybody_needs_are_refused_and_not_cut() -> None:
    strange = made.answer(ISSUER, AUTHORITY, NOW, responder=STRANGERS[2])
    many = [strange[:-2] + number.to_bytes(2, "big") for number in range(64)]  # each a signature to be tried
    refused(EndorsementMalformed, "ocsp_too_many", GOOD, *many)
    asked(GOOD, *many[:63])
