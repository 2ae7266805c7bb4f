"""What the owner's tools and the broker say to each other about policies (``/api/v0/policies``): one struct each."""

from __future__ import annotations

from typing import Annotated

import msgspec

from adyton.protocol.audit_row import PolicyUsed

MAX_VERSION = 2**31 - 1
KINDS = ("attestation", "resource", "requirements")
"""``requirements`` are no Rego but JSON: id ``snp`` of ``appraisal.requirements``, ``release`` of ``release_rules``,
``record`` of ``recording``."""


class PolicyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Set a policy: its text, Rego or JSON by its kind, and why. Not ``activate``: keep it as a candidate."""

    text: str
    note: str = ""
    activate: bool = True


class PolicyView(msgspec.Struct, frozen=True):
    """A policy; ``text`` is empty in lists. ``digest`` is SHA-256 of the text in hex, ``version`` 0 for a built-in.

    ``state``: ``active``, or of what does not decide ``candidate`` (never activated) or ``deleted``. ``newest`` is the
    last version that was set, ``dry_run`` the one on trial, 0 for none.
    """

    kind: str
    id: str
    digest: str
    version: int
    updated: str
    text: str = ""
    state: str = "active"
    newest: int = 0
    dry_run: int = 0


class VersionView(msgspec.Struct, frozen=True):
    """One version: who set it when and why. ``state``: ``active``, ``dry-run``, or empty for one that does nothing."""

    version: int
    digest: str
    created: str
    actor: str = ""
    note: str = ""
    state: str = ""
    pinned: bool = False
    text: str = ""


class ActivationView(msgspec.Struct, frozen=True):
    """One change of what decides; ``version`` 0: it was deleted."""

    number: int
    version: int
    time: str
    actor: str
    action: str


class DryRunView(msgspec.Struct, frozen=True):
    """A version on trial: how often it would have said the same, something else, or nothing at all.

    ``skipped`` are decisions that it was not asked about, because there were too many or it had just failed.
    """

    kind: str
    id: str
    version: int
    since: str
    actor: str
    same: int
    differ: int
    failed: int
    skipped: int


class VersionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which version is meant."""

    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]


class TestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Try a policy on what is recorded: a text, or a version that was set (then ``text`` is empty). Newest first."""

    __test__ = False

    kind: str
    id: str
    text: str = ""
    version: Annotated[int, msgspec.Meta(ge=0, le=MAX_VERSION)] = 0
    limit: int = 1000


class Cause(msgspec.Struct, frozen=True, omit_defaults=True):
    """A claim that the two policies judge differently: with another value the answer would have been the other.

    ``path`` in the policy's input; ``got`` is what the evidence has there.
    """

    path: str
    got: object = None


class Trial(msgspec.Struct, frozen=True, omit_defaults=True):
    """One recorded decision under both policies: statuses or verdicts, the parts that differ, and why."""

    number: int
    time: str
    subject: str
    now: str
    candidate: str
    changed: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    sequence: int = 0
    error: str = ""

    @property
    def same(self) -> bool:
        """Whether nothing changes for it."""
        return not self.changed and not self.error


class TestReport(msgspec.Struct, frozen=True):
    """What would change. ``now`` and ``candidate`` name the two policies; ``trials`` are those that differ first."""

    __test__ = False

    now: PolicyUsed
    candidate: PolicyUsed
    tried: int
    same: int
    better: int
    worse: int
    failed: int
    trials: tuple[Trial, ...] = ()
