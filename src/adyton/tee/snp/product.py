"""Generations of chips: how a report and a certificate name them, and what differs between them (evidence 4.1, 4.2)."""

from __future__ import annotations

import re
from enum import Enum

_NAME = re.compile(r"(Milan|Genoa|Bergamo|Siena|Turin)(-[A-Z][0-9])?\Z")
_SIBLINGS = {"Bergamo": "Genoa", "Siena": "Genoa"}  # they are certified under Genoa's root


class Product(Enum):
    """A generation with a root key of its own. The value is its name in certificates and in AMD's key service."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"

    @property
    def has_fmc(self) -> bool:
        """Whether its TCB version counts the FMC firmware, in Turin's layout."""
        return self is Product.TURIN

    @property
    def hardware_id_size(self) -> int:
        """Bytes of the hardware id in a VCEK. Turin's report pads it to 64 with zeros."""
        return 8 if self is Product.TURIN else 64


def by_cpuid(family: int, model: int) -> Product | None:
    """The generation of a CPUID family and model; ``None`` if there is no root for it."""
    if family == 0x19:
        if model <= 0x0F:
            return Product.MILAN
        if 0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF:
            return Product.GENOA
    elif family == 0x1A and model <= 0x11:
        return Product.TURIN
    return None


def by_name(name: str) -> Product | None:
    """The generation of a product name as certificates have it (``Milan-B0``, ``Genoa``); matched whole, no prefix."""
    match = _NAME.match(name)
    return Product(_SIBLINGS.get(match[1], match[1])) if match else None
