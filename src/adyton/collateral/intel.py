"""Intel's provisioning certification service, API v4, and PCCS, which has the same paths (evidence 3.2).

::

    /sgx/certification/v4/pckcrl?ca=platform|processor&encoding=der       SGX-PCK-CRL-Issuer-Chain
    /sgx|tdx/certification/v4/tcb?fmspc=..&update=early|standard          TCB-Info-Issuer-Chain
    /sgx|tdx/certification/v4/qe/identity?update=..                       SGX-Enclave-Identity-Issuer-Chain
    /sgx/certification/v4/qve/identity?update=..                          SGX-Enclave-Identity-Issuer-Chain
    /sgx|tdx/certification/v4/tcbevaluationdatanumbers                    TCB-Evaluation-Data-Numbers-Issuer-Chain
    /sgx/certification/v4/pckcert?encrypted_ppid=..&cpusvn=..&pcesvn=..&pceid=..[&qeid=..]
    /sgx/certification/v4/rootcacrl                                       PCCS only, in hex
    https://certificates.trustedservices.intel.com/IntelSGXRootCA.der     the same from Intel

Issuer chains are URL-encoded PEM in the header named on the right. ``tcbEvaluationDataNumber=`` may stand for ``update=``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from adyton.collateral import pck, pem
from adyton.collateral.items import Item
from adyton.collateral.source import Reply, Request, Response
from adyton.collateral.wanted import (
    EDITIONS,
    IntelEvaluationNumbers,
    IntelIdentity,
    IntelPck,
    IntelPckCrl,
    IntelRootCrl,
    IntelTcbInfo,
    Wanted,
)
from adyton.crypto.x509 import Certificate

BASE = "https://api.trustedservices.intel.com"
ROOT_CRL_BASE = "https://certificates.trustedservices.intel.com"
ROOT_CRL_PATH = "/IntelSGXRootCA.der"

_ROOT_CRL_URI = ROOT_CRL_BASE + ROOT_CRL_PATH
_PATH = re.compile(r"/(sgx|tdx)/certification/v4/([a-z/]+)\Z")
_CHAIN: dict[type, str] = {
    IntelPckCrl: "SGX-PCK-CRL-Issuer-Chain",
    IntelTcbInfo: "TCB-Info-Issuer-Chain",
    IntelIdentity: "SGX-Enclave-Identity-Issuer-Chain",
    IntelEvaluationNumbers: "TCB-Evaluation-Data-Numbers-Issuer-Chain",
    IntelPck: "SGX-PCK-Certificate-Issuer-Chain",
}
_ALSO: dict[type, str] = {IntelTcbInfo: "SGX-TCB-Info-Issuer-Chain"}  # what some caches still call it
_PCK = {"qeid": 16, "encrypted_ppid": 384, "cpusvn": 16, "pcesvn": 2, "pceid": 2}


def ask(wanted: Wanted, *, cache: bool) -> Request | None:
    """How the service is asked; ``None`` if it has no such thing. ``cache``: it is a PCCS, not Intel's own."""
    v4 = "/sgx/certification/v4"
    match wanted:
        case IntelRootCrl():
            return Request(f"{v4}/rootcacrl" if cache else ROOT_CRL_PATH)
        case IntelPckCrl():
            return Request(f"{v4}/pckcrl?ca={wanted.ca}&encoding=der")
        case IntelTcbInfo():
            fmspc = wanted.fmspc.hex().upper()
            return Request(f"/{wanted.tee}/certification/v4/tcb?fmspc={fmspc}&{_edition(wanted.edition)}")
        case IntelIdentity():
            tee, name = ("tdx", "qe") if wanted.enclave == "td_qe" else ("sgx", wanted.enclave)
            return Request(f"/{tee}/certification/v4/{name}/identity?{_edition(wanted.edition)}")
        case IntelEvaluationNumbers():
            return Request(f"/{wanted.tee}/certification/v4/tcbevaluationdatanumbers")
        case IntelPck():
            query = (
                f"encrypted_ppid={wanted.encrypted_ppid.hex()}&cpusvn={wanted.cpusvn.hex()}"
                f"&pcesvn={wanted.pcesvn.hex()}&pceid={wanted.pceid.hex()}"
            )
            return Request(f"{v4}/pckcert?{query}" + (f"&qeid={wanted.qe_id.hex()}" if cache else ""))
        case _:
            return None


def _edition(edition: str) -> str:
    return f"update={edition}" if edition in EDITIONS else f"tcbEvaluationDataNumber={edition}"


def take(wanted: Wanted, response: Response) -> tuple[bytes, bytes]:
    """Body and issuers of an answer. ``ValueError`` if it cannot be that."""
    names = (_CHAIN.get(type(wanted)), _ALSO.get(type(wanted)))
    found = next((value for name in names if name and (value := response.headers.get(name.lower()))), None)
    if found is None and not isinstance(wanted, IntelRootCrl):
        raise ValueError(f"the header {names[0]} is missing")
    chain = pem.lines(unquote_to_bytes(found)) if found else b""
    if isinstance(wanted, IntelPckCrl | IntelRootCrl):
        return pem.as_der(response.body), chain
    return (pem.lines(response.body) if isinstance(wanted, IntelPck) else response.body), chain


def route(path: str, query: Mapping[str, str]) -> Wanted | None:
    """What a request of somebody else's is for; ``None`` if it is not one to this service. ``ValueError`` if it is wrong."""
    match = _PATH.match(path)
    if match is None:
        return IntelRootCrl() if path == ROOT_CRL_PATH else None
    tee, name = match[1], match[2]
    if tee == "tdx" and name not in {"tcb", "qe/identity", "tcbevaluationdatanumbers"}:
        return None
    match name:
        case "pckcrl":
            _only(query, "ca", "encoding")
            return IntelPckCrl(query.get("ca", "").lower())
        case "rootcacrl":
            return IntelRootCrl()
        case "crl":
            _only(query, "uri")
            if query.get("uri") != _ROOT_CRL_URI:
                raise ValueError("only the root's CRL can be asked for by its address")
            return IntelRootCrl()
        case "tcb":
            _only(query, "fmspc", "update", "tcbEvaluationDataNumber")
            return IntelTcbInfo(tee, _hex(query, "fmspc", 6), _asked_edition(query))
        case "qe/identity" | "qve/identity":
            _only(query, "update", "tcbEvaluationDataNumber")
            return IntelIdentity("td_qe" if tee == "tdx" else name.partition("/")[0], _asked_edition(query))
        case "tcbevaluationdatanumbers":
            _only(query)
            return IntelEvaluationNumbers(tee)
        case "pckcert":
            _only(query, *_PCK)
            sized = {name: _hex(query, name, size) for name, size in _PCK.items() if name != "qeid"}
            qe_id = _hex(query, "qeid", 16) if "qeid" in query else bytes(16)
            return IntelPck(qe_id, sized["encrypted_ppid"], sized["cpusvn"], sized["pcesvn"], sized["pceid"])
        case _:
            return None


def _asked_edition(query: Mapping[str, str]) -> str:
    if "update" in query and "tcbEvaluationDataNumber" in query:
        raise ValueError("update and tcbEvaluationDataNumber exclude each other")
    return query.get("tcbEvaluationDataNumber") or query.get("update", "standard").lower()  # Intel's default


def _only(query: Mapping[str, str], *names: str) -> None:
    if set(query) - set(names):
        raise ValueError(f"known parameters: {', '.join(names) or 'none'}")


def _hex(query: Mapping[str, str], name: str, size: int) -> bytes:
    if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * size}}}", query.get(name, "")):
        raise ValueError(f"{name} is {2 * size} hexadecimal digits")
    return bytes.fromhex(query[name])


def reply(item: Item, query: Mapping[str, str], path: str) -> Reply:
    """The answer as PCCS gives it: CRLs in hex unless another encoding is asked for."""
    name = _CHAIN.get(type(item.wanted))
    headers = {name: quote(item.chain, safe="")} if name else {}
    if isinstance(item.wanted, IntelPckCrl | IntelRootCrl):
        return _crl(item, headers, query.get("encoding", "").lower(), path)
    if isinstance(item.wanted, IntelPck):
        said = pck.read(Certificate(pem.as_der(item.body)))
        headers |= {
            "SGX-TCBm": said.tcbm.hex().upper(),
            "SGX-FMSPC": said.fmspc.hex().upper(),
            "SGX-PCK-Certificate-CA-Type": said.ca,
        }
        return Reply(200, "application/x-pem-file", item.body, headers)
    return Reply(200, "application/json", item.body, headers)


def _crl(item: Item, headers: dict[str, str], encoding: str, path: str) -> Reply:
    if encoding == "der" or path.endswith(("/crl", ROOT_CRL_PATH)):
        return Reply(200, "application/pkix-crl", item.body, headers)
    if encoding == "pem":
        return Reply(200, "application/x-pem-file", pem.of_crl(item.body), headers)
    return Reply(200, "text/plain", item.body.hex().encode("ascii"), headers)
