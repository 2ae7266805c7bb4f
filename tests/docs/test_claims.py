"""``docs/claims.md`` against evidence: every claim that is delivered stands there with its type, and no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.docs import forged

from adyton import tee as tees
from adyton.cli.verdict import UNCHECKED, meaning
from adyton.rats.types import SHARED_CLAIMS, JsonValue, VerifiedEvidence

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "claims.md"
TEES = (*tees.ROOMS,)
# Sections whose claims a TEE has besides its own.
BASES = {
    "sgx": ("Quotes",),
    "tdx": ("Quotes",),
    "az-snp-vtpm": ("snp",),
    "az-tdx-vtpm": ("tdx", "Quotes"),
}
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|\+00:00)")
FORMS: dict[str, Callable[[JsonValue], bool]] = {
    "hex": lambda value: isinstance(value, str) and re.fullmatch(r"([0-9a-f]{2})*", value) is not None,
    "hex number": lambda value: isinstance(value, str) and re.fullmatch(r"[0-9a-f]+", value) is not None,
    "0x number": lambda value: isinstance(value, str) and re.fullmatch(r"0x[0-9a-f]+", value) is not None,
    "integer": lambda value: type(value) is int,
    "boolean": lambda value: type(value) is bool,
    "text": lambda value: isinstance(value, str),
    "time": lambda value: isinstance(value, str) and _TIME.fullmatch(value) is not None,
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}


class Section(NamedTuple):
    """Claims with their types, CoCo's names, members of ``tcb``."""

    claims: dict[str, str]
    coco: set[str]
    tcb: set[str]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")] if line.startswith("|") else []


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def coco_names(cell: str) -> Iterator[str]:
    """The top-level names in front of what is said about them in parentheses."""
    for name in names(re.sub(r"\([^)]*\)", "", cell)):
        yield name.split(".")[0]


@cache
def sections() -> dict[str, Section]:
    """By the wire name, or the heading's first word."""
    found: dict[str, Section] = {}
    for text in re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]:
        heading, *lines = text.splitlines()
        section = found.setdefault(re.split(r"[:` ]", heading.strip("`"))[0], Section({}, set(), set()))
        kind = ""
        for line in lines:
            row = cells(line)
            if not row:
                kind = ""
            elif not kind:
                kind = row[0]
            elif kind == "claim":
                for name in names(row[0]):
                    assert name not in section.claims, f"{heading}: {name} stands there twice"
                    section.claims[name] = row[1]
                section.coco.update(coco_names(row[3] if len(row) > 3 else ""))
            elif kind == "CoCo's name":
                section.coco.update(names(row[0]))
            elif kind == "member of `tcb`":
                section.tcb.update(names(row[0]))
    return found


def told(tee: str) -> Section:
    """What stands in a TEE's section and in those that it builds on; its own word comes first."""
    parts = [sections()[name] for name in (*reversed(BASES.get(tee, ())), tee)]
    claims: dict[str, str] = {}
    for part in parts:
        claims |= part.claims
    return Section(claims, set().union(*(part.coco for part in parts)), set().union(*(part.tcb for part in parts)))


def fits(form: str, value: JsonValue) -> bool:
    return any(FORMS[one.strip()](value) for one in re.split(r",| or ", form) if one.strip())


def unchecked_names() -> dict[str, set[str]]:
    """Name -> the TEEs that may have it. Capital letters and what is around them stand for anything."""
    text = DOCUMENT.read_text().split("## What was not checked", 1)[1]
    rows = [cells(line) for line in text.splitlines() if line.startswith("| `")]
    return {names(row[0])[0]: set(TEES) if row[2] == "all" else set(names(row[2])) for row in rows}


def pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"NAME|REASON", ".+", name.replace(".", r"\.")).replace("NN", "[0-9]{2}"))


def check(tee: str, pieces: Iterable[VerifiedEvidence]) -> None:
    """Everything that is delivered stands in the document."""
    section = told(tee)
    unchecked = [pattern(name) for name, where in unchecked_names().items() if tee in where]
    for piece in pieces:
        assert not set(SHARED_CLAIMS) - set(piece.claims)
        for name, value in piece.claims.items():
            assert name in section.claims, f"{tee}: {name} is not documented"
            assert fits(section.claims[name], value), f"{tee}: {name} is {value!r}, not {section.claims[name]}"
        assert not set(piece.coco_claims) - section.coco, f"{tee}: CoCo's names"
        assert not set(piece.tcb) - section.tcb, f"{tee}: members of tcb"
        for name in piece.unchecked:
            assert any(one.fullmatch(name) for one in unchecked), f"{tee}: {name} in unchecked"


@pytest.mark.parametrize("tee", TEES)
def test_what_is_delivered_is_documented(tee: str) -> None:
    check(tee, forged.of(tee))


@pytest.mark.parametrize("tee", TEES)
def test_what_is_documented_is_delivered(tee: str) -> None:
    section, pieces = sections()[tee], forged.of(tee)
    assert not set(section.claims) - {name for piece in pieces for name in piece.claims}, "claims"
    assert not section.coco - {name for piece in pieces for name in piece.coco_claims}, "CoCo's names"
    assert not section.tcb - {name for piece in pieces for name in piece.tcb}, "members of tcb"


@pytest.mark.parametrize("tee", ["sgx", "tdx"])
def test_what_quotes_have_in_common_is_delivered(tee: str) -> None:
    common, pieces = sections()["Quotes"], forged.of(tee)
    assert not set(common.claims) - {name for piece in pieces for name in piece.claims}
    assert not common.coco - {name for piece in pieces for name in piece.coco_claims}
    assert not common.tcb - {name for piece in pieces for name in piece.tcb}


def test_what_can_be_unchecked_is_documented_and_happens() -> None:
    documented = unchecked_names()
    for name, where in documented.items():
        happened = {
            tee for tee in TEES for piece in forged.of(tee) if any(map(pattern(name).fullmatch, piece.unchecked))
        }
        assert happened == where, name
    assert set(UNCHECKED) == {name for name in documented if not re.search("[A-Z]", name)}, "what a reader is told"
    for name in {name for tee in TEES for piece in forged.of(tee) for name in piece.unchecked}:
        assert meaning(name) or name.startswith("event_log "), name


def test_shared_claims() -> None:
    assert set(sections()["What"].claims) == set(SHARED_CLAIMS)


@pytest.mark.vectors
def test_what_real_evidence_delivers_is_documented(
    vectors: Path, manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adyton.cli import vectors as runner

    seen: list[tuple[str, VerifiedEvidence]] = []
    original = tees.verify

    def noting(tee: str, evidence: bytes, **arguments: Any) -> VerifiedEvidence:
        verified = original(tee, evidence, **arguments)
        seen.append((tee, verified))
        return verified

    monkeypatch.setattr(tees, "verify", noting)
    for case in manifest["cases"]:
        runner.run(manifest, vectors, case)
    assert len({tee for tee, _ in seen}) >= 8
    for tee, piece in seen:
        check(tee, [piece])
