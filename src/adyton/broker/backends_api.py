"""How the broker's back ends are: ``GET /api/v0/backends``."""

from __future__ import annotations

from adyton.broker import refusals
from adyton.broker.answer import Answer
from adyton.broker.api_bodies import answer
from adyton.broker.asked import Asked
from adyton.broker.elsewhere import ElsewhereValues


class BackendsApi:
    """Asks each back end that the tenant may use; a ``Room``."""

    def __init__(self, values: ElsewhereValues) -> None:
        self._values = values

    def handle(self, asked: Asked, parts: tuple[str, ...]) -> Answer:
        """All of them, or refused."""
        match (asked.method, *parts):
            case ("GET", "backends"):
                return answer(self._values.check(asked.tenant))
        return refusals.NO_METHOD
