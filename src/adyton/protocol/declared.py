"""What tenants should be like, as one document: who may have which resource, policies, reference values, providers, quotas.

No secret stands in it. A resource's value may be named by a file beside the document, from which it is made where there
is none; what is stored is never read back, so a value that exists is left alone unless its size differs or one says so.
Members that are absent say nothing; only pruning makes absence mean *gone*.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from adyton.errors import DocumentInvalid
from adyton.protocol.people import ApprovalRules
from adyton.protocol.providers import ProviderSettings
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath

FORMAT = 1


class DeclaredResource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``file`` holds the value, relative to the document; without one the resource must exist."""

    binding: Binding = Binding()
    file: str = ""


class DeclaredPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Its text, or the file that holds it, relative to the document."""

    text: str = ""
    file: str = ""


class DeclaredReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A value that the owner sets by hand; ``expires`` RFC 3339."""

    value: object
    expires: str | None = None


class DeclaredTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Resources by ``repository/type/tag``, policies by ``kind/id``, the others by name."""

    organisation: str | None = None
    environment: str | None = None
    quotas: dict[str, int] | None = None
    approvals: ApprovalRules | None = None
    resources: dict[str, DeclaredResource] = {}
    policies: dict[str, DeclaredPolicy] = {}
    references: dict[str, DeclaredReference] = {}
    providers: dict[str, ProviderSettings] = {}


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole document: tenants by name."""

    tenants: dict[str, DeclaredTenant]
    format: int = FORMAT


def read(document: Mapping[str, object]) -> Declared:
    """The document out of TOML or JSON; ``DocumentInvalid`` names the place that is wrong."""
    try:
        found = msgspec.convert(document, Declared)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at ")
        raise _invalid(said, where.strip("`") or "$") from error
    if found.format != FORMAT:
        raise _invalid("a format of another version of Adyton", "format")
    for tenant, declared in found.tenants.items():
        for uri in declared.resources:
            if uri.count("/") != 2:
                raise _invalid("a resource is repository/type/tag", f"tenants.{tenant}.resources.{uri}")
            ResourcePath(*uri.split("/"))
        for name, policy in declared.policies.items():
            if name.count("/") != 1 or bool(policy.text) == bool(policy.file):
                raise _invalid("a policy is kind/id, with a text or a file", f"tenants.{tenant}.policies.{name}")
    return found


def _invalid(why: str, where: str) -> DocumentInvalid:
    return DocumentInvalid(f"the document cannot be applied: {why}", code="declared_invalid", field=where[:200])
