"""Enclaves' formats: the enclave's report, which a quote signs (from ``dcap``), and what its attribute bits mean.

Intel SDM volume 3D, ATTRIBUTES and REPORT; evidence 3.1.
"""

from __future__ import annotations

from adyton.tee.dcap.bodies import SGX_SIZE, SgxBody

__all__ = ["ATTRIBUTE_BITS", "SGX_SIZE", "SgxBody"]

ATTRIBUTE_BITS = (
    ("init", 0),
    ("debug", 1),
    ("mode64", 2),
    ("provision_key", 4),
    ("einittoken_key", 5),
    ("cet", 6),
    ("kss", 7),
    ("aex_notify", 10),
)
