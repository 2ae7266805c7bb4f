"""What an operator writes about back ends and plug-ins: one TOML file, one table each. No library is imported for it.

::

    [backends.vault]            # how resources name it
    kind = "vault"
    url = "https://vault.example:8200"
    token_file = "/etc/adyton/vault.token"
    tenants = ["acme"]          # who may use it; all by default

    [plugins.provisioner]       # served under /kbs/v0/provisioner/…
    endpoint = "https://127.0.0.1:50051"
    ca_file = "/etc/adyton/plugin-ca.pem"

Paths are absolute or below the file's own directory. Seconds throughout.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from adyton.errors import ConfigError
from adyton.stores.backends.private import check_not_writable

MAX_FILE = 1024 * 1024
RESERVED = frozenset(
    {"auth", "attest", "attestation-policy", "resource-policy", "reference-value", "resource", "key", "external"}
)
"""First parts of a path that are the broker's own."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")


class Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of every back end: which tenants may use it (``*``: all), how long one call may take, and how many at once."""

    tenants: tuple[str, ...] = ("*",)
    seconds: float = 5.0
    calls: int = 4


class Pkcs11Options(Common, frozen=True, tag_field="kind", tag="pkcs11"):
    """Which token. ``module`` is the vendor's library, ``token`` the token's label, ``pin_file`` mode 0600.

    ``oaep_hash`` is ``sha-256``, or ``sha-1`` for tokens that know no other (SoftHSM2).
    """

    module: str
    token: str
    pin_file: str
    application: str = "adyton"
    oaep_hash: str = "sha-256"


class VaultOptions(Common, frozen=True, tag_field="kind", tag="vault"):
    """Which Vault, and as whom: ``token_file``, or ``role_id_file`` and ``secret_id_file`` (mode 0600).

    ``ca_file`` holds the certificates that the server's must lead to; without it those of the system. ``prefix`` is
    where in ``kv_mount`` (KV version 2) values lie: ``<prefix>/<tenant>/<path>``. ``foreign_field`` is what holds a
    value that others wrote. ``insecure_http`` allows ``http://`` to another machine.
    """

    url: str
    token_file: str = ""
    role_id_file: str = ""
    secret_id_file: str = ""
    approle_mount: str = "approle"
    namespace: str = ""
    ca_file: str = ""
    kv_mount: str = "secret"
    prefix: str = "adyton"
    transit_mount: str = "transit"
    foreign_field: str = "value"
    insecure_http: bool = False


class AwsOptions(Common, frozen=True, tag_field="kind", tag="aws"):
    """Which account and region. ``endpoint_url`` for a private endpoint; ``kms_key`` seals the secrets.

    ``window_days``: how long AWS keeps a key back that is to be destroyed (7 to 30).
    """

    region: str
    endpoint_url: str = ""
    profile: str = ""
    credentials_file: str = ""
    ca_file: str = ""
    prefix: str = "adyton"
    kms_key: str = ""
    window_days: int = 7
    insecure_http: bool = False


class KmipOptions(Common, frozen=True, tag_field="kind", tag="kmip"):
    """Which KMIP server, by mutual TLS: our certificate and its key (mode 0600), and the authority of the server's."""

    host: str
    certificate: str
    private_key: str
    ca_file: str
    port: int = 5696
    application: str = "adyton"


class PluginOptions(Common, frozen=True):
    """An external gRPC plug-in. ``https://`` needs ``ca_file``; ``http://`` is for this machine, or ``insecure_http``.

    ``certificate`` and ``private_key`` (mode 0600) are ours, where the plug-in asks for one. ``max_answer`` in bytes.
    Workloads reach it if the tenant's resource policy allows it, or with ``any_workload_i_accept``.
    """

    endpoint: str
    ca_file: str = ""
    certificate: str = ""
    private_key: str = ""
    max_answer: int = 2 * 1024 * 1024
    insecure_http: bool = False
    any_workload_i_accept: bool = False


BackendOptions: TypeAlias = Pkcs11Options | VaultOptions | AwsOptions | KmipOptions
_PATHS = (
    *("module", "pin_file", "token_file", "role_id_file", "secret_id_file", "credentials_file", "ca_file"),
    *("certificate", "private_key"),
)


class Configured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    backends: dict[str, BackendOptions] = {}
    plugins: dict[str, PluginOptions] = {}


def read(path: Path) -> Configured:
    """The file at ``path``; ``ConfigError`` names the entry that is wrong. Nobody else may write it: it names programs."""
    check_not_writable(path, "backends")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _wrong(path, "cannot be read", type(error).__name__) from error
    return parse(content, path)


def parse(content: bytes, path: Path) -> Configured:
    """As ``read``, of the file's content."""
    if len(content) > MAX_FILE:
        raise _wrong(path, "is too large", len(content))
    try:
        found = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end, too
        raise _wrong(path, "is not TOML", str(error)[:200]) from error
    for area in ("backends", "plugins"):
        entries = found.get(area)
        for entry in entries.values() if isinstance(entries, dict) else ():
            if isinstance(entry, dict):
                _make_absolute(entry, path.absolute().parent)
    try:
        configured = msgspec.convert(found, Configured)
    except msgspec.ValidationError as error:
        raise _wrong(path, "has an entry that cannot be used", str(error)[:200]) from error
    for name, options in [*configured.backends.items(), *configured.plugins.items()]:
        if not _NAME.match(name) or name in RESERVED:
            raise _wrong(path, "has a name that cannot be used", name[:80])
        if not 0.05 <= options.seconds <= 120 or not 1 <= options.calls <= 256 or not options.tenants:
            raise _wrong(
                path, "has limits that cannot be used", f"{name}: seconds 0.05 to 120, calls 1 to 256, tenants"
            )
    return configured


def _make_absolute(entry: dict[str, Any], directory: Path) -> None:
    for name in _PATHS:
        if isinstance(entry.get(name), str) and entry[name]:
            entry[name] = str(directory / entry[name])


def _wrong(path: Path, what: str, got: object) -> ConfigError:
    return ConfigError(
        f"the file of back ends {what}",
        code="backends_file_invalid",
        field=str(path),
        got=got,
        hint="docs/broker/backends.md has every option",
    )
