"""The process that runs Rego: no environment, files or rights, bounded memory and time; who started it may kill it.

It is started as ``python -I -S`` with this module and talks on standard input and output in frames: a 4-byte
big-endian length, then JSON. A request names a program by its key; ``text`` comes with the first request for a key::

    {"key", "text" | null, "rules": [...], "input": ..., "cpu_ms": n}  ->  {"rules": {rule: text of the result}}
                                                                       |   {"error": code, "detail": text}

Its first frame says whether it can work at all: ``{"ready": true}``, or ``{"unfit": text}`` and it ends. After any other error the parent ends the process, since the engine does not always survive its own errors. A program
that is not known any more is answered with ``unknown_program``, and the parent sends it again. The time an
evaluation may take is CPU time of this process, kept by the kernel (ITIMER_PROF), which kills it when it is over.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import struct
import sys
from collections import OrderedDict
from typing import Any, BinaryIO

import msgspec

PRELUDE = "package policy\n\nquery_reference_value(id) := object.get(input.d.reference, id, null)\n"
MAX_PROGRAMS = 64
NOBODY = 65534
_HEADER = struct.Struct(">I")


def main(memory: int) -> None:
    """Serve until standard input ends. ``memory``: how many bytes more than at its start the process may map."""
    os.environ.clear()  # Python itself has put the locale there
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # the engine prints what it finds wrong, policies' text included
        os.dup2(quiet, descriptor)
    os.close(quiet)
    try:
        from regopy import Interpreter  # maps its library before the limits are set
    except (ImportError, OSError) as error:  # such as a shared library that this machine lacks
        _send(replies, {"unfit": str(error)[:500]})
        return

    # The engine's allocator reserves hundreds of gigabytes of addresses on loading, so the limit is relative.
    limit = _mapped() + memory
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if os.geteuid() == 0:  # the engine is C++ and reads what tenants write: it shall not own the broker's files
        with contextlib.suppress(OSError):  # a user namespace may have nobody else
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the broker
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _send(replies, {"ready": True})
    _serve(Interpreter, requests, replies)


def _mapped() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 -- this process imports as little as it can
        return int(file.read().split()[0]) * resource.getpagesize()


def _serve(interpreter: Any, requests: BinaryIO, replies: BinaryIO) -> None:
    programs: OrderedDict[str, _Program] = OrderedDict()
    while len(header := requests.read(4)) == 4:
        request = msgspec.json.decode(requests.read(_HEADER.unpack(header)[0]))
        _send(replies, _answer(interpreter, programs, request))


def _send(replies: BinaryIO, message: dict[str, Any]) -> None:
    body = msgspec.json.encode(message)
    replies.write(_HEADER.pack(len(body)) + body)
    replies.flush()


class _Program:
    """A compiled policy with the rules that can be asked of it."""

    def __init__(self, interpreter: Any, text: str, rules: list[str]) -> None:
        self.engine = interpreter()
        self.engine.add_module("prelude", PRELUDE)
        self.engine.add_module("policy", text)
        self.bundle = self.engine.build(None, [f"policy/{rule}" for rule in rules])
        if not self.bundle.ok():
            raise ValueError("does not compile")


def _answer(interpreter: Any, programs: OrderedDict[str, _Program], request: Any) -> dict[str, Any]:
    from regopy import RegoError
    from regopy.rego_shared import rego_bundle_query_entrypoint, rego_free_output, rego_output_ok, rego_output_string

    signal.setitimer(signal.ITIMER_PROF, request["cpu_ms"] / 1000)
    try:
        program = programs.get(request["key"])
        if program is None:
            if request["text"] is None:
                return {"error": "unknown_program", "detail": ""}
            try:
                program = _Program(interpreter, request["text"], request["rules"])
            except (RegoError, ValueError, RuntimeError) as error:
                return {"error": "policy_not_rego", "detail": str(error)[:2000]}
            programs[request["key"]] = program
            if len(programs) > MAX_PROGRAMS:
                programs.popitem(last=False)
            signal.setitimer(signal.ITIMER_PROF, request["cpu_ms"] / 1000)
        programs.move_to_end(request["key"])
        results: dict[str, Any] = {}
        if request["input"] is not None:
            program.engine.set_input(request["input"])
            for rule in request["rules"]:
                output = rego_bundle_query_entrypoint(program.engine._impl, program.bundle._impl, f"policy/{rule}")  # noqa: SLF001 -- Output reads each result as JSON, and fails on errors in it
                try:
                    if not rego_output_ok(output):
                        return {"error": "policy_failed", "detail": ""}
                    results[rule] = rego_output_string(output)
                finally:
                    rego_free_output(output)
        return {"rules": results}
    except (RegoError, ValueError, TypeError, MemoryError, RuntimeError, OverflowError) as error:
        return {"error": "policy_failed", "detail": type(error).__name__}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
