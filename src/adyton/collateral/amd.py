"""AMD's key distribution service (57230, chapter 4; evidence 4.2): how it is asked, how it answers, and both for a server.

::

    /vcek/v1/{product}/{hwid}?[fmcSPL=..&]blSPL=..&teeSPL=..&snpSPL=..&ucodeSPL=..    DER
    /vcek/v1/{product}/cert_chain    /vlek/v1/{product}/cert_chain                    PEM: ASK or ASVK, then ARK
    /vcek/v1/{product}/crl           /vlek/v1/{product}/crl                           DER
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from adyton.collateral import pem
from adyton.collateral.items import Item
from adyton.collateral.source import Reply, Request, Response
from adyton.collateral.wanted import AmdChain, AmdCrl, AmdVcek, Wanted
from adyton.tee.snp.product import Product, by_name

BASE = "https://kdsintf.amd.com"
_LEVELS = {"blSPL": "boot_loader", "teeSPL": "tee", "snpSPL": "snp", "ucodeSPL": "microcode", "fmcSPL": "fmc"}
_PATH = re.compile(r"/(vcek|vlek)/v1/([A-Z][a-z]+)/(cert_chain|crl|[0-9a-fA-F]{16}|[0-9a-fA-F]{128})\Z")


def ask(wanted: Wanted) -> Request | None:
    """How the service is asked; ``None`` if it has no such thing."""
    match wanted:
        case AmdVcek():
            fmc = f"fmcSPL={wanted.fmc:02d}&" if wanted.fmc is not None else ""
            query = (
                f"{fmc}blSPL={wanted.boot_loader:02d}&teeSPL={wanted.tee:02d}"
                f"&snpSPL={wanted.snp:02d}&ucodeSPL={wanted.microcode:02d}"
            )
            return Request(f"/vcek/v1/{wanted.product.value}/{wanted.chip_id.hex()}?{query}")
        case AmdChain():
            return Request(f"/{wanted.key}/v1/{wanted.product.value}/cert_chain")
        case AmdCrl():
            return Request(f"/vcek/v1/{wanted.product.value}/crl")
        case _:
            return None


def take(wanted: Wanted, response: Response) -> tuple[bytes, bytes]:
    """Body and issuers of an answer. ``ValueError`` if it cannot be that."""
    if isinstance(wanted, AmdChain):
        return pem.lines(response.body), b""
    return pem.as_der(response.body), b""


def route(path: str, query: Mapping[str, str]) -> Wanted | None:
    """What a request of somebody else's is for; ``None`` if it is not one to this service. ``ValueError`` if it is wrong."""
    match = _PATH.match(path)
    product = by_name(match[2]) if match else None
    if match is None:
        return None
    if product is None:
        raise ValueError("no such product")
    kind, rest = match[1], match[3]
    if rest in {"cert_chain", "crl"}:
        if query:
            raise ValueError("no parameters are known here")
        return AmdCrl(product) if rest == "crl" else AmdChain(product, kind)
    if kind != "vcek":
        raise ValueError("a VLEK is had from the cloud's provider")
    return _vcek(product, bytes.fromhex(rest), query)


def _vcek(product: Product, chip_id: bytes, query: Mapping[str, str]) -> AmdVcek:
    unknown = set(query) - set(_LEVELS)
    if unknown or not all(re.fullmatch(r"[0-9]{1,3}", value) for value in query.values()):
        raise ValueError("parameters are blSPL, teeSPL, snpSPL, ucodeSPL and fmcSPL, each a number up to 255")
    levels = {member: int(query.get(name, "0")) for name, member in _LEVELS.items()}  # what is not said is zero (57230)
    if not product.has_fmc:
        if levels.pop("fmc"):
            raise ValueError("this product has no fmcSPL")
        return AmdVcek(product, chip_id, **levels)
    return AmdVcek(product, chip_id, **levels)


def reply(item: Item, _query: Mapping[str, str]) -> Reply:
    """The answer as the service gives it."""
    if isinstance(item.wanted, AmdChain):
        return Reply(200, "application/x-pem-file", item.body)
    kind = "application/pkix-crl" if isinstance(item.wanted, AmdCrl) else "application/octet-stream"
    return Reply(200, kind, item.body)
