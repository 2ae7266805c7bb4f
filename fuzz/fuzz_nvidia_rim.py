"""Any bytes are a reference manifest or malformed, in bounded time; a changed one never verifies."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import atheris

with atheris.instrument_imports():
    from adyton.crypto import xmldsig
    from adyton.devtee import nvidia_endorsements as made
    from adyton.errors import EndorsementError, EndorsementMalformed
    from adyton.tee.nvidia import rim

NOW = datetime(2026, 6, 1, tzinfo=UTC)
META = {"colloquialVersion": "1.2.3", "edition": "GPU", "product": "GH100"}
CHAIN = made.manifest_chain(NOW)
GOOD = made.sign_xml(made.swid({0: [bytes(48)]}, META, count=2), CHAIN)


def one(data: bytes) -> None:
    if len(data) > 3 and data[0] == 0xFF:  # replace a few bytes of a true one
        at = int.from_bytes(data[1:3], "big") % len(GOOD)
        data = GOOD[:at] + data[3:] + GOOD[at + len(data) - 3 :]
    try:
        read = xmldsig.parse(data)
    except EndorsementMalformed:
        pass
    else:
        if read.digest_matches() and read.is_signed_by(CHAIN[0].key.public_key()):
            assert read.content == xmldsig.parse(GOOD).content
    try:
        rim.parse(data)
    except EndorsementError:
        return


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
