"""TCB info and enclave identity as they stand in JSON. Members are declared in the order in which Intel writes them.

So what Intel wrote comes out again byte for byte, which proves that no name stood twice and none is unknown: ``encoded``.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

_Svn = Annotated[int, Meta(ge=0, le=0xFF)]
_Number = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]


class Component(msgspec.Struct, omit_defaults=True, gc=False):
    """``category`` and ``type`` say what it stands for, which decides nothing."""

    svn: _Svn
    category: Any = UNSET
    type: Any = UNSET


class Tcb(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """The named SVNs are those of version 2."""

    sgxtcbcomponents: list[Component] | UnsetType = UNSET
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
    pcesvn: Annotated[int, Meta(ge=0, le=0xFFFF)]
    tdxtcbcomponents: list[Component] | UnsetType = UNSET


class Level(msgspec.Struct, omit_defaults=True, gc=False):
    """A level of a platform."""

    tcb: Tcb
    tcbDate: str  # noqa: N815 -- Intel's names
    tcbStatus: str  # noqa: N815
    advisoryIDs: list[str] = []  # noqa: N815


class Isvsvn(msgspec.Struct, gc=False):
    """The TCB of a module or an enclave."""

    isvsvn: Annotated[int, Meta(ge=0, le=0xFFFF)]


class EnclaveLevel(msgspec.Struct, omit_defaults=True, gc=False):
    """A level of a TDX module or a quoting enclave."""

    tcb: Isvsvn
    tcbDate: str  # noqa: N815
    tcbStatus: str  # noqa: N815
    advisoryIDs: list[str] = []  # noqa: N815


class Module(msgspec.Struct, gc=False):
    """A TDX module of version 0."""

    mrsigner: str
    attributes: str
    attributesMask: str  # noqa: N815


class ModuleIdentity(msgspec.Struct, gc=False):
    """A TDX module of the version that its id names."""

    id: str
    mrsigner: str
    attributes: str
    attributesMask: str  # noqa: N815
    tcbLevels: list[EnclaveLevel]  # noqa: N815


class TcbInfo(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """``tcbInfo``, versions 2 and 3; the former has no ``id``."""

    id: str | UnsetType = UNSET
    version: int
    issueDate: str  # noqa: N815
    nextUpdate: str  # noqa: N815
    fmspc: str
    pceId: str  # noqa: N815
    tcbType: int  # noqa: N815
    tcbEvaluationDataNumber: _Number  # noqa: N815
    tdxModule: Module | None = None  # noqa: N815
    tdxModuleIdentities: list[ModuleIdentity] = []  # noqa: N815
    tcbLevels: list[Level]  # noqa: N815


class Identity(msgspec.Struct, gc=False):
    """``enclaveIdentity``, version 2."""

    id: str
    version: int
    issueDate: str  # noqa: N815
    nextUpdate: str  # noqa: N815
    tcbEvaluationDataNumber: _Number  # noqa: N815
    miscselect: str
    miscselectMask: str  # noqa: N815
    attributes: str
    attributesMask: str  # noqa: N815
    mrsigner: str
    isvprodid: Annotated[int, Meta(ge=0, le=0xFFFF)]
    tcbLevels: list[EnclaveLevel]  # noqa: N815


TCB_INFO: msgspec.json.Decoder[TcbInfo] = msgspec.json.Decoder(TcbInfo)
IDENTITY: msgspec.json.Decoder[Identity] = msgspec.json.Decoder(Identity)
encoded = msgspec.json.Encoder().encode
