"""Times as documents write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from adyton.provenance.values import refused

_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = 253_402_300_799  # 9999-12-31T23:59:59Z


def read(text: object, field: str, spec: str) -> datetime:
    """An RFC 3339 time with its zone, to the microsecond; ``DocumentInvalid`` for anything else."""
    if isinstance(text, str) and len(text) <= 40 and _RFC3339.match(text):
        try:
            time = datetime.fromisoformat(_six_digits(text.upper()))
            return time.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise refused(
        "not a time", "document_time", field=field, expected="RFC 3339 with a zone", got=str(text)[:40], spec=spec
    )


def optional(text: object, field: str, spec: str) -> datetime | None:
    """As ``read``; ``None`` where the document has none."""
    return None if text is None else read(text, field, spec)


def of_seconds(number: object, field: str, spec: str) -> datetime:
    """A time in whole seconds since 1970, or ``DocumentInvalid``."""
    if type(number) is not int or not 0 <= number <= _LAST:
        raise refused(
            "not a time", "document_time", field=field, expected="seconds since 1970", got=str(number)[:40], spec=spec
        )
    return datetime.fromtimestamp(number, UTC)


def micros(time: datetime) -> int:
    """Microseconds since 1970: the order of documents that carry a date."""
    delta = time - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _six_digits(text: str) -> str:
    head, dot, rest = text.partition(".")
    if not dot:
        return text
    digits = re.match(r"\d+", rest)
    assert digits is not None  # noqa: S101 -- the pattern above said so
    return f"{head}.{digits[0][:6].ljust(6, '0')}{rest[digits.end() :]}"
