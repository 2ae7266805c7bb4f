from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest

from adyton.errors import DocumentInvalid
from adyton.tee.cca.measure import GRANULE, RealmMeasurement, RealmParameters

PARAMETERS: dict[str, Any] = {"ipa_width": 48, "breakpoints": 1, "watchpoints": 1}


def made(**changes: Any) -> RealmMeasurement:
    return RealmMeasurement(RealmParameters(**PARAMETERS | changes))


NOTHING_IN_IT = {
    "sha256": "6739dfb22b75ee1268d08dfa8369f501bc0b066243553f069f560d1fa1172973",
    "sha512": "799e434048fb57eb9d4f0e2a2b98158720377252deab2bdfcd69b5a8f82237f4"
    "34bd6bb1c75bf160a2d49382f733b3439a3ff769e4ea5dd9a6f72239d44bbbab",
}


@pytest.mark.parametrize("name", NOTHING_IN_IT)
def test_a_realm_with_nothing_in_it(name: str) -> None:
    """The values that veraison's ``cca-realm-measurements`` has for these parameters (48 bits, two of each)."""
    assert made(hash=name).initial.hex() == NOTHING_IN_IT[name]


@pytest.mark.parametrize(
    "change",
    [
        {"flags": 1}, {"ipa_width": 47}, {"sve_vector_length": 1}, {"breakpoints": 2}, {"watchpoints": 2}, {"pmu_counters": 1},
    ],
)  # fmt: skip
def test_every_parameter_is_measured(change: dict[str, int]) -> None:
    assert made(**change).initial != made().initial


@pytest.mark.parametrize("change", [{"hash": "sha384"}, {"ipa_width": 256}, {"flags": -1}, {"breakpoints": "5"}])
def test_parameters_that_no_field_holds(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="field"):
        made(**change)


def descriptor(kind: int, rim: bytes, *parts: bytes) -> bytes:
    """Written apart from the code: the offsets of DEN0137's descriptors."""
    out = bytearray(256)
    out[0] = kind
    out[8:16] = (256).to_bytes(8, "little")
    out[16 : 16 + len(rim)] = rim
    at = 0x50
    for part in parts:
        out[at : at + len(part)] = part
        at += len(part)
    return bytes(out)


@pytest.mark.parametrize("name", ["sha256", "sha512"])
def test_each_call_extends_the_chain(name: str) -> None:
    def digest(data: bytes) -> bytes:
        return hashlib.new(name, data).digest()

    realm = made(hash=name)
    rim = realm.initial
    realm.ram(0x8000_0000, 0x8020_0000)
    rim = digest(descriptor(2, rim, struct.pack("<QQ", 0x8000_0000, 0x8020_0000)))
    assert realm.initial == rim
    pages = [bytes((number,)) * GRANULE for number in (1, 2)]
    realm.data(0x8000_0000, b"".join(pages))
    for number, page in enumerate(pages):
        rim = digest(descriptor(0, rim, struct.pack("<QQ", 0x8000_0000 + number * GRANULE, 1), digest(page)))
    assert realm.initial == rim
    realm.data(0x9000_0000, pages[0], measured=False)
    rim = digest(descriptor(0, rim, struct.pack("<QQ", 0x9000_0000, 0)))
    assert realm.initial == rim
    realm.cpu(0x8000_0000, [1, 2])
    record = bytearray(4096)
    record[0] = 1
    record[0x200:0x208] = (0x8000_0000).to_bytes(8, "little")
    record[0x300:0x310] = struct.pack("<QQ", 1, 2)
    rim = digest(descriptor(1, rim, digest(bytes(record))))
    assert realm.initial == rim
    realm.cpu(0, runnable=False)
    assert realm.initial == digest(descriptor(1, rim, digest(bytes(4096))))


def test_registers_are_extended_by_the_value_as_it_is() -> None:
    realm = made()
    assert realm.extensible == (bytes(32),) * 4
    realm.extend(2, b"value")
    first = hashlib.sha256(bytes(32) + b"value").digest()
    realm.extend(2, first)
    assert realm.extensible == (bytes(32), bytes(32), hashlib.sha256(first + first).digest(), bytes(32))
    for register, value in ((-1, b"x"), (4, b"x"), (0, b""), (0, bytes(65))):
        with pytest.raises(ValueError, match="extends"):
            realm.extend(register, value)


@pytest.mark.parametrize(
    ("address", "size"), [(1, GRANULE), (0, 1), (0, 0), (-GRANULE, GRANULE), (2**52, GRANULE), (0, GRANULE + 1)]
)
def test_memory_is_whole_granules(address: int, size: int) -> None:
    realm = made()
    with pytest.raises(DocumentInvalid) as caught:
        realm.data(address, bytes(size))
    assert caught.value.code == "cca_granules"
    with pytest.raises(DocumentInvalid):
        realm.ram(address, address + size)


def test_registers_of_a_cpu() -> None:
    for registers in (range(9), [2**64], [-1]):
        with pytest.raises(ValueError, match="register"):
            made().cpu(0, registers)
