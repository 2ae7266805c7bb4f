"""From a document to a verified statement: the extractors, and the one place that chooses among them.

An extractor is recognised by content. Further ones are handed to ``read`` beside ours; a document that several recognise
is refused, so that adding one never changes what another reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from adyton.errors import TooLarge
from adyton.provenance.corim import Corim
from adyton.provenance.in_toto import InToto
from adyton.provenance.plain import Plain
from adyton.provenance.provider import Provider
from adyton.provenance.slsa import Slsa
from adyton.provenance.swid import Swid
from adyton.provenance.values import MAX_DOCUMENT, Statement, refused
from adyton.wire import strict_json


class Extractor(Protocol):
    """Reads one kind of document.

    Laws: ``recognises`` looks at the form alone and never raises; ``extract`` returns only what it verified against
    ``provider``'s keys, or raises errors of the tree; both are pure.
    """

    @property
    def kind(self) -> str:
        """What ``Provider.kinds`` calls it."""
        ...

    def recognises(self, parsed: object, document: bytes) -> bool:
        """Whether the document has this kind's form. ``parsed`` is its JSON, ``None`` if it is none."""
        ...

    def extract(self, parsed: Any, document: bytes, provider: Provider, now: datetime) -> Statement:
        """Verify and read it."""
        ...


EXTRACTORS: tuple[Extractor, ...] = (Plain(), InToto(), Slsa(), Corim(), Swid())


def read(
    document: bytes, provider: Provider, *, now: datetime, extractors: Sequence[Extractor] = EXTRACTORS
) -> Statement:
    """What ``document`` says, verified; the kind must be one that ``provider`` may publish, before it is looked into."""
    if len(document) > MAX_DOCUMENT:
        raise TooLarge(f"a document has at most {MAX_DOCUMENT} bytes", code="document_too_large", got=len(document))
    try:
        parsed: object = strict_json.parse(document, max_size=MAX_DOCUMENT)
    except ValueError:
        parsed = None
    fitting = [extractor for extractor in extractors if extractor.recognises(parsed, document)]
    if len(fitting) != 1:
        raise refused(
            "the document is of no kind that is read here" if not fitting else "the document is of several kinds",
            "document_unrecognised",
            field="document",
            expected=[extractor.kind for extractor in extractors],
            got=[extractor.kind for extractor in fitting],
        )
    (extractor,) = fitting
    if extractor.kind not in provider.kinds:
        raise refused(
            "the provider may not publish documents of this kind",
            "provider_kind",
            field="kind",
            expected=sorted(provider.kinds),
            got=extractor.kind,
            hint="add the kind to the provider's entry if it is wanted",
        )
    return extractor.extract(parsed, document, provider, now)
