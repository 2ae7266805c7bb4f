from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.crypto.x509 import EndorsementSet
from adyton.devtee import csv as forging
from adyton.devtee.forge import flip
from adyton.errors import EndorsementMalformed
from adyton.tee.csv import endorsements
from adyton.tee.csv.certificate import HygonCertificate, Usage, read, split


@pytest.mark.parametrize("size", [0, 831, 833, 2083, 2085, 2916])
def test_other_lengths(size: int) -> None:
    with pytest.raises(EndorsementMalformed) as caught:
        HygonCertificate(bytes(size))
    assert caught.value.field == "length"


def test_other_versions_curves_ids_and_points(chip: Any) -> None:
    forge = chip.forge
    wrong = {
        "version": [
            forging.authority(forge.hsk, forge.hrk, version=2),
            forging.authority(forge.hsk, forge.hrk, version=0),
            forging.chip(forge.cek, forge.hsk, version=3),
        ],
        "curve": [forging.authority(forge.hsk, forge.hrk, curve=2), forging.chip(forge.cek, forge.hsk, curve=1)],
        "user_id": [chip.hrk[:212] + (255).to_bytes(2, "little") + chip.hrk[214:]],
        "public_key": [flip(chip.hrk, 8 * 68), flip(chip.pek, 8 * 92), flip(chip.pek, 8 * (20 + 71))],
    }
    for field, certificates in wrong.items():
        for encoded in certificates:
            with pytest.raises(EndorsementMalformed) as caught:
                HygonCertificate(encoded)
            assert caught.value.field == field


@given(st.sampled_from([832, 2084]), st.randoms(use_true_random=False))
def test_any_bytes_are_refused_or_read(size: int, random: Any) -> None:
    data = bytearray(random.randbytes(size))
    data[:4] = b"\1\0\0\0"
    at = 64 if size == 832 else 16
    data[at : at + 4] = b"\3\0\0\0"
    with pytest.raises(EndorsementMalformed):
        HygonCertificate(bytes(data))  # nobody hits a point of the curve by chance


@settings(max_examples=40, deadline=None)
@given(bit=st.integers(0, 8 * 1044 - 1), data=st.data())
def test_one_flipped_bit_is_not_signed(chip: Any, bit: int, data: st.DataObject) -> None:
    issuer = read(chip.hsk_cek[832:])
    try:
        changed = HygonCertificate(flip(chip.pek, bit))
    except EndorsementMalformed:
        return
    assert not changed.signed_by(issuer)


def test_slots_name_who_signed(chip: Any) -> None:
    forge = chip.forge
    cek = read(chip.hsk_cek[832:])
    pek = read(chip.pek)
    assert pek.usage == Usage.PEK
    assert pek.signed_by(cek)
    body = chip.pek[:1044]
    by_oca = forge.oca.slot(body)
    other_way_round = HygonCertificate(body + by_oca + forge.cek.slot(body))
    assert other_way_round.signed_by(cek)
    for slots in (
        by_oca + forging.EMPTY_SLOT,
        forge.cek.slot(body, usage=Usage.OCA) + by_oca,
        forge.cek.slot(body, algorithm=5) + by_oca,
        forge.cek.slot(body, usage=Usage.INVALID, algorithm=0) + by_oca,
        forging.EMPTY_SLOT * 2,
    ):
        assert not HygonCertificate(body + slots).signed_by(cek)


def test_an_hsk_is_no_root(chip: Any) -> None:
    forge = chip.forge
    below = HygonCertificate(forging.authority(forging.Holder(0x13, b"x"), forge.hsk))
    assert not below.signed_by(read(chip.hsk_cek[:832]))


def test_what_follows_a_signature_is_not_looked_at(chip: Any) -> None:
    changed = HygonCertificate(chip.hrk[:831] + b"\xff")
    assert changed.signed_by(read(chip.hrk))
    assert changed != read(chip.hrk)
    assert len({changed, read(chip.hrk), HygonCertificate(chip.hrk)}) == 2
    assert "sha256=" in repr(changed)


def test_split(chip: Any) -> None:
    assert split(chip.hsk_cek) == [chip.hsk_cek[:832], chip.hsk_cek[832:]]
    assert split(chip.pek) == [chip.pek]


def test_a_root_can_be_trusted_by_its_file(chip: Any) -> None:
    given = EndorsementSet.parse([chip.hrk, chip.hsk_cek, chip.pek])
    assert given.fingerprints == {read(chip.hrk).fingerprint}
    assert not EndorsementSet.parse([chip.hsk_cek[:832]]).fingerprints
    with pytest.raises(EndorsementMalformed):
        _ = EndorsementSet(documents=[flip(chip.hrk, 8 * 68)]).fingerprints


@pytest.mark.vectors
def test_the_pinned_root_is_hygons(vectors: Path) -> None:
    file = (vectors / "roots" / "hygon-hrk.cert").read_bytes()
    assert hashlib.sha256(file).hexdigest() == "296efa97580464aca0ab5eefe42199ee05862182508d1629f29cf4dc175b10cd"
    root = read(file)
    assert root.usage == Usage.HRK
    assert root.signed_by(root)
    assert root.key == endorsements.ROOT_KEY
    assert root.fingerprint == endorsements.ROOT_FINGERPRINT
    assert (root.key_id, root.user_id) == (endorsements.ROOT_ID, endorsements.ROOT_USER)
    assert f"{root.key.x:064x}".startswith("be62e14d")
    assert f"{root.key.x:064x}".endswith("f62d")
