"""Whose names, how long, and not again: what a true signature does not give."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.provenance import signing
from tests.provenance.signing import DAY, HASH, NOW, OTHER, OWNER, P256

from adyton.errors import AdytonError, Conflict
from adyton.provenance import Current, Provided, Provider, Seen, Standing, State, Statement, admit, plain, read

A = signing.entry(OWNER, name="a", names=["launch", "a-*"])
B = signing.entry(P256, name="b", names=["b-*"])


def said(who: Provider = A, key: signing.Private = OWNER, **members: Any) -> Statement:
    values = members.pop("values", None)
    document = signing.plain(values, **members)
    return read(signing.envelope(document, plain.MEDIA_TYPE, key), who, now=NOW)


def stands(*published: Provided, state: State | None = None, gone: bool = False) -> Standing:
    current: dict[str, tuple[Current, ...]] = {}
    seen: dict[str, tuple[Seen, ...]] = {}
    for one in published:
        seen[one.name] = (*seen.get(one.name, ()), Seen(one.series, one.issue, one.proof, NOW))
        current[one.name] = () if gone else (Current(one.provider, one.proof, state or one.state, one.issued),)
    return Standing(current, seen)


def publish(statement: Statement, who: Provider = A, **given: Any) -> tuple[Provided, ...]:
    members: dict[str, Any] = {"standing": Standing(), "now": NOW} | given
    return admit(statement, who, **members)


def refused(code: str, statement: Statement, who: Provider = A, **given: Any) -> AdytonError:
    with pytest.raises(AdytonError) as caught:
        publish(statement, who, **given)
    assert caught.value.code == code, caught.value.as_dict()
    return caught.value


def test_a_valid_signature_of_a_cannot_publish_what_is_bs() -> None:
    both = said(values={"launch": [HASH], "b-launch": [HASH]})
    refused("reference_not_the_providers", both)
    wide = signing.entry(OWNER, name="a", names=["*"])
    assert isinstance(refused("reference_ambiguous", both, wide, others=[B]), Conflict)
    assert publish(both, wide, others=[wide])


def test_what_stands_belongs_to_who_published_it() -> None:
    (old,) = publish(said())
    other = signing.entry(OWNER, name="c", names=["launch"])
    refused("reference_of_another", said(issue=2), other, standing=stands(old))
    by_hand = Standing({"launch": (Current("", b"", State.STABLE),)})
    refused("reference_of_another", said(), standing=by_hand)


def test_kinds() -> None:
    refused("provider_kind", said(), signing.entry(OWNER, kinds=["corim"]))


@pytest.mark.parametrize("name", ["", "x" * 257, "a-\n"])
def test_names(name: str) -> None:
    who = signing.entry(OWNER, names=["*"])
    refused("reference_name_invalid", said(who, values={name: 1}), who)


def test_expired() -> None:
    refused("document_expired", said(not_after="2026-06-01T00:00:00Z"))
    refused("document_expired", said(issued="2026-01-01T00:00:00Z"))  # 90 days of the provider's
    refused("document_validity", said(not_before="2026-07-01T00:00:00Z", not_after="2026-06-15T00:00:00Z"))
    refused("validity_missing", said(), signing.entry(OWNER, name="a", valid_days=None))


def test_validity() -> None:
    endless = signing.entry(OWNER, name="a", valid_days=None)
    (one,) = publish(said(not_before="2026-06-05T00:00:00Z", not_after="2026-12-01T00:00:00Z"), endless)
    assert (one.not_before - NOW, one.not_after.month) == (4 * DAY, 12)
    (one,) = publish(said(issued="2026-05-01T00:00:00Z", not_after="2099-12-01T00:00:00Z"))
    assert one.not_after == one.not_before + 90 * DAY
    (one,) = publish(said())
    assert (one.not_before, one.not_after) == (NOW, NOW + 90 * DAY)


def test_a_document_of_the_last_day_there_is() -> None:
    who = signing.entry(OWNER, name="a", names=["launch"], valid_days=3660)
    (one,) = publish(said(who, issued="9999-12-31T00:00:00Z", not_before=None, not_after=None), who)
    assert one.not_after.year == 9999 and one.not_before > NOW


def test_publishing_again_makes_no_younger() -> None:
    (old,) = publish(said())
    (again,) = publish(said(), standing=stands(old), now=NOW + 30 * DAY)
    assert again == old
    refused("document_expired", said(), standing=stands(old), now=NOW + 90 * DAY)


def test_rollback() -> None:
    (old,), (new,) = publish(said(issue=1)), publish(said(issue=2, values={"launch": [OTHER]}))
    standing = Standing(stands(new).current, {"launch": (*stands(old).seen["launch"], *stands(new).seen["launch"])})
    assert isinstance(refused("reference_rollback", said(issue=1), standing=standing), Conflict)
    never_seen = said(issue=1, values={"launch": ["cc" * 32]})
    refused("reference_rollback", never_seen, standing=stands(new))
    refused("reference_equivocation", said(issue=2, values={"launch": ["cc" * 32]}), standing=stands(new))
    assert publish(said(issue=3), standing=stands(new))


def test_what_stands_may_be_said_again_beside_a_newer_candidate_but_an_old_candidate_not_promoted() -> None:
    (old,), (new,) = publish(said(issue=4)), publish(said(issue=5, values={"launch": [OTHER]}))
    seen = {"launch": (*stands(old).seen["launch"], *stands(new).seen["launch"])}

    def current(one: Provided, state: State) -> Current:
        return Current(one.provider, one.proof, state)

    stands_old = Standing({"launch": (current(old, State.STABLE), current(new, State.CANDIDATE))}, seen)
    assert publish(said(issue=4), standing=stands_old, state=State.DEPRECATED)
    stands_new = Standing({"launch": (current(new, State.STABLE), current(old, State.CANDIDATE))}, seen)
    refused("reference_rollback", said(issue=4), standing=stands_new)


def test_rollback_through_another_series() -> None:
    (old,), (new,) = publish(said(issue=9)), publish(said(id="other", issue=1, values={"launch": [OTHER]}))
    standing = Standing(stands(new).current, {"launch": (*stands(old).seen["launch"], *stands(new).seen["launch"])})
    refused("reference_rollback", said(issue=9), standing=standing)
    (dated,) = publish(said(issue=1, issued="2026-05-20T00:00:00Z"))
    refused("reference_rollback", said(id="x", issue=1, issued="2026-05-19T00:00:00Z"), standing=stands(dated))


def test_withdrawn_and_revoked_documents_do_not_come_back() -> None:
    (old,) = publish(said())
    refused("reference_rollback", said(), standing=stands(old, gone=True))
    refused("reference_revoked", said(), standing=stands(old, state=State.REVOKED))
    assert publish(said(issue=2), standing=stands(old, state=State.REVOKED))


def test_all_or_none() -> None:
    (old,) = publish(said(values={"a-1": 1}, issue=5))
    refused("reference_rollback", said(values={"a-1": 1, "a-2": 2}, issue=4), standing=stands(old))


def test_states() -> None:
    assert publish(said())[0].state is State.STABLE
    assert publish(said(state="deprecated"))[0].state is State.DEPRECATED
    assert publish(said(state="deprecated"), state=State.CANDIDATE)[0].state is State.CANDIDATE
    assert publish(said(), state=State.DEPRECATED)[0].state is State.DEPRECATED
    with pytest.raises(ValueError, match="revoked"):
        publish(said(), state=State.REVOKED)
    assert [state.counts for state in State] == [False, True, True, False]


def test_dated_documents_of_one_time_may_differ() -> None:
    first = signing.provenance()
    second = signing.provenance(subject=[{"name": "guest", "digest": {"sha256": OTHER}}])
    who = signing.entry(OWNER, **signing.SLSA)
    (one,) = admit(
        read(signing.envelope(first, signing.IN_TOTO, OWNER), who, now=NOW), who, standing=Standing(), now=NOW
    )
    other = read(signing.envelope(second, signing.IN_TOTO, OWNER), who, now=NOW)
    assert admit(other, who, standing=stands(one), now=NOW)
    older = signing.provenance(finished="2026-05-30T12:00:00Z")
    with pytest.raises(Conflict):
        admit(read(signing.envelope(older, signing.IN_TOTO, OWNER), who, now=NOW), who, standing=stands(one), now=NOW)


def test_keys_that_are_still_the_providers() -> None:
    (one,) = publish(said())
    assert A.signers(one.signers) and not B.signers(one.signers)
    assert json.dumps(one.value) == json.dumps([HASH])
    assert timedelta(0) < one.not_after - one.not_before
