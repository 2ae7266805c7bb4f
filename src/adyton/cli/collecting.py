"""Where endorsements come from, for commands that may fetch them: cache, sources, and the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adyton.cli.files import read_text
from adyton.cli.places import places
from adyton.errors import AdytonError, ConfigError

if TYPE_CHECKING:
    from adyton.collateral.cache import Cache
    from adyton.collateral.collector import Collector
    from adyton.collateral.source import EndorsementSource
    from adyton.crypto.x509 import EndorsementSet
    from adyton.rats.ports import Progress

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Collecting:
    """An open cache, and who gets what is not in it."""

    cache: Cache
    collector: Collector


def now() -> datetime:
    """The time, read here and handed down."""
    return datetime.now(UTC)  # noqa: TID251 -- the clock is read here, and handed down


def cache_option(command: _F) -> _F:
    """``--cache``."""
    return click.option(
        "--cache",
        "cache_directory",
        type=click.Path(file_okay=False, path_type=Path),
        help="The cache of endorsements, made if absent [default: under Adyton's home].",
    )(command)


def source_options(command: _F) -> _F:
    """``--from``, ``--offline`` and ``--ca``: which sources there are. They are never taken from evidence."""
    for option in (
        click.option(
            "--ca",
            "ca_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="PEM authority that certifies the sources named with --from.",
        ),
        click.option("--offline", is_flag=True, help="Ask nobody: the cache alone."),
        click.option(
            "--from",
            "from_",
            multiple=True,
            metavar="[KIND=]URL",
            help="Ask this source, first come first: kds, pcs, root-crl, pccs, thim, rim or ocsp; without KIND another"
            " `adyton collateral serve`. Repeatable. Default: the vendors' own services.",
        ),
    ):
        command = option(command)
    return command


def sources(from_: tuple[str, ...], ca_file: Path | None, *, offline: bool) -> list[EndorsementSource]:
    """What these options mean. ``ConfigError`` if they contradict each other."""
    from adyton.collateral import services

    if offline:
        if from_:
            raise ConfigError("--offline and --from contradict each other", code="usage", field="offline")
        return []
    if not from_:
        return services.vendors(now)
    ca_pem = read_text(ca_file) if ca_file else None
    return [services.source(text, clock=now, ca_pem=ca_pem) for text in from_]


@contextmanager
def opened(
    cache_directory: Path | None,
    from_: tuple[str, ...] = (),
    ca_file: Path | None = None,
    *,
    offline: bool = False,
    background: bool = False,
    per_minute: int | None = None,
) -> Iterator[Collecting]:
    """Cache and collector for as long as the context lasts."""
    from adyton.collateral.budget import Limits
    from adyton.collateral.cache import Cache
    from adyton.collateral.collector import Collector

    limits = Limits(per_minute=per_minute, slower={}) if per_minute is not None else Limits()
    with (
        Cache(cache_directory or places().collateral) as cache,
        Collector(
            cache, sources(from_, ca_file, offline=offline), clock=now, limits=limits, background=background
        ) as collector,
    ):
        yield Collecting(cache, collector)


def gathered(
    tee: str,
    evidence: bytes,
    at: datetime,
    problems: list[AdytonError],
    *,
    from_: tuple[str, ...] = (),
    ca_file: Path | None = None,
    cache_directory: Path | None = None,
    edition: str = "early",
    progress: Progress | None = None,
) -> EndorsementSet:
    """What evidence needs, valid at ``at``: for commands that verify and were asked to fetch. ``problems``: what could not be had."""
    from adyton.collateral.gather import gather

    with opened(cache_directory, from_, ca_file) as collecting_:
        return gather(tee, evidence, collecting_.collector, at, edition=edition, problems=problems, progress=progress)
