"""The owner's side of keys: made, turned, used and destroyed through an administration client."""

from __future__ import annotations

from adyton.client.admin import Admin
from adyton.protocol.authority import AuthorityView
from adyton.protocol.keys import (
    ConfigurationView,
    KeyView,
    NewKey,
    Operation,
    PublicView,
    RotateBody,
    TransitAnswer,
    TransitBody,
)
from adyton.protocol.resource import ResourcePath


class Keys:
    """The keys of a broker's tenant. Every change is durable, and in force everywhere, when its method returns."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def create(self, path: ResourcePath, body: NewKey) -> KeyView:
        """Make a key or bring one in; ``Conflict`` if something is there."""
        return self._admin.ask("PUT", f"/keys/{path}", KeyView, body)

    def rotate(self, path: ResourcePath, body: RotateBody | None = None) -> KeyView:
        """One more version, which is the newest from then on."""
        return self._admin.ask("POST", f"/keys/{path}/rotate", KeyView, body or RotateBody())

    def list(self) -> list[KeyView]:
        """All of the tenant's, by URI."""
        return self._admin.pages("/keys", list[KeyView])

    def show(self, path: ResourcePath) -> KeyView:
        """One of them; ``NotFound``."""
        return self._admin.ask("GET", f"/keys/{path}", KeyView)

    def disable(self, path: ResourcePath, version: int) -> KeyView:
        """Nobody uses or gets this version until it is enabled."""
        return self._admin.ask("POST", f"/keys/{path}/versions/{version}/disable", KeyView)

    def enable(self, path: ResourcePath, version: int) -> KeyView:
        """It can be used again; ``Conflict`` if it is destroyed."""
        return self._admin.ask("POST", f"/keys/{path}/versions/{version}/enable", KeyView)

    def destroy(self, path: ResourcePath, version: int | None = None) -> KeyView:
        """Erase a version, or all of them, for ever."""
        which = "" if version is None else f"/versions/{version}"
        return self._admin.ask("POST", f"/keys/{path}{which}/destroy", KeyView)

    def delete(self, path: ResourcePath) -> None:
        """Erase all of it, and forget that it was there."""
        self._admin.send("DELETE", f"/keys/{path}")

    def public(self, path: ResourcePath, version: int | None = None) -> PublicView:
        """The public half of a version, or of the newest."""
        return self._admin.ask("GET", f"/keys/{path}/public{_query(version)}", PublicView)

    def use(self, operation: Operation, path: ResourcePath, given: TransitBody) -> TransitAnswer:
        """Use it where it is; ``Conflict`` unless its settings let its owner."""
        return self._admin.ask("POST", f"/keys/{path}/use/{operation}", TransitAnswer, given)

    def configuration(self, path: ResourcePath, version: int | None = None) -> ConfigurationView:
        """A configuration value that is not secret."""
        return self._admin.ask("GET", f"/keys/{path}/value{_query(version)}", ConfigurationView)

    def authority(self) -> AuthorityView:
        """The tenant's certification authority."""
        return self._admin.ask("GET", "/authority", AuthorityView)


def _query(version: int | None) -> str:
    return "" if version is None else f"?version={version}"
