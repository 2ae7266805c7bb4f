"""Roots whose own signature was verified when their digests were written down: only those bytes are spared the check."""

from __future__ import annotations

from pathlib import Path

import pytest

from adyton.crypto import chain as walk
from adyton.crypto import path
from adyton.crypto.algorithms import RSA_PSS_SHA384
from adyton.crypto.x509 import Certificate, EndorsementSet
from adyton.tee.dcap.endorsements import roles
from adyton.tee.nitro.endorsements import PROFILES as NITRO
from adyton.tee.nvidia.endorsements import DEVICE
from adyton.tee.nvidia.rim import RIM
from adyton.tee.snp.endorsements import ROOT_CERTIFICATES as AMD

FILES = {
    "intel-sgx-root-ca-2049": roles("sgx").pck_profile,
    "intel-sgx-root-ca-2033-first-issue": roles("sgx").pck_profile,
    "aws-nitro-root": NITRO[1],
    "nvidia-device-identity-root": DEVICE,
    "nvidia-rim-root": RIM,
}
PROFILES = [*FILES.values(), roles("tdx").pck_profile, roles("sgx").signer_profile, roles("tdx").signer_profile]


def root_in(file: Path) -> Certificate:
    (root,) = [item for item in EndorsementSet.parse([file.read_bytes()]).certificates if item.subject == item.issuer]
    return root


def broken(root: Certificate) -> Certificate:
    """The same names, key and algorithm, with another end: what nobody signed."""
    end = root.parsed.not_valid_after_utc.strftime("%y%m%d").encode()
    at = root.der.rindex(end, 0, root.der.index(root.subject, root.der.index(root.issuer) + 1))
    changed = bytearray(root.der)
    changed[at + 1] ^= 1  # another year
    found = Certificate(bytes(changed))
    assert found.spki_fingerprint == root.spki_fingerprint
    assert found.not_after != root.not_after
    return found


@pytest.mark.vectors
@pytest.mark.parametrize("name", FILES)
def test_a_root_with_the_pinned_key_and_another_validity_must_show_its_own_signature(vectors: Path, name: str) -> None:
    profile = FILES[name]
    root = root_in(vectors / "roots" / f"{name}.pem")
    assert path.is_sound_root(root, profile, profile.algorithms[0])
    if root.not_after.year == 9999:
        pytest.skip("no other year of two digits")
    changed = broken(root)
    assert changed.digest not in profile.sound
    assert not path.is_sound_root(changed, profile, profile.algorithms[0])


@pytest.mark.vectors
def test_what_is_spared_verifies(vectors: Path) -> None:
    """Each digest in the code is of a certificate here, whose own signature verifies with its format's algorithm."""
    seen = set()
    for name, profile in FILES.items():
        root = root_in(vectors / "roots" / f"{name}.pem")
        (algorithm,) = profile.algorithms
        assert root.digest in profile.sound
        assert walk.is_signed(root, root, algorithm)
        seen.add(root.digest)
    for product in ("milan", "genoa", "turin"):
        root = root_in(vectors / "roots" / f"amd-{product}-ask-ark-asvk.pem")
        assert root.digest in AMD
        assert walk.is_signed(root, root, RSA_PSS_SHA384)
        walk.check_pss_sha384(root, roles("sgx").root)
        seen.add(root.digest)
    assert seen == AMD.union(*(profile.sound for profile in PROFILES))
    assert all(len(profile.algorithms) == 1 for profile in PROFILES)


@pytest.mark.vectors
def test_intel_s_roots_are_the_ones_in_the_code(vectors: Path) -> None:
    from adyton.tee.dcap import roots

    assert {root_in(vectors / "roots" / f"{name}.pem").der for name in FILES if "intel" in name} == set(roots.BY_DER)
    assert set(roots.BY_DER) == {known.der for known in roots.BY_TEXT.values()}
    assert {known.spki_fingerprint for known in roots.BY_DER.values()} == {roots.KEY}
    assert {known.digest for known in roots.BY_DER.values()} == roots.CERTIFICATES
