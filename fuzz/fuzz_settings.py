"""What an operator's files and options say: back ends, settings, trusted issuers, rates, workloads, configuration values."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["adyton"]):
    from adyton.broker import issuers
    from adyton.broker.door.rates import CLASSES, Rate
    from adyton.broker.key_service import configuration
    from adyton.cli import config_file
    from adyton.cli.broker import serve
    from adyton.errors import AdytonError
    from adyton.protocol import workload
    from adyton.protocol.keys import ValueBody
    from adyton.stores.backends import options

import click

FILE = Path(tempfile.mkdtemp()) / "file.toml"
HEADS = (b"", b"[backends.x]\nkind = ", b"[backends.x]\nkind = 'vault'\nurl = ", b"[plugins.x]\nendpoint = ", b"x = ")
SETTINGS = {
    next(name[2:] for name in one.opts if name.startswith("--")): one
    for one in serve.params
    if isinstance(one, click.Option)
}


def attempt(call: Callable[..., object], *arguments: object) -> object:
    try:
        return call(*arguments)
    except AdytonError:
        return None


def one(data: bytes) -> None:
    for head in HEADS:
        attempt(options.parse, head + data, FILE)
    text = data.decode("utf-8", "replace")
    attempt(workload.parse_table, text)
    for form in ("json", "toml"):
        value = attempt(configuration.kept, ValueBody(form, data))
        if isinstance(value, bytes):  # what is kept is JSON, and is kept as it is
            assert attempt(configuration.kept, ValueBody("json", value)) == value
    for rate in (text, f"auth={text}", f"admin=1:{text}"):
        found = attempt(Rate.parse, rate)
        if isinstance(found, tuple):
            assert found[0] in CLASSES
            assert found[1].gap > 0
            assert found[1].room >= 0
    FILE.write_bytes(data)
    attempt(config_file.read, FILE, SETTINGS)
    attempt(issuers.load, [str(FILE)], 0.0)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
