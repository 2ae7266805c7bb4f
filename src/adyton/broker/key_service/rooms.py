"""The key service's rooms of the administrative API, put together."""

from __future__ import annotations

from adyton.broker.door.asked import Room
from adyton.broker.key_service.authority import Authority
from adyton.broker.key_service.authority_api import AuthorityApi
from adyton.broker.key_service.key_api import KeyApi
from adyton.broker.key_service.key_engines import Devices
from adyton.broker.key_service.key_making import Leftovers
from adyton.broker.key_service.key_use import KeyUse
from adyton.broker.policy.policies import PolicyBook
from adyton.crypto.profile import Profile
from adyton.stores.sqlite import Store


def opened(  # noqa: PLR0917 -- one part each
    store: Store,
    book: PolicyBook,
    use: KeyUse,
    devices: Devices,
    values: Leftovers,
    profile: Profile,
    authority: Authority,
) -> dict[str, Room]:
    """By noun."""
    certificates = AuthorityApi(authority, store.authorities)
    keys = KeyApi(store, book, use, devices, values, profile, authority)
    return {"keys": keys, "authority": certificates, "authorities": certificates}
