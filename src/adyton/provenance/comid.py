"""CoMID: what one module's measurements should be (draft-ietf-rats-corim-10, 5.1), as named reference values.

A value's name is made of what identifies it, joined by slashes: the class's vendor and model (else its id), layer and
index if there are, the measured element's key, name and serial number, and what it is: ``digests``, ``raw_bytes``,
``svn``, ``min_svn``, ``version``, ``registers/<label>``. For vendor, model, key, name and serial number, ``digests`` and
``raw_bytes`` these are the names that CoCo's reference value service gives, such as ``ACME/RoadRunner/<uuid>/digests``.
Alternatives (the same name more than once) are one list.

A triple for one instance or group of devices is refused: as a reference value it would hold for all of them. So are
measurements that a reference value cannot say (masked raw values), since to drop half of a condition widens it.
"""

from __future__ import annotations

import uuid
from typing import Any

from adyton.provenance.values import MAX_VALUES, refused
from adyton.rats.types import JsonValue
from adyton.wire import cbor

SPEC = "draft-ietf-rats-corim-10, 5.1"
TAGS = frozenset(
    {1, 32, 37, 111, 505, 506, 507, 508, 550, 552, 553, 554, 555, 556, 557, 558, 559, 560, 561, 562, 563, 564, 600, 601}
)
MAX_TRIPLES = 2000
_MAX_VERSION = 2**53 - 1
# Named Information hash algorithms (RFC 6920 9.4), and COSE's numbers for the same (RFC 9054 2.1), with sizes in bytes.
_HASHES = {1: 32, 7: 48, 8: 64, 10: 32, 11: 48, 12: 64, -16: 32, -43: 48, -44: 64}
_HASH_NAMES = {"sha-256": 32, "sha-384": 48, "sha-512": 64, "sha3-256": 32, "sha3-384": 48, "sha3-512": 64}
_SVN, _MIN_SVN, _BYTES, _UUID = 552, 553, 560, 37
# version, svn, digests, raw value, serial number, name, registers, and what is said beside a value: flags, addresses
_READ = frozenset({0, 1, 2, 4, 8, 11, 14})


def read(value: object) -> tuple[str, int, dict[str, JsonValue]]:
    """The tag's id, its version, and its values by name; ``DocumentInvalid`` for what cannot be read whole."""
    comid = _map(value, "comid")
    identity = _map(comid.get(1), "comid.tag-identity")
    version = identity.get(1, 0)
    if type(version) is not int or not 0 <= version <= _MAX_VERSION:
        raise _malformed("comid.tag-version", version)
    name = identity.get(0)
    if isinstance(name, bytes) and len(name) == 16:
        name = str(uuid.UUID(bytes=name))
    if not isinstance(name, str) or not name:
        raise _malformed("comid.tag-id", identity.get(0))
    triples = _map(comid.get(4), "comid.triples").get(0, [])
    if not isinstance(triples, list) or len(triples) > MAX_TRIPLES:
        raise _malformed("comid.reference-triples", type(triples).__name__)
    values: dict[str, JsonValue] = {}
    for triple in triples:
        if not isinstance(triple, list) or len(triple) != 2 or not isinstance(triple[1], list) or not triple[1]:
            raise _malformed("comid.reference-triples", triple)
        path = _environment(_map(triple[0], "environment"))
        for measurement in triple[1]:
            _measurement(path, _map(measurement, "measurement"), values)
            if len(values) > MAX_VALUES:
                raise _malformed("comid.reference-triples", f"more than {MAX_VALUES} values")
    return name, version, values


def _environment(environment: dict[Any, Any]) -> list[str]:
    if set(environment) != {0}:
        raise _malformed("environment", "an instance or a group, or no class")
    given = _map(environment[0], "class")
    named = [_text(given.get(at)) for at in (1, 2) if at in given] or [_text(given.get(0))]
    path = [*named, *(f"{kind}{given[at]}" for at, kind in ((3, "layer"), (4, "index")) if type(given.get(at)) is int)]
    if not all(path):
        raise _malformed("class", given)
    return path


def _measurement(path: list[str], measurement: dict[Any, Any], values: dict[str, JsonValue]) -> None:
    path = list(path)
    if (key := measurement.get(0)) is not None:
        path.append(f"claim{key}" if type(key) is int else _text(key))
    found = _map(measurement.get(1), "measurement-values")
    path.extend(_text(found[at]) for at in (11, 8) if at in found)
    if not all(path):
        raise _malformed("measurement", "an identifier that is not text, a number or a UUID")
    known = {at for at in found if type(at) is int and at >= 0}  # negative and text keys are a profile's own
    if not known.issubset(_READ):
        raise _malformed("measurement-values", f"members {sorted(known - _READ)} that no reference value can say")
    before = len(values)
    changed = False
    for at, what in ((2, "digests"), (4, "raw_bytes"), (1, ""), (0, "version"), (14, "registers")):
        if at in found:
            changed = True
            _add(at, what, path, found[at], values)
    if not changed and len(values) == before:
        raise _malformed("measurement-values", "nothing that can be compared")


def _add(at: int, what: str, path: list[str], value: object, values: dict[str, JsonValue]) -> None:
    if at == 2:
        _alternatives(values, [*path, what], _digests(value))
    elif at == 4:
        if not isinstance(value, cbor.Tagged) or value.tag != _BYTES or not isinstance(value.value, bytes):
            raise _malformed("raw-value", "not bytes (tag 560): a mask cannot be said by a reference value")
        _single(values, [*path, what], value.value.hex())
    elif at == 1:
        exact = not isinstance(value, cbor.Tagged) or value.tag == _SVN
        number = value.value if isinstance(value, cbor.Tagged) and value.tag in {_SVN, _MIN_SVN} else value
        if type(number) is not int or number < 0:
            raise _malformed("svn", value)
        _single(values, [*path, "svn" if exact else "min_svn"], number)
    elif at == 0:
        text = _map(value, "version").get(0)
        if not isinstance(text, str) or not text:
            raise _malformed("version", value)
        _alternatives(values, [*path, what], [text])
    else:
        for label, digests in _map(value, "integrity-registers").items():
            _alternatives(values, [*path, what, str(label).replace("/", "_")], _digests(digests))


def _digests(value: object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise _malformed("digests", value)
    found = []
    for one in value:
        algorithm, digest = one if isinstance(one, list) and len(one) == 2 else (None, None)
        size = _HASHES.get(algorithm) if type(algorithm) is int else _HASH_NAMES.get(str(algorithm))
        if size is None or not isinstance(digest, bytes) or len(digest) != size:
            raise _malformed("digests", one)
        found.append(digest.hex())
    return found


def _alternatives(values: dict[str, JsonValue], path: list[str], more: list[str]) -> None:
    known = values.setdefault("/".join(path), [])
    if not isinstance(known, list):
        raise _malformed("/".join(path), "two kinds of values")
    known.extend(one for one in more if one not in known)


def _single(values: dict[str, JsonValue], path: list[str], value: JsonValue) -> None:
    name = "/".join(path)
    if name in values and values[name] != value:
        raise _malformed(name, "two different values")
    values[name] = value


def _text(value: object) -> str:
    """An identifier as text: text, UUID, OID or bytes (in hex); empty if it is none of them."""
    if isinstance(value, cbor.Tagged):
        if value.tag == _UUID and isinstance(value.value, bytes) and len(value.value) == 16:
            return str(uuid.UUID(bytes=value.value))
        return value.value.hex() if isinstance(value.value, bytes) else ""
    if isinstance(value, bytes):
        return str(uuid.UUID(bytes=value)) if len(value) == 16 else value.hex()
    return value if isinstance(value, str) and "/" not in value else ""


def _map(value: object, field: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise _malformed(field, type(value).__name__)
    return value


def _malformed(field: str, got: object) -> Exception:
    return refused(
        "not a CoMID whose reference values can be said here",
        "corim_malformed",
        field=field,
        got=str(got)[:120],
        spec=SPEC,
    )
