"""Whether what a verified document states may be published: whose the names are, how long it holds, what was before.

Signatures say who wrote a document. They do not say that the names are theirs, that it is the newest, or that it is to
be used now; that is decided here, from the owner's providers and from what the store remembers.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from adyton.errors import Conflict
from adyton.provenance.provider import Provider
from adyton.provenance.values import MAX_NAME, MAX_VALUES, Provided, Seen, Standing, State, Stated, Statement, refused

_CAUTION = (State.STABLE, State.DEPRECATED, State.CANDIDATE)
"""In this order: the later of what the owner and the document say is what holds."""


def admit(
    statement: Statement,
    provider: Provider,
    *,
    others: Iterable[Provider] = (),
    standing: Standing,
    state: State = State.STABLE,
    now: datetime,
) -> tuple[Provided, ...]:
    """All of the statement's values, ready to be stored together, or the first reason against one of them.

    ``others`` are the tenant's other providers; ``state`` is what the owner publishes it as.
    ``DocumentInvalid`` speaks of the document, ``Conflict`` of what stands already.
    """
    if state not in _CAUTION:
        raise ValueError("nothing is published as revoked")
    if statement.kind not in provider.kinds:
        raise refused(
            "the provider may not publish documents of this kind",
            "provider_kind",
            field="kind",
            expected=sorted(provider.kinds),
            got=statement.kind,
            hint="add the kind to the provider's entry if it is wanted",
        )
    if not 0 < len(statement.values) <= MAX_VALUES:
        raise refused("the document has no values, or too many", "document_empty", got=len(statement.values))
    others = tuple(others)
    for name in statement.values:
        _check_name(name, provider, others)
    first = min((seen.first for seen in _same(statement, standing)), default=now)
    begin, end = _validity(statement, provider, first, now)
    chosen = max(state, statement.state, key=_CAUTION.index)
    for name, stated in statement.values.items():
        _check_standing(name, stated, statement, provider, standing)
    return tuple(
        Provided(
            name=name,
            value=stated.value,
            provider=provider.name,
            kind=statement.kind,
            proof=statement.proof,
            signers=statement.signers,
            series=stated.series,
            issue=stated.issue,
            issued=statement.issued,
            not_before=begin,
            not_after=end,
            state=chosen,
        )
        for name, stated in statement.values.items()
    )


def _same(statement: Statement, standing: Standing) -> list[Seen]:
    return [seen for name in statement.values for seen in standing.seen.get(name, ()) if seen.proof == statement.proof]


def _check_name(name: str, provider: Provider, others: tuple[Provider, ...]) -> None:
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise refused(
            f"a reference value's name has 1 to {MAX_NAME} printable characters",
            "reference_name_invalid",
            field="name",
            got=name[:80],
        )
    if not provider.owns(name):
        raise refused(
            "the document states a value that is not its provider's",
            "reference_not_the_providers",
            field=name[:80],
            expected=list(provider.names),
            got=name,
            hint="nothing of the document was taken; if the name is the provider's, add it to the provider's entry",
        )
    rivals = [other.name for other in others if other.name != provider.name and other.owns(name)]
    if rivals:
        raise Conflict(
            f"the reference value {name[:80]!r} would belong to several providers",
            code="reference_ambiguous",
            field="name",
            expected=provider.name,
            got=rivals,
            hint="narrow the names of one of the providers",
        )


def _validity(statement: Statement, provider: Provider, first: datetime, now: datetime) -> tuple[datetime, datetime]:
    """From when until before when it counts. A document without an end gets the provider's, from its date on.

    A document without a date counts from when it was first published: to publish it again makes it no younger.
    """
    begin = statement.not_before or statement.issued or first
    ends = [statement.not_after] if statement.not_after is not None else []
    if provider.valid_for is not None:
        ends.append(_after(statement.issued or begin, provider.valid_for))
    if not ends:
        raise refused(
            "the document does not say how long it is valid",
            "validity_missing",
            field="not_after",
            hint="give its provider a number of days that such documents are valid for",
        )
    end = min(ends)
    if end <= now:
        raise refused(
            "the document has expired",
            "document_expired",
            field="not_after",
            expected=f"after {now.isoformat(timespec='seconds')}",
            got=end.isoformat(timespec="seconds"),
        )
    if begin >= end:
        raise refused(
            "the document ends before it begins",
            "document_validity",
            field="not_before",
            expected=f"before {end.isoformat(timespec='seconds')}",
            got=begin.isoformat(timespec="seconds"),
        )
    return begin, end


def _after(begin: datetime, time: timedelta) -> datetime:
    """As far as there are dates: a document may name the last one."""
    try:
        return begin + time
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _check_standing(name: str, stated: Stated, statement: Statement, provider: Provider, standing: Standing) -> None:
    current = standing.current.get(name, ())
    for one in current:
        if one.provider != provider.name:
            raise Conflict(
                f"the reference value {name[:80]!r} belongs to {one.provider or 'the owner, who set it by hand'}",
                code="reference_of_another",
                field="name",
                expected=provider.name,
                got=one.provider or "the owner",
                hint="delete it first if it is to become this provider's",
            )
    mine = [one for one in current if one.proof == statement.proof]
    if any(one.state is State.REVOKED for one in mine):
        raise _old("the document was revoked", "reference_revoked", name)
    if any(one.state.counts for one in mine):
        return  # it is what stands: to say so again, or to deprecate it, brings nothing old back
    seen = standing.seen.get(name, ())
    if not mine and any(one.proof == statement.proof for one in seen):
        raise _old("the document was replaced or withdrawn since", "reference_rollback", name)
    for before in seen:
        if before.series != stated.series or before.proof == statement.proof:
            continue
        if before.issue > stated.issue:
            raise _old("an older issue of the document", "reference_rollback", name, before.issue, stated.issue)
        if before.issue == stated.issue and stated.exact:
            raise _old(
                "another document with the same issue", "reference_equivocation", name, before.issue, stated.issue
            )
    issued = statement.issued
    newest = max((one.issued for one in current if one.issued is not None), default=None)
    if issued is not None and newest is not None and issued < newest:
        raise _old("the document is older than what stands", "reference_rollback", name, newest, issued)


def _old(message: str, code: str, name: str, expected: object = None, got: object = None) -> Conflict:
    return Conflict(
        f"{message}: {name[:80]!r}",
        code=code,
        field=name[:80],
        expected=None if expected is None else f"after {expected}",
        got=None if got is None else str(got),
        hint="nothing of the document was taken; ask its provider for the newest issue",
    )
