"""Any bytes are DER, a certificate or a CRL, or the one error that says not."""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports():
    from adyton.crypto.x509 import EndorsementSet
    from adyton.errors import EndorsementMalformed
    from adyton.wire import der


def one(data: bytes) -> None:
    for read in (der.read, der.children, der.read_integer, der.read_ia5):
        with contextlib.suppress(ValueError):
            read(data)
    try:
        found = EndorsementSet.parse([data])
    except EndorsementMalformed:
        return
    for certificate in found.certificates:
        for name in ("common_name", "spki_fingerprint", "unknown_extensions", "basic_constraints", "key_usage"):
            with contextlib.suppress(EndorsementMalformed):
                getattr(certificate, name)
        for crl in found.crls:
            with contextlib.suppress(EndorsementMalformed):
                crl.lists(certificate)
    for crl in found.crls:
        assert len(crl) >= 0
        assert crl.number is None or isinstance(crl.number, int)


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
