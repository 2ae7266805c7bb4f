"""What the caching proxy answers: paths and headers as AMD's, Intel's and NVIDIA's services have them, from cache and sources.

Nothing here vouches for anything: all that is handed out is signed by vendors, and who gets it verifies it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from urllib.parse import parse_qsl, urlsplit

from adyton.collateral import amd, intel, nvidia
from adyton.collateral.cache import Cache, Stored
from adyton.collateral.collector import Collector, fresh_until
from adyton.collateral.items import Item
from adyton.collateral.source import Reply
from adyton.collateral.wanted import AmdChain, AmdCrl, AmdVcek, NvidiaOcsp, NvidiaRim, Wanted
from adyton.errors import AdytonError, ConfigError, NotFound, TooMany

MAX_TARGET = 8 * 1024
_MAX_PARAMETERS = 16
_DOWN_SECONDS = 30
HEALTH = "/healthz"


def route(target: str) -> tuple[Wanted, str, dict[str, str]] | None:
    """What a request's target asks for, its path and its parameters; ``None`` if nothing is here. ``ValueError`` if it is wrong."""
    if len(target) > MAX_TARGET or not target.startswith("/") or target.startswith("//"):
        raise ValueError("not a path")
    parts = urlsplit(target)
    pairs = parse_qsl(
        parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=_MAX_PARAMETERS
    )
    query = dict(pairs)
    if len(query) != len(pairs):
        raise ValueError("a parameter comes twice")
    wanted = amd.route(parts.path, query) or intel.route(parts.path, query) or nvidia.route(parts.path)
    return (wanted, parts.path, query) if wanted is not None else None


class Front:
    """Answers requests. ``seconds``: how long one may wait for sources. Safe from several threads."""

    def __init__(
        self, cache: Cache, collector: Collector, clock: Callable[[], datetime], *, seconds: float = 20.0
    ) -> None:
        self._cache = cache
        self._collector = collector
        self._clock = clock
        self._seconds = seconds

    def at_hand(self, wanted: Wanted) -> bool:
        """Whether the cache can answer at once."""
        return self._cache.find(wanted, self._clock()) is not None

    def answer(self, wanted: Wanted, path: str, query: dict[str, str]) -> Reply:
        """The answer; never raises for what a client, a source or the cache does."""
        try:
            item = self._collector.get(wanted, seconds=self._seconds)
        except AdytonError as error:
            return refusal(error)
        reply = self._reply(item, path, query)
        left = int((fresh_until(Stored(item, None)) - self._clock()).total_seconds())
        reply.headers["Cache-Control"] = f"max-age={max(left, 0)}"
        return reply

    @staticmethod
    def _reply(item: Item, path: str, query: dict[str, str]) -> Reply:
        match item.wanted:
            case AmdVcek() | AmdChain() | AmdCrl():
                return amd.reply(item, query)
            case NvidiaRim() | NvidiaOcsp():
                return nvidia.reply(item, query)
            case _:
                return intel.reply(item, query, path)


def refusal(error: AdytonError) -> Reply:
    """404: there is none, or nobody to ask. 429: to be asked later. 503: nobody answers, or not with what was asked for."""
    if isinstance(error, TooMany):
        return _error(429, error, {"Retry-After": str(error.retry_after)})
    if isinstance(error, NotFound) or (isinstance(error, ConfigError) and error.code == "endorsement_no_source"):
        return _error(404, error, {})
    return _error(503, error, {"Retry-After": str(_DOWN_SECONDS)})


def _error(status: int, error: AdytonError, headers: dict[str, str]) -> Reply:
    headers |= {"Error-Code": error.code, "Cache-Control": "no-store"}
    body = json.dumps({"error": {"code": error.code, "message": error.message}}).encode("utf-8")
    return Reply(status, "application/json", body, headers)


def plain(status: int, text: str) -> Reply:
    """A short answer of our own."""
    return Reply(status, "text/plain; charset=utf-8", text.encode("utf-8") + b"\n", {"Cache-Control": "no-store"})
