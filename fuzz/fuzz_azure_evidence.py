"""Azure's evidence and HyperEnclave's: any bytes are a value or malformed, and values encode to the same bytes."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime

import atheris
from cryptography.hazmat.primitives.asymmetric import rsa

with atheris.instrument_imports():
    from adyton.devtee.az_vtpm import AzureGuest
    from adyton.devtee.dcap import DcapForge, td_body
    from adyton.devtee.hyperenclave import HyperEnclaveForge
    from adyton.errors import MalformedEvidence
    from adyton.tee.az_vtpm import json_form, snp, tdx
    from adyton.tee.az_vtpm.abi import HclReport, RuntimeClaims
    from adyton.tee.hyperenclave.abi import HyperEnclaveQuote
    from adyton.tee.tdx.abi import TdReport

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FORGE = DcapForge.new(NOW)
GUEST = AzureGuest(
    hardware=lambda data: TdReport(report_data=data).encode(),
    td_quote=lambda _: FORGE.quote(td_body()).encode(),
    ak=rsa.generate_private_key(65537, 2048),
)
BASES = (GUEST.hcl_report(), HyperEnclaveForge(now=NOW).quote(), GUEST.evidence(b"nonce"), GUEST.runtime_claims())


def one(data: bytes) -> None:
    if data[:1] == b"\xff" and len(data) > 4:  # something that is nearly right
        base = bytearray(BASES[data[1] % len(BASES)])
        at = int.from_bytes(data[2:4], "big") % len(base)
        base[at : at + len(data) - 4] = data[4:]
        data = bytes(base)
    for parse in (json_form.parse, RuntimeClaims.parse, snp.show, tdx.show):
        with contextlib.suppress(MalformedEvidence):
            parse(data)
    for kind in (HclReport, HyperEnclaveQuote):
        try:
            parsed = kind.parse(data)
        except MalformedEvidence:
            continue
        assert parsed.encode() == data


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
