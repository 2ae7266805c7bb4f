"""The device of a slot, by a TOML file of its options (``kind``, and what ``adyton.stores.backends`` has for that kind).

The options are the operator's, on the machine; nothing of them is read from the store, since whoever writes there could
name a library of his own.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import msgspec

from adyton.errors import ConfigError
from adyton.stores.backends.port import KeyHolder

# kind -> (module, its options, who holds keys)
KINDS = {
    "aws": ("adyton.stores.backends.aws", "Options", "Aws"),
    "kmip": ("adyton.stores.backends.kmip", "Options", "Kmip"),
    "pkcs11": ("adyton.stores.backends.pkcs11", "Options", "Pkcs11"),
    "vault": ("adyton.stores.backends.vault", "Options", "Vault"),
}


def key_holder(file: Path) -> KeyHolder:
    """The holder that the options in ``file`` describe; ``ConfigError``."""
    try:
        raw = file.read_bytes()
        kind = msgspec.toml.decode(raw, type=dict[str, object]).get("kind")
    except (OSError, ValueError) as error:
        raise _unusable(file, str(error)[:200]) from error
    if not isinstance(kind, str) or kind not in KINDS:
        raise _unusable(file, f"kind must be one of {', '.join(KINDS)}")
    module_name, options_name, holder_name = KINDS[kind]
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"keys of the kind {kind} need a part that is not installed",
            code="backend_missing",
            field=str(file),
            got=error.name,
            hint=f"pip install 'adyton[{kind}]'",
        ) from error
    try:
        options = msgspec.toml.decode(raw, type=getattr(module, options_name))
    except ValueError as error:
        raise _unusable(file, str(error)[:200]) from error
    holder: KeyHolder = getattr(module, holder_name)(options)
    return holder


def _unusable(file: Path, why: str) -> ConfigError:
    return ConfigError("a device's options cannot be used", code="device_options", field=str(file), got=why)
