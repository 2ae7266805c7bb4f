"""Sources over HTTP: the vendors' own services, and caches that speak as they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from adyton.collateral import amd, azure, intel, nvidia
from adyton.collateral.source import Answer, EndorsementSource, Request, Response
from adyton.collateral.transport import Transport, max_age
from adyton.collateral.wanted import AmdChain, AmdCrl, AmdVcek, AzureThim, IntelRootCrl, NvidiaOcsp, NvidiaRim, Wanted
from adyton.errors import AdytonError, ConfigError, EndorsementMalformed

Ask = Callable[[Wanted], Request | None]


@dataclass(frozen=True, slots=True)
class HttpSource:
    """One base URL and the way in which it is asked. An ``EndorsementSource``."""

    transport: Transport
    ask: Ask

    @property
    def name(self) -> str:
        """Its base URL."""
        return self.transport.base

    def offers(self, wanted: Wanted) -> bool:
        """Whether there is a request for that."""
        return self.ask(wanted) is not None

    def get(self, wanted: Wanted, *, seconds: float) -> Answer:
        """As ``EndorsementSource``."""
        request = self.ask(wanted)
        if request is None:
            raise ValueError("this source does not offer that")
        response = self.transport.send(request, seconds=seconds)
        try:
            body, chain = take(wanted, response)
        except (ValueError, AdytonError) as error:
            raise EndorsementMalformed(
                f"{self.name} answers with something else than {wanted.name[:120]}: {error}"[:400],
                code="endorsement_unusable",
                field=wanted.name,
                got=response.url[:300],
                hint="ask another source; nothing of it was kept",
            ) from error
        return Answer(body, chain, response.url, max_age(response.headers))


def take(wanted: Wanted, response: Response) -> tuple[bytes, bytes]:
    """Body and issuers of a service's answer, in the form in which they are kept. ``ValueError`` if it cannot be that."""
    match wanted:
        case AmdVcek() | AmdChain() | AmdCrl():
            return amd.take(wanted, response)
        case AzureThim():
            return azure.take(wanted, response)
        case NvidiaRim() | NvidiaOcsp():
            return nvidia.take(wanted, response)
        case _:
            return intel.take(wanted, response)


def _pcs(wanted: Wanted) -> Request | None:
    return None if isinstance(wanted, IntelRootCrl) else intel.ask(wanted, cache=False)


def _root_crl(wanted: Wanted) -> Request | None:
    return intel.ask(wanted, cache=False) if isinstance(wanted, IntelRootCrl) else None


def _pccs(wanted: Wanted) -> Request | None:
    return intel.ask(wanted, cache=True)


def _ocsp(wanted: Wanted) -> Request | None:
    return nvidia.ask_ocsp(wanted, cache=False)


def _proxy(wanted: Wanted) -> Request | None:
    return (
        amd.ask(wanted)
        or intel.ask(wanted, cache=True)
        or nvidia.ask_rim(wanted)
        or nvidia.ask_ocsp(wanted, cache=True)
    )


KINDS: Mapping[str, tuple[str, Ask]] = {
    "kds": ("AMD's key distribution service", amd.ask),
    "pcs": ("Intel's provisioning certification service", _pcs),
    "root-crl": ("where Intel's root CRL lies", _root_crl),
    "pccs": ("a PCCS", _pccs),
    "thim": ("Azure's metadata service", azure.ask),
    "rim": ("NVIDIA's RIM service", nvidia.ask_rim),
    "ocsp": ("NVIDIA's OCSP responder", _ocsp),
    "proxy": ("another `adyton collateral serve`", _proxy),
}
VENDORS = {
    "kds": amd.BASE,
    "pcs": intel.BASE,
    "root-crl": intel.ROOT_CRL_BASE,
    "rim": nvidia.RIM_BASE,
    "ocsp": nvidia.OCSP_BASE,
}


def source(text: str, *, clock: Callable[[], datetime], ca_pem: str | None = None) -> EndorsementSource:
    """From ``KIND=URL``, or a URL alone, which is a ``proxy``. ``ConfigError`` if it cannot be one."""
    kind, equals, url = text.partition("=")
    if not equals or "/" in kind:
        kind, url = "proxy", text
    if kind not in KINDS:
        raise ConfigError(
            "no such kind of source", code="source_kind", field="from", expected=sorted(KINDS), got=kind[:40]
        )
    return HttpSource(Transport(url, clock=clock, ca_pem=ca_pem), KINDS[kind][1])


def vendors(clock: Callable[[], datetime]) -> list[EndorsementSource]:
    """The vendors' own services. Azure's is for machines there, and only if named."""
    return [source(f"{kind}={url}", clock=clock) for kind, url in VENDORS.items()]
