"""Any bytes are one value of the strict kind, or ``ValueError``; so are any bytes as a COSE_Sign1."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from adyton.crypto import cose
    from adyton.wire import cbor


def one(data: bytes) -> None:
    open_map = data[:1] == b"\x01"
    body = data[1:]
    try:
        value = cbor.decode(body, open_map=open_map)
    except ValueError:
        pass
    else:
        again = cbor.encode(value)
        assert cbor.decode(again) == value
        assert cbor.encode(cbor.decode(again)) == again
        for wrong in (body + b"\0", body[:-1]):
            try:
                cbor.decode(wrong, open_map=open_map)
            except ValueError:
                continue
            raise AssertionError("a value with something after its end, or without it")
    try:
        number, rest = cbor.split_tag(body)
        if number is not None:
            assert cbor.head(6, number) + rest == body
        message = cose.parse(body)
    except ValueError:
        return
    assert cose.parse(message.encode()) == message


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
