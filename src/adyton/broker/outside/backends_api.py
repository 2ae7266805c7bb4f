"""How the broker's back ends are: ``GET /api/v0/backends``."""

from __future__ import annotations

from adyton.broker.door import refusals
from adyton.broker.door.answer import Answer
from adyton.broker.door.api_bodies import answer
from adyton.broker.door.asked import Asked
from adyton.broker.outside.elsewhere import ElsewhereValues


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
