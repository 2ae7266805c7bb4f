"""in-toto: a layout and its links, verified as the specification's section 5 says, without running anything.

The document is the one that CoCo's reference value service once took::

    {"version": "0.9", "line_normalization": true, "files": {"root.layout": "<base64>", "build.0f1e2d3c.link": "<base64>"}}

One file ends in ``.layout``; links are named ``<step>.<first 8 of the key id>.link``. Keys that come with the document
(``.pub``) are never looked at: the layout must be signed by the provider's keys. Each product of the last step becomes a
reference value under its base name. A layout with inspections is refused, since they are commands to run; a provider's
entry may say that they are not run. Sublayouts and GPG keys are refused; links that only a certificate
allows do not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from adyton.provenance import digests, dsse, times
from adyton.provenance import in_toto_metadata as metadata
from adyton.provenance.in_toto_metadata import Block, Step
from adyton.provenance.in_toto_rules import Recorded, apply
from adyton.provenance.provider import NO_INSPECTIONS, Provider
from adyton.provenance.values import MAX_VALUES, Stated, Statement, refused
from adyton.rats.types import JsonValue
from adyton.wire import b64

KIND = "in-toto"
VERSION = "0.9"
SPEC = "in-toto 0.9, 5"
MAX_FILES = 1000
MAX_COMPARED = 2_000_000


class InToto:
    """Reads the document above."""

    kind = KIND

    def recognises(self, parsed: object, document: bytes) -> bool:
        """An object with ``version`` and ``files``."""
        return isinstance(parsed, dict) and "files" in parsed and "version" in parsed

    def extract(self, parsed: Any, document: bytes, provider: Provider, now: datetime) -> Statement:
        """Verify layout, links, thresholds and rules; give the last step's products."""
        files = _files(parsed)
        root = metadata.block(_one_layout(files), "layout")
        signers = dsse.enough(root.signers(provider.keys), provider.threshold)
        layout = metadata.layout(root.content)
        if layout.expires <= now:
            raise refused(
                "the layout has expired",
                "document_expired",
                field="expires",
                expected=f"after {now.isoformat(timespec='seconds')}",
                got=layout.expires.isoformat(timespec="seconds"),
                spec=SPEC,
            )
        warnings: tuple[str, ...] = ()
        if layout.inspections:
            if NO_INSPECTIONS not in provider.accept:
                raise refused(
                    "the layout has inspections: commands that are not run here",
                    "in_toto_inspections",
                    field="inspect",
                    expected="none",
                    got=list(layout.inspections),
                    spec=SPEC,
                    hint=f"leave them out of the layout, or give its provider the word {NO_INSPECTIONS}",
                )
            warnings = tuple(f"inspection {name!r} was not run" for name in layout.inspections)
        proof = hashlib.sha256(b"in-toto\0" + hashlib.sha256(root.signed).digest())
        recorded = {}
        for step in layout.steps:
            recorded[step.name], signed = _performed(step, files)
            for digest in signed:
                proof.update(digest)
        _check_work(layout.steps, recorded)
        for step in layout.steps:
            apply(step.materials, step.name, "materials", recorded)
            apply(step.products, step.name, "products", recorded)
        return Statement(
            kind=KIND,
            values={
                name: Stated(value, "in-toto", times.micros(layout.expires), exact=False)
                for name, value in _values(recorded[layout.steps[-1].name]).items()
            },
            proof=proof.digest(),
            signers=signers,
            not_after=layout.expires,
            warnings=warnings,
        )


def _files(parsed: Any) -> dict[str, bytes]:
    """The layout and the links by base name. Other files, keys among them, are not looked at."""
    files = parsed.get("files")
    if parsed.get("version") != VERSION or not isinstance(parsed.get("line_normalization", False), bool):
        raise _malformed("version", VERSION, parsed.get("version"))
    if not isinstance(files, dict) or len(files) > MAX_FILES:
        raise _malformed("files", f"an object of at most {MAX_FILES} files", type(files).__name__)
    found: dict[str, bytes] = {}
    for path, text in files.items():
        name = path.rpartition("/")[2]
        if not name.endswith((".layout", ".link")):
            continue
        if name in found or not isinstance(text, str):
            raise _malformed("files", "each layout and link once, in base64", path)
        try:
            found[name] = b64.decode(text)
        except ValueError as error:
            raise _malformed(f"files.{path}", "base64", str(error)) from error
    return found


def _one_layout(files: Mapping[str, bytes]) -> object:
    names = [name for name in files if name.endswith(".layout")]
    if len(names) != 1:
        raise _malformed("files", "one file that ends in .layout", names)
    return dsse.read_json(files[names[0]], names[0])


def _performed(step: Step, files: Mapping[str, bytes]) -> tuple[Recorded, list[bytes]]:
    """What the step's links agree on, and the digests of what they sign.

    A link counts if the key that its file is named after may do the step and signed it; each key, whatever its ids,
    counts once.
    """
    links: dict[str, tuple[Recorded, bytes]] = {}
    for key in step.keys:
        (keyid,) = key.names
        data = files.get(f"{step.name}.{keyid[:8]}.link")
        if data is None or key.id in links:
            continue
        block: Block = metadata.block(dsse.read_json(data, step.name), step.name)
        if block.signers((key,)):
            links[key.id] = metadata.link(block.content, step.name), hashlib.sha256(block.signed).digest()
    if len(links) < step.threshold:
        raise refused(
            f"step {step.name!r} was not done by enough of those who may do it",
            "in_toto_threshold",
            field=step.name,
            expected=step.threshold,
            got=len(links),
            spec=SPEC,
            hint="a link counts if a key of the layout's signed it; each key counts once",
        )
    first, *others = (recorded for recorded, _ in links.values())
    if any(other != first for other in others):
        raise refused(
            f"those who did step {step.name!r} do not agree on what went in and came out",
            "in_toto_disagree",
            field=step.name,
            spec=SPEC,
        )
    return first, sorted(digest for _, digest in links.values())


def _check_work(steps: Iterable[Step], recorded: Mapping[str, Recorded]) -> None:
    """Every rule looks at every artifact: a layout that is signed is not for that reason allowed to take hours."""
    work = sum(
        len(step.materials) * len(recorded[step.name].materials)
        + len(step.products) * len(recorded[step.name].products)
        for step in steps
    )
    if work > MAX_COMPARED:
        raise _malformed("steps", f"at most {MAX_COMPARED} comparisons of rules with artifacts", work)


def _values(last: Recorded) -> dict[str, JsonValue]:
    if not 0 < len(last.products) <= MAX_VALUES:
        raise _malformed("products", f"1 to {MAX_VALUES} products of the last step", len(last.products))
    found: dict[str, JsonValue] = {}
    for path, digest in last.products.items():
        name = path.rpartition("/")[2]
        if not name or name in found:
            raise _malformed("products", "each base name once", path)
        found[name] = digests.values(digest, f"product {path[:80]}")
    return found


def _malformed(field: str, expected: object, got: object) -> Exception:
    return refused(
        "not a layout with its links",
        "in_toto_malformed",
        field=field,
        expected=expected,
        got=str(got)[:120],
        spec=SPEC,
    )
