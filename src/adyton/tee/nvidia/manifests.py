"""Which reference manifests, of all that were given, are about a device.

If the caller gives any manifest, it wants measurements compared: then a device without a manifest of its versions is
refused. Otherwise a host could choose a driver that no manifest knows, and have nothing compared at all.
"""

from __future__ import annotations

from collections.abc import Sequence

from adyton.errors import EndorsementError, EndorsementMissing
from adyton.tee.nvidia import rim
from adyton.tee.nvidia.endorsements import SPEC, SWITCH, TEE, Leaf
from adyton.tee.nvidia.opaque import Opaque
from adyton.tee.nvidia.rim import Rim

MAX_FITTING = 4


def find(documents: Sequence[bytes]) -> list[Rim]:
    """The manifests among documents, in the order of their content. Unreadable ones are an error if all are."""
    found: list[Rim] = []
    unreadable: EndorsementError | None = None
    for document in documents:
        if rim.is_rim(document):
            try:
                found.append(rim.parse(document))
            except EndorsementError as error:
                unreadable = unreadable or error
    if unreadable is not None and not found:
        raise unreadable
    return sorted(found, key=lambda one: one.digest)


def fitting(rims: Sequence[Rim], leaf: Leaf, said: Opaque, source: str) -> list[Rim]:
    """Those for this chip and the version that the report names, or ``EndorsementMissing``.

    ``source`` is ``driver`` or ``vbios``, told by the form of a version: a VBIOS's manifest never stands for a driver's,
    whatever the host calls its driver.
    """
    version = said.driver_version if source == rim.DRIVER else said.vbios_version
    edition = "SWITCH" if leaf.arch == SWITCH else "GPU"
    of_source = [one for one in rims if one.source == source]
    found = [
        one
        for one in of_source
        if version is not None
        and one.version.upper() == version.upper()
        and one.product.upper().replace("_", "") == leaf.chip.upper()
        and one.edition == edition
    ]
    if not found:
        raise EndorsementMissing(
            f"no reference manifest of this {source}, though manifests were given",
            code=f"{source}_rim_missing",
            tee=TEE,
            field=f"{source}_version",
            expected=sorted({f"{one.product} {one.version}" for one in of_source})[:16],
            got=f"{leaf.chip} {version}",
            spec=SPEC,
            hint=f"NVIDIA's RIM service has it as {rim_id(leaf, said, source)}, if this version exists; it is the host's "
            "word until its measurements match",
        )
    return found[:MAX_FITTING]


def rim_id(leaf: Leaf, said: Opaque, source: str) -> str:
    """The name under which NVIDIA serves the manifest of a device's driver or VBIOS."""
    if source == rim.DRIVER:
        return f"NV_GPU_DRIVER_{leaf.chip}_{said.driver_version}"
    version = (said.vbios_version or "").replace(".", "")
    if leaf.arch == SWITCH:  # its report names no project: NVIDIA's tools ask for this one
        return f"NV_SWITCH_BIOS_5612_0002_890_{version}"
    return f"NV_GPU_VBIOS_{said.project}_{said.project_sku}_{said.chip_sku}_{version}"
