"""Azure's metadata service: VCEK and chain of the machine that asks (THIM; evidence 5)."""

from __future__ import annotations

from adyton.collateral import pem
from adyton.collateral.source import Request, Response
from adyton.collateral.wanted import AzureThim, Wanted
from adyton.crypto.x509 import MAX_SIZE
from adyton.wire import strict_json

BASE = "http://169.254.169.254"  # link-local: it never leaves the machine's own host
PATH = "/metadata/THIM/amd/certification"


def ask(wanted: Wanted) -> Request | None:
    """How the service is asked; ``None`` if it has no such thing."""
    return Request(PATH, {"Metadata": "true"}) if isinstance(wanted, AzureThim) else None


def take(_wanted: Wanted, response: Response) -> tuple[bytes, bytes]:
    """VCEK, ASK and ARK in PEM. ``ValueError`` if it cannot be that."""
    value = strict_json.parse(response.body, max_size=MAX_SIZE)
    parts = [value.get(name) for name in ("vcekCert", "certificateChain")] if isinstance(value, dict) else []
    if len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise ValueError("vcekCert or certificateChain is missing")
    return pem.lines("\n".join(map(str, parts)).encode("utf-8")), b""
