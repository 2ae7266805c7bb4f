"""CoMID: what one module's measurements should be (draft-ietf-rats-corim-10, 5.1), as named reference values.

A value's name is made of what identifies it, joined by slashes: the class's vendor and model (else its id), layer and
index if there are, the measured element's key, name and serial number, and what it is: ``digests``, ``raw_bytes``,
``svn``, ``min_svn``, ``version``, ``registers/<label>``. For vendor, model, key, name and serial number, ``digests`` and
``raw_bytes`` these are the names that CoCo's reference value service gives, such as ``ACME/RoadRunner/<uuid>/digests``.
Alternatives (the same thing more than once) are one list. Two things of one name are refused, such as a register ``1`` and a
register ``"1"``: as alternatives, each would be accepted in the other's place.

A triple for one instance or group of devices is refused: as a reference value it would hold for all of them. So are
measurements that a reference value cannot say (masked raw values), since to drop half of a condition widens it.
"""

from __future__ import annotations

import uuid
from typing import Any, NamedTuple

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
_COMPARED = ((2, "digests"), (4, "raw_bytes"), (1, "svn"), (0, "version"), (14, "registers"))


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
    found = _Found({}, {})
    for triple in triples:
        if not isinstance(triple, list) or len(triple) != 2 or not isinstance(triple[1], list) or not triple[1]:
            raise _malformed("comid.reference-triples", triple)
        path = _environment(_map(triple[0], "environment"))
        for measurement in triple[1]:
            _measurement(path, _map(measurement, "measurement"), found)
            if len(found.values) > MAX_VALUES:
                raise _malformed("comid.reference-triples", f"more than {MAX_VALUES} values")
    return name, version, found.values


class _Part(NamedTuple):
    """A part of a name, and what it is there: the member, and the type of what it holds."""

    text: str
    origin: tuple[str, str]


class _Found(NamedTuple):
    """Values by name, and what each name stands for."""

    values: dict[str, JsonValue]
    origins: dict[str, tuple[tuple[str, str], ...]]

    def name(self, path: list[_Part]) -> str:
        """The path's name, if it is no other path's."""
        name = "/".join([part.text for part in path])
        origin = tuple([part.origin for part in path])
        if self.origins.setdefault(name, origin) != origin:
            raise _malformed(name, "two things that would have one name")
        return name

    def alternatives(self, path: list[_Part], more: list[str]) -> None:
        """One of these, or of those that were said before."""
        name = self.name(path)
        known = self.values.setdefault(name, [])
        if not isinstance(known, list):
            raise _malformed(name, "two kinds of values")
        known.extend(one for one in more if one not in known)

    def single(self, path: list[_Part], value: JsonValue) -> None:
        """Exactly this."""
        name = self.name(path)
        if name in self.values and self.values[name] != value:
            raise _malformed(name, "two different values")
        self.values[name] = value


def _environment(environment: dict[Any, Any]) -> list[_Part]:
    if set(environment) != {0}:
        raise _malformed("environment", "an instance or a group, or no class")
    given = _map(environment[0], "class")
    members = [(name, given[at]) for at, name in ((1, "vendor"), (2, "model")) if at in given]
    path = [_part(name, value) for name, value in members or [("id", given.get(0))]]
    path += [_part(name, given[at], name) for at, name in ((3, "layer"), (4, "index")) if type(given.get(at)) is int]
    if not all(part.text for part in path):
        raise _malformed("class", given)
    return path


def _measurement(path: list[_Part], measurement: dict[Any, Any], values: _Found) -> None:
    path = list(path)
    if (key := measurement.get(0)) is not None:
        path.append(_part("key", key, "claim"))
    found = _map(measurement.get(1), "measurement-values")
    path += [_part(name, found[at]) for at, name in ((11, "name"), (8, "serial number")) if at in found]
    if not all(part.text for part in path):
        raise _malformed("measurement", "an identifier that is not text, a number or a UUID")
    known = {at for at in found if type(at) is int and at >= 0}  # negative and text keys are a profile's own
    if not known.issubset(_READ):
        raise _malformed("measurement-values", f"members {sorted(known - _READ)} that no reference value can say")
    said = [(at, what) for at, what in _COMPARED if at in found]
    if not said:
        raise _malformed("measurement-values", "nothing that can be compared")
    for at, what in said:
        _add(at, [*path, _what(what)], found[at], values)


def _add(at: int, path: list[_Part], value: object, values: _Found) -> None:
    if at == 2:
        values.alternatives(path, _digests(value))
    elif at == 4:
        if not isinstance(value, cbor.Tagged) or value.tag != _BYTES or not isinstance(value.value, bytes):
            raise _malformed("raw-value", "not bytes (tag 560): a mask cannot be said by a reference value")
        values.single(path, value.value.hex())
    elif at == 1:
        exact = not isinstance(value, cbor.Tagged) or value.tag == _SVN
        number = value.value if isinstance(value, cbor.Tagged) and value.tag in {_SVN, _MIN_SVN} else value
        if type(number) is not int or number < 0:
            raise _malformed("svn", value)
        values.single(path if exact else [*path[:-1], _what("min_svn")], number)
    elif at == 0:
        text = _map(value, "version").get(0)
        if not isinstance(text, str) or not text:
            raise _malformed("version", value)
        values.alternatives(path, [text])
    else:
        for label, digests in _map(value, "integrity-registers").items():
            text = str(label).replace("/", "_") if isinstance(label, int | str) else ""
            if not text:
                raise _malformed("integrity-registers", label)
            values.alternatives([*path, _Part(text, ("register", repr(label)))], _digests(digests))


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


def _what(text: str) -> _Part:
    return _Part(text, ("value", ""))


def _part(member: str, value: object, number: str = "") -> _Part:
    """``number``: what stands before a number, where that may be one."""
    text = f"{number}{value}" if number and type(value) is int else _text(value)
    tag = value.tag if isinstance(value, cbor.Tagged) else ""
    return _Part(text, (member, f"{type(value).__name__}{tag}"))


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
