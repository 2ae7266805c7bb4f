"""What a PCK certificate says of its platform, in the form in which a certificate service repeats it (evidence 3.2)."""

from __future__ import annotations

from typing import NamedTuple

from adyton.crypto.chain import Role
from adyton.crypto.x509 import Certificate
from adyton.errors import EndorsementMalformed
from adyton.tee.dcap import pck

_ROLE = Role("sgx", "pck", "evidence 3.2")


class Platform(NamedTuple):
    """FMSPC (6 bytes), ``tcbm`` (CPUSVN 16, then PCESVN 2, little-endian), and the CA: ``platform`` or ``processor``."""

    fmspc: bytes
    tcbm: bytes
    ca: str


def read(certificate: Certificate) -> Platform:
    """What it says, or ``EndorsementMalformed`` if it is no PCK certificate of Intel's."""
    said = pck.read(certificate, _ROLE)
    for ca in ("platform", "processor"):
        if f"SGX PCK {ca.title()} CA".encode() in certificate.issuer:
            return Platform(said.fmspc, said.cpusvn + said.pcesvn.to_bytes(2, "little"), ca)
    raise _ROLE.error(
        EndorsementMalformed, "issuer", "issued by neither CA", expected="SGX PCK Platform or Processor CA"
    )
