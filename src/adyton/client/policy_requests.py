"""What an owner asks a broker about policies: part of ``client.admin.Admin``."""

from __future__ import annotations

from typing import Protocol, TypeVar
from urllib.parse import quote

import msgspec

from adyton.client.transport import Reply
from adyton.protocol.policies import (
    ActivationView,
    DryRunView,
    PolicyBody,
    PolicyView,
    TestBody,
    TestReport,
    VersionBody,
    VersionView,
)

_T = TypeVar("_T")


class _Asks(Protocol):
    def _ask(self, method: str, path: str, kind: type[_T], body: msgspec.Struct | None = None) -> _T: ...
    def _send(self, method: str, path: str, body: msgspec.Struct | None = None) -> Reply: ...


class PolicyRequests:
    """Every change is durable, and in force everywhere, when its method returns."""

    def set_policy(
        self: _Asks, kind: str, policy_id: str, text: str, *, note: str = "", activate: bool = True
    ) -> PolicyView:
        """Set a new version and activate it, or keep it as a candidate; ``PolicyInvalid`` if it is not accepted."""
        return self._ask("PUT", _path(kind, policy_id), PolicyView, PolicyBody(text, note, activate))

    def list_policies(self: _Asks, *, every: bool = False) -> list[PolicyView]:
        """Those that are in force, without their text; ``every``: candidates and deleted ones too."""
        return self._ask("GET", "/policies?all=1" if every else "/policies", list[PolicyView])

    def show_policy(self: _Asks, kind: str, policy_id: str, version: int | None = None) -> PolicyView:
        """The policy in force, or one version, with its text; ``NotFound``."""
        wanted = "" if version is None else f"?version={version}"
        return self._ask("GET", _path(kind, policy_id) + wanted, PolicyView)

    def delete_policy(self: _Asks, kind: str, policy_id: str) -> None:
        """Take it out of force; its versions stay. ``NotFound``."""
        self._send("DELETE", _path(kind, policy_id))

    def policy_versions(self: _Asks, kind: str, policy_id: str) -> list[VersionView]:
        """All versions that are kept, the newest first; ``NotFound``."""
        return self._ask("GET", _path(kind, policy_id, "versions"), list[VersionView])

    def policy_activations(self: _Asks, kind: str, policy_id: str) -> list[ActivationView]:
        """What was put into force and taken out of it, the newest first."""
        return self._ask("GET", _path(kind, policy_id, "activations"), list[ActivationView])

    def activate_policy(self: _Asks, kind: str, policy_id: str, version: int) -> PolicyView:
        """Let a version decide; ``NotFound``."""
        return self._ask("POST", _path(kind, policy_id, "activate"), PolicyView, VersionBody(version))

    def rollback_policy(self: _Asks, kind: str, policy_id: str) -> PolicyView:
        """Let the version decide that did before; ``NotFound`` if there is none."""
        return self._ask("POST", _path(kind, policy_id, "rollback"), PolicyView)

    def dry_run_policy(self: _Asks, kind: str, policy_id: str, version: int) -> DryRunView:
        """Evaluate a version beside the deciding one from now on; ``NotFound``."""
        return self._ask("POST", _path(kind, policy_id, "dry-run"), DryRunView, VersionBody(version))

    def dry_runs(self: _Asks, kind: str, policy_id: str) -> list[DryRunView]:
        """The version on trial with what came of it, or none."""
        return self._ask("GET", _path(kind, policy_id, "dry-run"), list[DryRunView])

    def end_dry_run(self: _Asks, kind: str, policy_id: str) -> None:
        """Try it no longer; ``NotFound``."""
        self._send("DELETE", _path(kind, policy_id, "dry-run"))

    def test_policy(self: _Asks, body: TestBody) -> TestReport:
        """What would change of the decisions that are recorded."""
        return self._ask("POST", "/policy-tests", TestReport, body)

    def recordings(self: _Asks, after: int = 0, limit: int = 500) -> list[bytes]:
        """Recorded decisions after number ``after``, a line of JSON each; a page of them."""
        return self._send("GET", f"/recordings?after={after}&limit={limit}").body.split(b"\n")[:-1]

    def forget_recordings(self: _Asks) -> None:
        """Drop everything that is recorded."""
        self._send("DELETE", "/recordings")


def _path(kind: str, policy_id: str, what: str = "") -> str:
    named = f"/policies/{quote(kind, safe='')}/{quote(policy_id, safe='')}"
    return f"{named}/{what}" if what else named
