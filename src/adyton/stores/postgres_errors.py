"""What PostgreSQL says went wrong, as errors of our tree. Its own texts stay out of them: they may quote values."""

from __future__ import annotations

from adyton.errors import AdytonError, ConfigError, MalformedRequest, Unavailable

_UNREACHABLE = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})
_BUSY = frozenset({"40001", "40P01", "55P03", "57014"})


def lost(where: str) -> Unavailable:
    """The connection broke, and what was under way was not kept."""
    return Unavailable(
        "the connection to the database was lost; nothing of this change was kept",
        code="store_lost",
        field=where,
        hint="try again; the broker connects anew by itself",
    )


def unreachable(where: str, said: str = "") -> Unavailable:
    """Nobody answers there, or not in time."""
    return Unavailable(
        f"the database cannot be reached{': ' + said if said else ''}",
        code="store_unreachable",
        field=where,
        hint="is it running, and the network whole? the broker goes on by itself once it answers",
    )


def unknown_outcome(where: str) -> Unavailable:
    """A commit was sent, its answer lost, and the database cannot be asked."""
    return Unavailable(
        "the database was lost in the middle of a commit: whether this change was kept is not known",
        code="store_outcome_unknown",
        field=where,
        hint="look before you repeat it, once the database answers",
    )


def erasure_pending(where: str) -> Unavailable:
    """It is deleted, and its bytes are not free to be overwritten yet."""
    return Unavailable(
        "what was deleted is still in the database's files",
        code="erasure_pending",
        field=where,
        hint="it cannot be used any more; its bytes go when you ask for it again, or when the broker next tries by itself",
    )


def translate(state: str, where: str) -> AdytonError:
    """The error for a SQLSTATE."""
    if state in _UNREACHABLE or state.startswith("08"):
        return lost(where)
    if state in _BUSY or (state.startswith("53") and state != "53100"):
        return Unavailable("the store is busy", code="store_busy", field=where, got=state, hint="try again")
    if state in {"53100", "58030"}:
        return Unavailable(
            "the store's disk is full or fails; nothing of this change was kept",
            code="store_disk",
            field=where,
            got=state,
            hint="make space on the database's disk and try again; what was acknowledged before is safe",
        )
    if state in {"XX001", "XX002"}:
        return Unavailable(
            "the store is damaged",
            code="store_corrupt",
            field=where,
            got=state,
            hint="stop the brokers, keep the database's files, and restore the last backup",
        )
    if state.startswith("28") or state in {"3D000", "42501"}:
        return ConfigError(
            "the database does not let the broker in",
            code="store_unusable",
            field=where,
            got=state,
            hint="user, password, database and the rights on its schema: the database's log says which",
        )
    if state in {"42P01", "42703", "42P07"}:
        return ConfigError(
            "the store lacks a table or column, or holds somebody else's",
            code="store_foreign",
            field=where,
            got=state,
            hint="give the broker a database of its own, or restore the last backup",
        )
    if state == "25006":
        return Unavailable(
            "the database takes no changes: it is a standby, or read-only",
            code="store_read_only",
            field=where,
            got=state,
            hint="name the primary; several hosts may stand in the address",
        )
    if state == "22021":
        return MalformedRequest("a text holds a NUL character", code="store_text_invalid", field=where)
    if state == "54000" or state.startswith("54"):
        return Unavailable("the value is too large for the store", code="store_value_too_large", field=where)
    return Unavailable(
        "the store failed", code="store_failed", field=where, got=state, hint="the database's log has the cause"
    )
