"""Who may publish which reference values: a reference value provider as the owner configures it.

Nobody is a provider by default, and what a provider's entry leaves empty is refused: without keys nothing verifies,
without names nothing may be published, without kinds nothing is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase

from adyton.protocol.providers import KINDS, NO_INSPECTIONS, UNSIGNED, WORDS
from adyton.protocol.providers import ProviderSettings as Settings
from adyton.provenance import keys
from adyton.provenance.keys import Key
from adyton.provenance.values import refused

__all__ = ["KINDS", "NO_INSPECTIONS", "UNSIGNED", "WORDS", "Provider", "Settings", "matches", "provider"]
MAX_KEYS = 16
MAX_PATTERNS = 64
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?\Z")
_PATTERN = re.compile(r"[\x21-\x7e]{1,256}\Z")
MAX_AGE = timedelta(days=3660)


@dataclass(frozen=True, slots=True)
class Provider:
    """A checked provider."""

    name: str
    keys: tuple[Key, ...]
    threshold: int
    names: tuple[str, ...]
    kinds: frozenset[str]
    builders: frozenset[str]
    build_types: frozenset[str]
    materials: tuple[str, ...]
    valid_for: timedelta | None
    accept: frozenset[str]

    def owns(self, name: str) -> bool:
        """Whether a reference value of this name is the provider's."""
        return matches(name, self.names)

    def signers(self, candidates: Iterable[str]) -> bool:
        """Whether enough of ``candidates`` (ids of keys) are still the provider's keys."""
        return len({key.id for key in self.keys}.intersection(candidates)) >= self.threshold


def matches(text: str, patterns: Iterable[str]) -> bool:
    """Whether one of the globs matches all of ``text``, in its case. ``*`` crosses slashes."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def provider(name: str, settings: Settings) -> Provider:
    """Check what the owner wrote; ``DocumentInvalid`` names the first member that cannot be taken."""
    if not _NAME.match(name):
        raise _invalid("name", "1 to 63 of a-z 0-9 . _ -, not at the ends", name)
    found = tuple(keys.from_pem(pem) for pem in settings.keys)
    accept = frozenset(settings.accept)
    if not accept.issubset(WORDS):
        raise _invalid("accept", WORDS, sorted(accept.difference(WORDS)))
    if len(found) > MAX_KEYS or (not found and UNSIGNED not in accept):
        raise _invalid("keys", f"1 to {MAX_KEYS} keys", len(found))
    if len({key.id for key in found}) != len(found):
        raise _invalid("keys", "each key once", "one key twice")
    if not 1 <= settings.threshold <= max(len(found), 1):
        raise _invalid("threshold", f"1 to {max(len(found), 1)}", settings.threshold)
    if not settings.kinds or not frozenset(settings.kinds).issubset(KINDS):
        raise _invalid("kinds", KINDS, settings.kinds)
    if not settings.names:
        raise _invalid("names", "at least one glob", "none")
    for member in ("names", "builders", "build_types", "materials"):
        patterns: list[str] = getattr(settings, member)
        if len(patterns) > MAX_PATTERNS or not all(_PATTERN.match(pattern) for pattern in patterns):
            raise _invalid(member, f"at most {MAX_PATTERNS} printable texts without spaces", member)
    days = settings.valid_days
    if days is not None and not 0 < days <= MAX_AGE.days:
        raise _invalid("valid_days", f"1 to {MAX_AGE.days}", days)
    return Provider(
        name=name,
        keys=found,
        threshold=settings.threshold,
        names=tuple(settings.names),
        kinds=frozenset(settings.kinds),
        builders=frozenset(settings.builders),
        build_types=frozenset(settings.build_types),
        materials=tuple(settings.materials),
        valid_for=None if days is None else timedelta(days=days),
        accept=accept,
    )


def _invalid(member: str, expected: object, got: object) -> Exception:
    return refused(
        "a reference value provider that cannot be taken",
        "provider_invalid",
        field=member,
        expected=expected,
        got=got if isinstance(got, int) else str(got)[:120],
        hint="what a provider's entry leaves empty is refused: say which keys, names and kinds are its own",
    )
