"""Intel's TCB info, versions 2 (SGX only) and 3: which TCB of a platform family has which status (evidence 3.2).

PCS API v4, appendix "TCB info". Levels come out sorted, newest first, whatever their order in the document: Intel's
algorithm takes the first that fits. Members that are unknown here are named in ``unknown``, because a member that is
silently passed over is a check that is not done.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import UNSET, Struct, UnsetType

from adyton.tee.dcap import forms, signed_json
from adyton.tee.dcap.signed_json import Signed, date, hexadecimal
from adyton.tee.dcap.status import ENCLAVE_STATUSES, PLATFORM_STATUSES, TcbStatus

NAME = "tcbInfo"
SGX = "SGX"
TDX = "TDX"
COMPONENTS = 16


class TcbLevel(Struct, frozen=True):
    """One level of a platform. ``sgx`` and ``tdx`` have 16 SVNs each; ``tdx`` is ``None`` in TCB info for SGX."""

    sgx: tuple[int, ...]
    pcesvn: int
    tdx: tuple[int, ...] | None
    date: str
    status: TcbStatus
    advisories: tuple[str, ...]


class EnclaveLevel(Struct, frozen=True):
    """One level of a TDX module or a quoting enclave."""

    isvsvn: int
    date: str
    status: TcbStatus
    advisories: tuple[str, ...]


class TdxModule(NamedTuple):
    """What a TDX module must be. ``mrsigner`` 48 bytes, the others 8. ``levels``: newest first; none for version 0."""

    id: str
    mrsigner: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: tuple[EnclaveLevel, ...]


class TcbInfo(NamedTuple):
    """One TCB info. ``fmspc`` 6 bytes, ``pceid`` 2. ``unknown``: names of members that nothing here reads."""

    id: str
    version: int
    issue_date: datetime
    next_update: datetime
    fmspc: bytes
    pceid: bytes
    evaluation_number: int
    tdx_module: TdxModule | None
    tdx_module_identities: dict[str, TdxModule]
    levels: tuple[TcbLevel, ...]
    unknown: tuple[str, ...]


_KNOWN = frozenset(forms.TcbInfo.__struct_fields__)
_KNOWN_LEVEL = frozenset(forms.Level.__struct_fields__)
_KNOWN_TCB = frozenset(forms.Tcb.__struct_fields__)
_KNOWN_MODULE = frozenset(forms.ModuleIdentity.__struct_fields__)
_V2 = [f"sgxtcbcomp{number:02}svn" for number in range(1, COMPONENTS + 1)]


def parse(document: Signed) -> TcbInfo:
    """From the signed text, or ``EndorsementMalformed``. Whether it is signed and fresh is not asked here."""
    reading: TcbInfo | None = document.reading  # once, as its set is read once; nothing is verified here
    if reading is None:
        reading = document.reading = _parse(document)
    return reading


def _parse(document: Signed) -> TcbInfo:
    found, plain = signed_json.decode(document, forms.TCB_INFO)
    if found.version not in {2, 3}:
        raise signed_json.malformed(NAME, "unknown version", got=found.version)
    name = SGX if found.id is UNSET else found.id
    if name not in {SGX, TDX} or (found.version == 3) is (found.id is UNSET):
        raise signed_json.malformed(NAME, "unknown id for this version", got=name[:40])
    if found.tcbType != 0:
        raise signed_json.malformed(NAME, "unknown type of comparison (tcbType)", got=found.tcbType)
    if (found.tdxModule is not None) is not (name == TDX):
        raise signed_json.malformed(NAME, "a TDX module where there is none, or none where there is one")
    if not found.tcbLevels:
        raise signed_json.malformed(NAME, "no TCB level at all")
    levels = _levels(found.tcbLevels, found.version, name)
    levels.sort(key=_NEWEST_FIRST, reverse=True)
    identities = {identity.id.upper(): _module(identity) for identity in found.tdxModuleIdentities}
    if len(identities) != len(found.tdxModuleIdentities):
        raise signed_json.malformed(NAME, "a TDX module identity comes twice")
    return TcbInfo(
        id=name,
        version=found.version,
        issue_date=date(found.issueDate, NAME),
        next_update=date(found.nextUpdate, NAME),
        fmspc=hexadecimal(found.fmspc, 6, NAME),
        pceid=hexadecimal(found.pceId, 2, NAME),
        evaluation_number=found.tcbEvaluationDataNumber,
        tdx_module=_module(found.tdxModule) if found.tdxModule is not None else None,
        tdx_module_identities=identities,
        levels=tuple(levels),
        unknown=_unknown(plain) if plain is not None else (),
    )


_NEWEST_FIRST = attrgetter("sgx", "pcesvn", "tdx")  # SGX components, PCE, TDX components


def _levels(found: list[forms.Level], version: int, name: str) -> list[TcbLevel]:
    """In the document's order."""
    if version == 2:
        sgx = [tuple([getattr(level.tcb, component) for component in _V2]) for level in found]
        if any(UNSET in components for components in sgx):
            raise signed_json.malformed(NAME, "a level without all 16 SGX components")
    else:
        sgx = _components([level.tcb.sgxtcbcomponents for level in found], "SGX")
    tdx: Sequence[tuple[int, ...] | None] = [None] * len(found)
    if name == TDX:
        tdx = _components([level.tcb.tdxtcbcomponents for level in found], "TDX")
    dates: set[str] = set()  # those that were found right; many levels have the same
    levels = []
    for level, own, of_module in zip(found, sgx, tdx, strict=True):
        moment = level.tcbDate
        if moment not in dates:
            date(moment, NAME)
            dates.add(moment)
        status = PLATFORM_STATUSES.get(level.tcbStatus)
        if status is None:
            raise signed_json.malformed(NAME, "unknown TCB status", got=level.tcbStatus[:60])
        levels.append(TcbLevel(own, level.tcb.pcesvn, of_module, moment, status, tuple(level.advisoryIDs)))
    return levels


def _components(found: list[list[forms.Component] | UnsetType], kind: str) -> list[tuple[int, ...]]:
    """The SVNs of each level, all levels in one go."""
    whole = [level for level in found if level is not UNSET and len(level) == COMPONENTS]
    if len(whole) != len(found):
        raise signed_json.malformed(NAME, f"a level without all 16 {kind} components")
    svns = [component.svn for level in whole for component in level]
    return [tuple(svns[at : at + COMPONENTS]) for at in range(0, len(svns), COMPONENTS)]


def _module(module: forms.Module | forms.ModuleIdentity) -> TdxModule:
    own = module if isinstance(module, forms.ModuleIdentity) else None
    return TdxModule(
        id=own.id if own is not None else "",
        mrsigner=hexadecimal(module.mrsigner, 48, NAME),
        attributes=hexadecimal(module.attributes, 8, NAME),
        attributes_mask=hexadecimal(module.attributesMask, 8, NAME),
        levels=enclave_levels(own.tcbLevels, NAME) if own is not None else (),
    )


_BY_ISVSVN = attrgetter("isvsvn")


def enclave_levels(found: list[forms.EnclaveLevel], name: str) -> tuple[EnclaveLevel, ...]:
    """Levels of a module or enclave, newest first; ``EndorsementMalformed`` if there are none, or of unknown status."""
    levels: list[EnclaveLevel] = []
    for level in found:
        status = ENCLAVE_STATUSES.get(level.tcbStatus)
        if status is None:
            raise signed_json.malformed(name, "unknown TCB status", got=level.tcbStatus[:60])
        date(level.tcbDate, name)
        levels.append(EnclaveLevel(level.tcb.isvsvn, level.tcbDate, status, tuple(level.advisoryIDs)))
    if not levels:
        raise signed_json.malformed(name, "no TCB level at all")
    if len(levels) > 1:
        levels.sort(key=_BY_ISVSVN, reverse=True)
    return tuple(levels)


def _unknown(plain: dict[str, Any]) -> tuple[str, ...]:
    """Names that nothing here reads, down to the levels; components also say what they stand for, which decides nothing."""
    found = plain.keys() - _KNOWN
    for level in plain["tcbLevels"]:
        found |= (level.keys() - _KNOWN_LEVEL) | (level["tcb"].keys() - _KNOWN_TCB)
    for module in (plain.get("tdxModule") or {}, *plain.get("tdxModuleIdentities", ())):
        found |= module.keys() - _KNOWN_MODULE
    return tuple(sorted(found))
