"""Whatever a service answers, it is what was asked for, or refused; and whatever a client asks, it is a name or refused."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton.collateral import services, wanted
    from adyton.collateral.front import route
    from adyton.collateral.items import Item
    from adyton.collateral.needs import needs
    from adyton.collateral.source import Response
    from adyton.errors import AdytonError, EndorsementMalformed

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ASKED = [
    wanted.parse(name)
    for name in (
        f"amd/vcek/Genoa/{'00' * 64}/1-2-3-4", "amd/chain/Genoa/vcek", "amd/crl/Genoa", "intel/root-crl", "intel/pck-crl/platform",
        "intel/tcb/tdx/00806f050000/early", "intel/identity/qe/early", "intel/evaluation-numbers/sgx", "azure/thim", "nvidia/rim/X",
        f"nvidia/ocsp/{'00' * 48}/{'00' * 48}/01", f"intel/pck/{'00' * 16}/{'00' * 384}/{'00' * 16}/0000/0000",
    )
]  # fmt: skip
CHAINS = (
    "SGX-PCK-CRL-Issuer-Chain", "TCB-Info-Issuer-Chain", "SGX-Enclave-Identity-Issuer-Chain",
    "TCB-Evaluation-Data-Numbers-Issuer-Chain", "SGX-PCK-Certificate-Issuer-Chain",
)  # fmt: skip
TEES = ("snp", "sgx", "tdx", "az-snp-vtpm", "az-tdx-vtpm", "nvidia")


def one(data: bytes) -> None:
    kind, rest = data[0] if data else 0, data[1:]
    asked = ASKED[kind % len(ASKED)]
    chain, _, body = rest.partition(b"\0")
    headers = {name.lower(): chain.decode("latin-1") for name in CHAINS}
    try:
        taken = services.take(asked, Response(200, headers, body, "https://fuzz"))
        Item.read(asked, *taken, url="https://fuzz", fetched=NOW)
    except (ValueError, EndorsementMalformed):
        pass
    except AdytonError as error:
        assert error.code
    try:
        found = route("/" + rest.decode("latin-1"))
        assert found is None or wanted.parse(found[0].name) == found[0]
    except ValueError:
        pass
    with contextlib.suppress(AdytonError):
        needs(TEES[kind % len(TEES)], rest)


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
