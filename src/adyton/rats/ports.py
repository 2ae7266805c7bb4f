"""The doors between rooms that may not know each other. Whoever composes them, on floor 4 or 5, hands them in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from adyton.rats.types import JsonValue, ReportData


@dataclass(frozen=True, slots=True)
class CollectedEvidence:
    """What an attester collected: the wire name of its TEE and the JSON value that CoCo's protocol carries for it."""

    tee: str
    primary: JsonValue


class Attester(Protocol):
    """Collects evidence from one TEE. Laws: ``tee`` never changes; every call makes new evidence over its argument."""

    @property
    def tee(self) -> str:
        """The wire name (``kbs-protocol`` 1.3)."""
        ...

    def collect(self, report_data: ReportData) -> CollectedEvidence:
        """Evidence over ``report_data``; ``Unavailable`` or ``PlatformError`` if the TEE does not answer."""
        ...


class KeySource(Protocol):
    """Gives an image's key-encryption keys. Law: a key that was not released raises, it is never guessed."""

    def key(self, uri: str) -> bytes:
        """The 32 bytes behind a ``kbs:///`` URI; ``ReleaseRefused``, ``NotFound`` or ``Unavailable``."""
        ...


class Progress(Protocol):
    """Where long work reports to. Laws: calls are cheap, may come from any thread, and never raise."""

    def advance(self, label: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` (bytes or items; ``None`` = not known) for the step ``label``."""
        ...


class ReferenceValues(Protocol):
    """One frozen view of a tenant's reference values. Law: the same generation always answers the same."""

    @property
    def generation(self) -> int:
        """Grows with every change."""
        ...

    @property
    def deprecated(self) -> frozenset[str]:
        """The names whose values count, but are to be replaced."""
        ...

    def get(self, name: str) -> JsonValue:
        """The value, or ``None`` when there is none that counts: unexpired, begun, stable or deprecated."""
        ...

    def names(self) -> Iterable[str]:
        """The names that have a value that counts."""
        ...
