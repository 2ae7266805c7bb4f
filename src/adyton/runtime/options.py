"""What ``adyton run`` is told, as types: podman's spellings read strictly, nothing looked up."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from adyton.errors import ConfigError
from adyton.protocol.devtee import Publish
from adyton.protocol.workload import normal_path

Network = Literal["none", "host", "bridge"]
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True, slots=True)
class Volume:
    """``-v SOURCE:PATH[:ro]``. ``source`` is an absolute path of the host or a volume's name; "" is anonymous."""

    source: str
    path: str
    mode: Literal["ro", "rw"] = "rw"

    @property
    def is_host(self) -> bool:
        """Whether the operator points at a directory or file of the host."""
        return self.source.startswith("/")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Everything that can be said about one run. ``command`` is what stands after the image's name."""

    image: str
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    user: str | None = None
    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[str, ...] = ()
    publish: tuple[Publish, ...] = ()
    network: Network | None = None
    interactive: bool = False
    terminal: bool = False
    remove: bool = False
    detach: bool = False
    name: str = ""
    debug: bool = False


def volume(text: str) -> Volume:
    """Read ``-v``: ``SOURCE:PATH[:ro|rw]`` or an anonymous ``PATH``. A relative source that has a ``/`` is a path."""
    parts = text.split(":")
    if len(parts) == 1:
        return Volume("", _absolute("-v", parts[0], text))
    if len(parts) > 3 or not parts[0]:
        raise _invalid("-v", "SOURCE:PATH[:ro]", text)
    mode = parts[2] if len(parts) == 3 else "rw"
    if mode not in {"ro", "rw"}:
        raise _invalid("-v", "ro or rw after the second colon", text)
    source = parts[0]
    if "/" in source or source.startswith("."):
        source = str(Path(source).expanduser().absolute())
    elif not _NAME.match(source):
        raise _invalid("-v", "a path, or a volume's name of letters, digits, '_', '.' and '-'", text)
    return Volume(source, _absolute("-v", parts[1], text), cast("Literal['ro', 'rw']", mode))


def tmpfs(text: str) -> str:
    """Read ``--tmpfs PATH[:options]``; the options that podman takes have fixed values here."""
    return _absolute("--tmpfs", text.partition(":")[0], text)


def publish(text: str) -> Publish:
    """Read ``-p [[ip:]host:]container[/tcp]``; without an address it is the loopback one, unlike podman's all."""
    body, slash, protocol = text.partition("/")
    if slash and protocol != "tcp":
        raise _invalid("-p", "tcp: only that is forwarded", text)
    address = "127.0.0.1"
    if body.startswith("["):
        address, bracket, body = body[1:].partition("]:")
        if not bracket:
            raise _invalid("-p", "[IPv6 address]:host:container", text)
    parts = body.split(":")
    if len(parts) == 3:
        address, *parts = parts
    if not 1 <= len(parts) <= 2:
        raise _invalid("-p", "[[ip:]host:]container", text)
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise _invalid("-p", "an IP address before the ports", text) from error
    host = _port(parts[0], text, zero=True) if len(parts) == 2 and parts[0] else 0
    return Publish(_port(parts[-1], text), host, address)


def env(items: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Read ``-e``: ``K=V``, or ``K`` for the caller's own value; a variable that the caller lacks is left out."""
    result: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not _VARIABLE.match(name):
            raise _invalid("-e", "NAME=VALUE or NAME", name)
        if equals:
            result[name] = value
        elif name in environment:
            result[name] = environment[name]
    return result


def env_file(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Read the lines of ``--env-file``; empty ones and those with ``#`` first are passed over."""
    lines = [line.lstrip() for line in text.splitlines()]
    return env([line for line in lines if line and not line.startswith("#")], environment)


def name(text: str) -> str:
    """Read ``--name``."""
    if not _NAME.match(text):
        raise _invalid("--name", "letters, digits, '_', '.' and '-', not first one of the last three", text)
    return text


def entrypoint(text: str) -> tuple[str, ...]:
    """Read ``--entrypoint``: one word, or a JSON array; empty clears the image's own."""
    import json

    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError as error:
            raise _invalid("--entrypoint", "a JSON array of strings", text) from error
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise _invalid("--entrypoint", "a JSON array of strings", text)
        return tuple(words)
    return (text,) if text else ()


def _absolute(option: str, path: str, text: str) -> str:
    if not path.startswith("/") or ".." in path.split("/"):
        raise _invalid(option, "an absolute path in the workload, without '..'", text)
    return normal_path(path)


def _port(digits: str, text: str, *, zero: bool = False) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 6 and (0 if zero else 1) <= int(digits) < 65536):
        raise _invalid("-p", "ports from 1 to 65535; ranges are not known", text)
    return int(digits)


def _invalid(option: str, expected: str, got: str) -> ConfigError:
    return ConfigError(
        f"{option}: expected {expected}", code="option_invalid", field=option, expected=expected, got=got
    )
