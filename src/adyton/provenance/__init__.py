"""Reference values from those who make things: documents read and verified, and what of them may be published.

``reading.read`` verifies a document against a ``provider.Provider`` that the owner configured, ``admission.admit``
decides whether what it states may be published. Both are pure.
"""

from adyton.provenance.admission import admit
from adyton.provenance.provider import Provider, Settings, provider
from adyton.provenance.reading import EXTRACTORS, Extractor, read
from adyton.provenance.values import Current, Provided, Seen, Standing, State, Stated, Statement

__all__ = [
    "EXTRACTORS",
    "Current",
    "Extractor",
    "Provided",
    "Provider",
    "Seen",
    "Settings",
    "Standing",
    "State",
    "Stated",
    "Statement",
    "admit",
    "provider",
    "read",
]
