"""The back ends of a broker: opened when first used, each behind its guard, and only for the tenants it is for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from adyton.errors import AdytonError, ConfigError, NotFound, Unavailable
from adyton.protocol.backends import BackendView
from adyton.stores.backends import options
from adyton.stores.backends.guard import Guard
from adyton.stores.backends.options import (
    AwsOptions,
    BackendOptions,
    Configured,
    KmipOptions,
    Pkcs11Options,
    VaultOptions,
)
from adyton.stores.backends.port import KeyHolder, SecretHolder

_T = TypeVar("_T")


class Backend:
    """One back end. ``run`` and ``run_async`` give a call its holder, within its deadline."""

    def __init__(self, name: str, given: BackendOptions) -> None:
        self.name = name
        self.options = given
        self.guard = Guard(name, given.seconds, given.calls)
        self._lock = threading.Lock()
        self._opened: Any = None

    @property
    def kind(self) -> str:
        """What it is, as the file says it."""
        return str(self.options.__struct_config__.tag)

    def run(self, call: Callable[[SecretHolder], _T]) -> _T:
        """``call`` with its values, from a thread that may wait."""
        return self.guard.run(lambda: call(cast("SecretHolder", self.open())))

    async def run_async(self, call: Callable[[SecretHolder], _T]) -> _T:
        """As ``run``, on an event loop."""
        return await self.guard.run_async(lambda: call(cast("SecretHolder", self.open())))

    def with_keys(self, call: Callable[[KeyHolder], _T]) -> _T:
        """``call`` with its keys, from a thread that may wait."""
        return self.guard.run(lambda: call(cast("KeyHolder", self.open())))

    def open(self) -> SecretHolder | KeyHolder:
        """Both, in one object; opened once, and tried again if that failed. It blocks."""
        with self._lock:
            if self._opened is None:
                self._opened = _open(self.options)
            return cast("SecretHolder | KeyHolder", self._opened)

    def check(self) -> BackendView:
        """Ask it what it is."""
        try:
            says = self.guard.run(lambda: self.open().check())
        except AdytonError as error:
            hint = error.hint or ""
            return BackendView(self.name, self.kind, False, "", error.code, error.message, hint, self.guard.state)
        return BackendView(self.name, self.kind, True, says, breaker=self.guard.state)

    def close(self) -> None:
        """Let it go."""
        self.guard.close()
        if self._lock.acquire(timeout=0.1):  # else it hangs while it opens, and so does its close
            try:
                opened, self._opened = self._opened, None
            finally:
                self._lock.release()
            if opened is not None:
                threading.Thread(target=opened.close, daemon=True).start()


class Backends:
    """All that a file names; none without one."""

    def __init__(self, configured: Configured | None = None) -> None:
        self.configured = configured or Configured()
        self._all = {name: Backend(name, given) for name, given in self.configured.backends.items()}

    @classmethod
    def read(cls, path: str) -> Backends:
        """Those of the file at ``path``, none if it is empty; ``ConfigError``. Nothing is asked yet."""
        return cls(options.read(Path(path)) if path else None)

    def of(self, tenant: str, name: str) -> Backend:
        """The back end for this tenant; ``NotFound`` also if it is another's."""
        found = self._all.get(name)
        if found is None or not allowed(found.options.tenants, tenant):
            raise NotFound(
                "there is no such back end",
                code="backend_absent",
                field="backend",
                got=name[:80],
                hint="adyton broker backends lists them; the broker is given them by --backends FILE",
            )
        return found

    def configured_for(self, tenant: str, name: str) -> Backend:
        """As ``of``, for what a stored value names: that it is missing is the operator's trouble."""
        try:
            return self.of(tenant, name)
        except NotFound as error:
            raise Unavailable(
                "a value lies in a back end that this broker was not given",
                code="backend_not_configured",
                field=name,
                hint="start the broker with the --backends FILE that names it",
            ) from error

    def key_holder(self, name: str) -> KeyHolder:
        """For the broker's own keys, such as the one that keeps its root key. It blocks; ``ConfigError``."""
        found = self._all.get(name)
        if found is None:
            raise ConfigError(
                "there is no such back end",
                code="backend_absent",
                field="backend",
                got=name[:80],
                hint="--backends FILE",
            )
        return cast("KeyHolder", found.open())

    def check(self, tenant: str | None = None) -> list[BackendView]:
        """All that the tenant may use, each asked at the same time as the others."""
        chosen = [one for one in self._all.values() if tenant is None or allowed(one.options.tenants, tenant)]
        found: dict[str, BackendView] = {}

        def look(one: Backend) -> None:
            found[one.name] = one.check()

        threads = [threading.Thread(target=look, args=(one,), daemon=True) for one in chosen]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [found[one.name] for one in chosen]

    def close(self) -> None:
        """Let all of them go."""
        for one in self._all.values():
            one.close()


def allowed(tenants: tuple[str, ...], tenant: str) -> bool:
    """Whether a list of tenants has this one."""
    return "*" in tenants or tenant in tenants


def _open(given: BackendOptions) -> Any:
    match given:
        case Pkcs11Options():
            from adyton.stores.backends.pkcs11 import Pkcs11

            return Pkcs11(given)
        case VaultOptions():
            from adyton.stores.backends.vault import Vault

            return Vault(given)
        case AwsOptions():
            from adyton.stores.backends.aws import Aws

            return Aws(given)
        case KmipOptions():
            from adyton.stores.backends.kmip import Kmip

            return Kmip(given)
