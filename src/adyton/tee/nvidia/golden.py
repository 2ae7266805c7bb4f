"""Comparing a report's measurements with reference manifests (evidence 11)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adyton.errors import EvidenceError
from adyton.tee.nvidia.endorsements import SPEC, TEE
from adyton.tee.nvidia.opaque import DISABLED
from adyton.tee.nvidia.rim import VerifiedRim

NVDEC0_INDEX = 35  # from 0: the firmware of video decoder 0, which is not measured where that decoder is switched off


@dataclass(frozen=True, slots=True)
class Compared:
    """How a report fares against one manifest. ``mismatches``: (index from 0, alternatives, value or ``None``).

    ``excused``: indices that differ and need not be the manifest's on this device.
    """

    rim: VerifiedRim
    matched: int
    excused: tuple[int, ...]
    mismatches: tuple[tuple[int, tuple[bytes, ...], bytes | None], ...]


def compare(rim: VerifiedRim, measured: Mapping[int, bytes], nvdec0: str | None) -> Compared:
    """``measured``: values by index from 1, as in the report. A measurement that is missing matches nothing."""
    mismatches = []
    excused: tuple[int, ...] = ()
    same = hmac.compare_digest
    matched = 0
    for index, alternatives in rim.rim.golden.items():
        value = measured.get(index + 1)
        if value is not None and (
            same(alternatives[0], value) or (len(alternatives) > 1 and any(same(one, value) for one in alternatives))
        ):
            matched += 1
        elif index == NVDEC0_INDEX and nvdec0 == DISABLED:
            excused = (index,)
        else:
            mismatches.append((index, alternatives, value))
    return Compared(rim, matched, excused, tuple(mismatches))


def best(rims: Sequence[VerifiedRim], measured: Mapping[int, bytes], nvdec0: str | None) -> Compared:
    """The manifest that fits: several boards may have one of the same version. At least one is given."""
    compared = [compare(rim, measured, nvdec0) for rim in rims]
    return min(compared, key=lambda one: len(one.mismatches)) if len(compared) > 1 else compared[0]


def check(compared: Sequence[Compared]) -> None:
    """No index has two owners, and every active measurement is one of its alternatives."""
    seen: dict[int, str] = {}
    for one in compared:
        rim = one.rim.rim
        for index in rim.golden:
            if index in seen:
                raise EvidenceError(
                    "two manifests say what the same measurement must be",
                    code="rim_index_conflict",
                    tee=TEE,
                    field=f"measurements[{index}]",
                    expected=f"one manifest for index {index}",
                    got=[seen[index], rim.source],
                    spec=SPEC,
                )
            seen[index] = rim.source
    for one in compared:
        for index, alternatives, value in one.mismatches:
            raise EvidenceError(
                f"a measurement is not the one that the {one.rim.rim.source}'s reference manifest lists",
                code="measurement_mismatch",
                tee=TEE,
                field=f"measurements[{index}]",
                expected=[alternative.hex() for alternative in alternatives],
                got=value.hex() if value is not None else None,
                spec=SPEC,
                hint=f"{len(one.mismatches)} of the manifest's active measurements differ, at (from 0) "
                f"{', '.join(str(item[0]) for item in one.mismatches)}: other firmware, or another board's manifest",
            )
        if not one.matched:
            raise EvidenceError(
                "a reference manifest with nothing to compare",
                code="measurement_mismatch",
                tee=TEE,
                field="measurements",
                spec=SPEC,
            )
