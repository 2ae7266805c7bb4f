"""Intel's TCB info, versions 2 (SGX only) and 3: which TCB of a platform family has which status (evidence 3.2).

PCS API v4, appendix "TCB info". Levels come out sorted, newest first, whatever their order in the document: Intel's
algorithm takes the first that fits. Members that are unknown here are named in ``unknown``, because a member that is
silently passed over is a check that is not done.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from adyton.tee.dcap import signed_json
from adyton.tee.dcap.signed_json import Signed, date, hexadecimal
from adyton.tee.dcap.status import ENCLAVE_STATUSES, PLATFORM_STATUSES, TcbStatus

NAME = "tcbInfo"
SGX = "SGX"
TDX = "TDX"
COMPONENTS = 16

_Svn = Annotated[int, Meta(ge=0, le=0xFF)]
_Number = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]


class TcbLevel(NamedTuple):
    """One level of a platform. ``sgx`` and ``tdx`` have 16 SVNs each; ``tdx`` is ``None`` in TCB info for SGX."""

    sgx: tuple[int, ...]
    pcesvn: int
    tdx: tuple[int, ...] | None
    date: str
    status: TcbStatus
    advisories: tuple[str, ...]


class EnclaveLevel(NamedTuple):
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


class _Component(msgspec.Struct):
    svn: _Svn


class _Tcb(msgspec.Struct):
    """The named SVNs are those of version 2."""

    pcesvn: Annotated[int, Meta(ge=0, le=0xFFFF)]
    sgxtcbcomponents: list[_Component] | UnsetType = UNSET
    tdxtcbcomponents: list[_Component] | UnsetType = UNSET
    sgxtcbcomp01svn: _Svn | UnsetType = UNSET
    sgxtcbcomp02svn: _Svn | UnsetType = UNSET
    sgxtcbcomp03svn: _Svn | UnsetType = UNSET
    sgxtcbcomp04svn: _Svn | UnsetType = UNSET
    sgxtcbcomp05svn: _Svn | UnsetType = UNSET
    sgxtcbcomp06svn: _Svn | UnsetType = UNSET
    sgxtcbcomp07svn: _Svn | UnsetType = UNSET
    sgxtcbcomp08svn: _Svn | UnsetType = UNSET
    sgxtcbcomp09svn: _Svn | UnsetType = UNSET
    sgxtcbcomp10svn: _Svn | UnsetType = UNSET
    sgxtcbcomp11svn: _Svn | UnsetType = UNSET
    sgxtcbcomp12svn: _Svn | UnsetType = UNSET
    sgxtcbcomp13svn: _Svn | UnsetType = UNSET
    sgxtcbcomp14svn: _Svn | UnsetType = UNSET
    sgxtcbcomp15svn: _Svn | UnsetType = UNSET
    sgxtcbcomp16svn: _Svn | UnsetType = UNSET


class _Level(msgspec.Struct):
    tcb: _Tcb
    tcbDate: str  # noqa: N815
    tcbStatus: str  # noqa: N815
    advisoryIDs: list[str] = []  # noqa: N815


class _Isvsvn(msgspec.Struct):
    isvsvn: Annotated[int, Meta(ge=0, le=0xFFFF)]


class EnclaveLevelJson(msgspec.Struct):
    """A level of a TDX module or a quoting enclave as it stands in JSON."""

    tcb: _Isvsvn
    tcbDate: str  # noqa: N815
    tcbStatus: str  # noqa: N815
    advisoryIDs: list[str] = []  # noqa: N815


class _Module(msgspec.Struct):
    mrsigner: str
    attributes: str
    attributesMask: str  # noqa: N815


class _ModuleIdentity(_Module):
    id: str
    tcbLevels: list[EnclaveLevelJson]  # noqa: N815


class _TcbInfo(msgspec.Struct):
    version: int
    issueDate: str  # noqa: N815
    nextUpdate: str  # noqa: N815
    fmspc: str
    pceId: str  # noqa: N815
    tcbType: int  # noqa: N815
    tcbEvaluationDataNumber: _Number  # noqa: N815
    tcbLevels: list[_Level]  # noqa: N815
    id: str = SGX
    tdxModule: _Module | None = None  # noqa: N815
    tdxModuleIdentities: list[_ModuleIdentity] = []  # noqa: N815


_DECODER: msgspec.json.Decoder[_TcbInfo] = msgspec.json.Decoder(_TcbInfo)
_KNOWN = frozenset(_TcbInfo.__struct_fields__)
_KNOWN_LEVEL = frozenset(_Level.__struct_fields__)
_KNOWN_TCB = frozenset(_Tcb.__struct_fields__)
_KNOWN_MODULE = frozenset(_ModuleIdentity.__struct_fields__)
_V2 = [f"sgxtcbcomp{number:02}svn" for number in range(1, COMPONENTS + 1)]


@lru_cache(maxsize=64)  # as its set is read once; nothing is verified here
def parse(document: Signed) -> TcbInfo:
    """From the signed text, or ``EndorsementMalformed``. Whether it is signed and fresh is not asked here."""
    found, plain = signed_json.decode(document, _DECODER)
    if found.version not in {2, 3}:
        raise signed_json.malformed(NAME, "unknown version", got=found.version)
    if found.id not in {SGX, TDX} or (found.version == 3) is not ("id" in plain):
        raise signed_json.malformed(NAME, "unknown id for this version", got=found.id[:40])
    if found.tcbType != 0:
        raise signed_json.malformed(NAME, "unknown type of comparison (tcbType)", got=found.tcbType)
    if (found.tdxModule is not None) is not (found.id == TDX):
        raise signed_json.malformed(NAME, "a TDX module where there is none, or none where there is one")
    if not found.tcbLevels:
        raise signed_json.malformed(NAME, "no TCB level at all")
    levels = [_level(level, found) for level in found.tcbLevels]
    levels.sort(key=_newest_first, reverse=True)
    identities = {identity.id.upper(): _module(identity) for identity in found.tdxModuleIdentities}
    if len(identities) != len(found.tdxModuleIdentities):
        raise signed_json.malformed(NAME, "a TDX module identity comes twice")
    return TcbInfo(
        id=found.id,
        version=found.version,
        issue_date=date(found.issueDate, NAME),
        next_update=date(found.nextUpdate, NAME),
        fmspc=hexadecimal(found.fmspc, 6, NAME),
        pceid=hexadecimal(found.pceId, 2, NAME),
        evaluation_number=found.tcbEvaluationDataNumber,
        tdx_module=_module(found.tdxModule) if found.tdxModule is not None else None,
        tdx_module_identities=identities,
        levels=tuple(levels),
        unknown=_unknown(plain),
    )


def _newest_first(level: TcbLevel) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    return level.sgx, level.pcesvn, level.tdx or ()


def _level(level: _Level, info: _TcbInfo) -> TcbLevel:
    tcb = level.tcb
    tdx = None
    if info.version == 2:
        sgx = tuple([getattr(tcb, name) for name in _V2])
        if UNSET in sgx:
            raise signed_json.malformed(NAME, "a level without all 16 SGX components")
    else:
        sgx = _components(tcb.sgxtcbcomponents, "SGX")
        if info.id == TDX:
            tdx = _components(tcb.tdxtcbcomponents, "TDX")
    return TcbLevel(sgx, tcb.pcesvn, tdx, level.tcbDate, _status(level, PLATFORM_STATUSES), tuple(level.advisoryIDs))


def _components(found: list[_Component] | UnsetType, kind: str) -> tuple[int, ...]:
    if found is UNSET or len(found) != COMPONENTS:
        raise signed_json.malformed(NAME, f"a level without all 16 {kind} components")
    return tuple([component.svn for component in found])


def _status(level: _Level, known: dict[str, TcbStatus]) -> TcbStatus:
    date(level.tcbDate, NAME)
    status = known.get(level.tcbStatus)
    if status is None:
        raise signed_json.malformed(NAME, "unknown TCB status", got=level.tcbStatus[:60])
    return status


def _module(module: _Module) -> TdxModule:
    own = module if isinstance(module, _ModuleIdentity) else None
    return TdxModule(
        id=own.id if own is not None else "",
        mrsigner=hexadecimal(module.mrsigner, 48, NAME),
        attributes=hexadecimal(module.attributes, 8, NAME),
        attributes_mask=hexadecimal(module.attributesMask, 8, NAME),
        levels=enclave_levels(own.tcbLevels, NAME) if own is not None else (),
    )


def enclave_levels(found: list[EnclaveLevelJson], name: str) -> tuple[EnclaveLevel, ...]:
    """Levels of a module or enclave, newest first; ``EndorsementMalformed`` if there are none, or of unknown status."""
    levels = []
    for level in found:
        status = ENCLAVE_STATUSES.get(level.tcbStatus)
        if status is None:
            raise signed_json.malformed(name, "unknown TCB status", got=level.tcbStatus[:60])
        date(level.tcbDate, name)
        levels.append(EnclaveLevel(level.tcb.isvsvn, level.tcbDate, status, tuple(level.advisoryIDs)))
    if not levels:
        raise signed_json.malformed(name, "no TCB level at all")
    levels.sort(key=lambda level: level.isvsvn, reverse=True)
    return tuple(levels)


def _unknown(plain: dict[str, Any]) -> tuple[str, ...]:
    """Names that nothing here reads, down to the levels; components also say what they stand for, which decides nothing."""
    found = plain.keys() - _KNOWN
    for level in plain["tcbLevels"]:
        found |= (level.keys() - _KNOWN_LEVEL) | (level["tcb"].keys() - _KNOWN_TCB)
    for module in (plain.get("tdxModule") or {}, *plain.get("tdxModuleIdentities", ())):
        found |= module.keys() - _KNOWN_MODULE
    return tuple(sorted(found))
