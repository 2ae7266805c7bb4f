"""Bodies of the administration, of every route: a value that is written as it was read, or one error of ours."""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["adyton"]):
    from adyton.broker.door import api_bodies
    from adyton.broker.door.openapi_routes import ROUTES
    from adyton.broker.key_service import key_use
    from adyton.errors import AdytonError
    from adyton.protocol import declared, release
    from adyton.protocol.keys import TAKES
    from adyton.protocol.release import Binding
    from adyton.wire import strict_json

import msgspec

KINDS = list(dict.fromkeys(given.body for given in ROUTES.values() if given.body is not None))
FIELDS = [
    (kind, field.encode_name.encode())
    for kind in KINDS
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    for field in msgspec.structs.fields(kind)
]


def one(data: bytes) -> None:
    if not data:
        return
    kind, name = FIELDS[data[0] % len(FIELDS)]
    for body in (data[1:], b'{"' + name + b'":' + data[1:] + b"}"):
        with contextlib.suppress(AdytonError):
            read = api_bodies.read(body, kind)
            assert api_bodies.read(msgspec.json.encode(read), kind) == read
        with contextlib.suppress(AdytonError):
            release.check(api_bodies.read(body, Binding))
        with contextlib.suppress(AdytonError):
            key_use.parse([*TAKES, "none"][data[0] % (len(TAKES) + 1)], body)
        try:
            document = strict_json.parse(body, max_size=1 << 20)
        except strict_json.UNREADABLE:
            continue
        if isinstance(document, dict):
            with contextlib.suppress(AdytonError):
                declared.read(document)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
