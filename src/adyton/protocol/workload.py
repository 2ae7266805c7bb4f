"""The workload document: what is to run, exactly (contracts, 2). What it does not allow is refused.

It is TOML, carried in init data under ``workload.toml``; its init data's SHA-256 is HOST_DATA, so evidence says what an
instance was started for. ``parse`` and ``write`` are inverse on values; the digest is over the bytes of the init data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import msgspec

from adyton.errors import DocumentInvalid
from adyton.protocol import initdata
from adyton.rats.types import Digest
from adyton.wire import toml

KEY = "workload.toml"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_PIN = re.compile(r"sha256:[0-9a-f]{64}\Z")


class Mount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place in the workload's file system. ``host``: the operator's directory; never implied."""

    path: str
    kind: Literal["tmpfs", "volume", "host"]
    mode: Literal["ro", "rw"] = "rw"


class Port(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A port that the workload may have published. The host's side of it is the operator's choice."""

    container: int
    protocol: Literal["tcp"] = "tcp"


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where keys come from. ``pin`` is ``sha256:<hex>`` of the SPKI of its certificate; needed for https."""

    url: str
    pin: str | None = None


class EnvPattern(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A variable whose value the operator may choose within an anchored regular expression."""

    pattern: str


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The document. ``command`` is the whole argument vector; ``env`` values are exact or an ``EnvPattern``."""

    image: str
    command: list[str]
    cwd: str = "/"
    user: str = "0:0"
    env: dict[str, str | EnvPattern] = {}
    mounts: list[Mount] = []
    ports: list[Port] = []
    network: Literal["none", "host", "bridge"] = "none"
    broker: Broker | None = None
    terminal: bool = False
    debug: bool = False
    logs: bool | Literal["host"] = False


@dataclass(frozen=True, slots=True)
class WorkloadDocument:
    """A checked workload with the init data that carries it. ``digest`` (SHA-256 of ``raw``) is HOST_DATA."""

    raw: bytes
    workload: Workload
    data: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """What SNP's HOST_DATA must hold."""
        return Digest.of(self.raw)


def parse(raw: bytes) -> WorkloadDocument:
    """Read init data that carries a workload; ``DocumentInvalid`` names the member that is wrong."""
    document = initdata.parse(raw)
    if document.algorithm != "sha256":
        raise DocumentInvalid(
            "a workload document uses sha256, the size of HOST_DATA",
            code="workload_algorithm",
            expected="sha256",
            got=document.algorithm,
        )
    text = document.data.get(KEY)
    if text is None:
        raise DocumentInvalid(
            f"init data has no {KEY}",
            code="workload_missing",
            field=KEY,
            hint="write one: adyton workload new IMAGE -o W.toml",
        )
    return WorkloadDocument(raw=raw, workload=parse_table(text), data=document.data)


def parse_table(text: str) -> Workload:
    """Read the inner TOML table and check it."""
    try:
        workload = msgspec.convert(toml.parse(text), Workload)
    except msgspec.ValidationError as error:
        raise DocumentInvalid(f"{KEY}: {error}", code="workload_malformed", field=KEY) from error
    except ValueError as error:
        raise DocumentInvalid(f"{KEY} is not TOML: {error}", code="workload_malformed", field=KEY) from error
    check(workload)
    return workload


def write(workload: Workload, extra: Mapping[str, str] | None = None) -> WorkloadDocument:
    """The document for ``workload``, with further init data entries beside it."""
    check(workload)
    data = {KEY: to_toml(workload), **(extra or {})}
    return WorkloadDocument(raw=initdata.write(data), workload=workload, data=data)


def with_entries(document: WorkloadDocument, entries: Mapping[str, str]) -> WorkloadDocument:
    """The same workload with these entries of init data in place of those of the same names; another digest, then."""
    data = {**document.data, **entries}
    return WorkloadDocument(raw=initdata.write(data), workload=document.workload, data=data)


def check(workload: Workload) -> None:
    """Raise ``DocumentInvalid`` unless every member can be enforced."""
    try:
        image = Digest.parse(workload.image)
    except ValueError as error:
        raise _invalid("image", "a manifest digest, sha256:<hex>", workload.image) from error
    if image.algorithm != "sha256":
        raise _invalid("image", "sha256", workload.image)
    if not workload.command or any("\0" in part for part in workload.command):
        raise _invalid("command", "at least one argument, none with a NUL", workload.command)
    for name, path in [("cwd", workload.cwd), *(("mounts", mount.path) for mount in workload.mounts)]:
        if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise _invalid(name, "an absolute path without '..'", path)
    for mount in workload.mounts:
        if mount.path != normal_path(mount.path) or mount.path == "/" or mount.path.split("/")[1] == "proc":
            raise _invalid(
                "mounts", "a path below / and not below /proc, without '.', empty parts and a last '/'", mount.path
            )
    if len({mount.path for mount in workload.mounts}) != len(workload.mounts):
        raise _invalid("mounts", "each path once", [mount.path for mount in workload.mounts])
    for name, value in workload.env.items():
        if not _NAME.match(name):
            raise _invalid("env", "a variable name", name)
        if isinstance(value, EnvPattern):
            try:
                re.compile(value.pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise _invalid("env", "a regular expression", value.pattern) from error
        elif "\0" in value:
            raise _invalid("env", "a value without NUL", name)
    if workload.logs is True:
        raise _invalid("logs", 'false or "host"', workload.logs)
    if any(not 0 < port.container < 65536 for port in workload.ports):
        raise _invalid("ports", "1 to 65535", [port.container for port in workload.ports])
    if workload.ports and workload.network == "none":
        raise _invalid("ports", "network = 'bridge' or 'host' when ports are published", workload.network)
    if workload.broker is not None:
        _check_broker(workload.broker)


def normal_path(path: str) -> str:
    """An absolute path without ``.`` and empty parts: one spelling for one place."""
    return "/" + "/".join(part for part in path.split("/") if part not in {"", "."})


def _check_broker(broker: Broker) -> None:
    if broker.pin is not None and not _PIN.match(broker.pin):
        raise _invalid("broker.pin", "sha256:<hex of the SPKI's digest>", broker.pin)
    if broker.url.startswith("https://") and broker.pin is None:
        raise _invalid("broker.pin", "a pin: the certificate of an https broker is known by its SPKI alone", None)
    if not broker.url.startswith(("https://", "http://")):
        raise _invalid("broker.url", "http:// (loopback) or https://", broker.url)


def allowed_env(workload: Workload, offered: Mapping[str, str]) -> dict[str, str]:
    """The workload's environment: exact values as documented, offered ones where a pattern matches in full.

    What is not listed is dropped. A listed pattern whose offered value does not match is ``DocumentInvalid``.
    """
    result: dict[str, str] = {}
    for name, rule in workload.env.items():
        if isinstance(rule, str):
            result[name] = rule
        elif name in offered:
            if re.fullmatch(rule.pattern, offered[name]) is None:
                raise DocumentInvalid(
                    f"the workload document does not allow this value of {name}",
                    code="env_not_allowed",
                    field=f"env.{name}",
                    expected=rule.pattern,
                )
            result[name] = offered[name]
    return result


def to_toml(workload: Workload) -> str:
    """The inner table as text, members in a fixed order, defaults left out."""
    built = cast("dict[str, object]", msgspec.to_builtins(workload))
    plain = {name: value for name, value in built.items() if not isinstance(value, dict) and not _is_tables(value)}
    lines = [f"{name} = {_value(value)}" for name, value in plain.items()]
    for name, value in built.items():
        if isinstance(value, dict):
            lines += ["", f"[{name}]", *(f"{_key(key)} = {_value(item)}" for key, item in value.items())]
        elif _is_tables(value):
            for table in cast("list[dict[str, object]]", value):
                lines += ["", f"[[{name}]]", *(f"{_key(key)} = {_value(item)}" for key, item in table.items())]
    return "\n".join(lines) + "\n"


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else initdata.toml_string(name)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return initdata.toml_string(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    raise ValueError(f"{type(value).__name__} does not occur in a workload document")


def _invalid(name: str, expected: str, got: object) -> DocumentInvalid:
    return DocumentInvalid(
        f"workload document: {name} must be {expected}",
        code="workload_invalid",
        field=name,
        expected=expected,
        got=got,
        spec="contracts 2",
    )
