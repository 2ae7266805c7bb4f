"""Evaluating Rego: in a process of its own, within bounds, and never twice for the same question.

The engine (Microsoft's rego-cpp) is neither pure nor bounded, so it runs in ``rego_worker`` with an empty environment,
a limit of memory and 100 ms of CPU time. Whatever a policy breaks there, the answer is ``PolicyInvalid`` and the next
evaluation finds a fresh process; a process that cannot start at all is ``PlatformError``, the operator's to mend. Only policies that ``appraisal.rego_check`` accepted get that far.

``evaluate`` is for threads, ``evaluate_async`` for an event loop, which is not held up meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from adyton.appraisal.rego_check import AcceptedPolicy
from adyton.broker.policy import rego_failures
from adyton.broker.policy.rego_failures import CPU_SECONDS
from adyton.broker.policy.rego_key import Reader
from adyton.broker.policy.rego_values import prepare, single
from adyton.errors import AdytonError, PolicyInvalid, Unavailable
from adyton.rats.types import JsonValue

WALL_SECONDS = 2.0
START_SECONDS = 20.0
MEMORY = 256 * 1024 * 1024
MAX_REMEMBERED = 4096
MAX_PREPARED = 64
MAX_LATELY = 32
MAX_REPLY = 1024 * 1024
_HEADER = struct.Struct(">I")
_START = (
    "import sys; sys.path[:] = sys.argv[2:]; from adyton.broker.policy.rego_worker import main; main(int(sys.argv[1]))"
)


class Absent:
    """The value of a rule that has none."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()
Results = Mapping[str, "JsonValue | Absent"]
T = TypeVar("T")


class Memory(Generic[T]):
    """Answers by question, the oldest forgotten first. The key ``None`` is never remembered."""

    def __init__(self, size: int = MAX_REMEMBERED) -> None:
        self._size = size
        self._answers: dict[Hashable, T] = {}
        self.get: Callable[[Hashable], T | None] = self._answers.get  # the dict's own: each handshake asks nine times

    def put(self, key: Hashable, answer: T) -> None:
        """Remember it."""
        if key is None:
            return
        if len(self._answers) >= self._size:
            with contextlib.suppress(StopIteration, KeyError, RuntimeError):  # another thread was here
                self._answers.pop(next(iter(self._answers)))
        self._answers[key] = answer


class _Asked(NamedTuple):
    """What was asked of the engine, and what stands for its data."""

    policy: AcceptedPolicy
    rules: tuple[str, ...]
    document: Mapping[str, JsonValue]
    data_key: Hashable
    question: Mapping[str, object]


class RegoEngine:
    """A worker process, one that stands by, both started when first needed, and what was found out before."""

    def __init__(self, *, cpu_seconds: float = CPU_SECONDS, memory: int = MEMORY) -> None:
        self._cpu_milliseconds = round(cpu_seconds * 1000)
        self._memory = memory
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._preparing = threading.Lock()  # taken before the other, never after it
        self._spare: _Worker | None = None
        self._lately: OrderedDict[str, _Asked] = OrderedDict()
        self._thread: ThreadPoolExecutor | None = None
        self._remembered = Memory[Results]()
        self._under_way: dict[Hashable, asyncio.Future[Results]] = {}
        self._prepared = Memory[JsonValue](MAX_PREPARED)
        self._readers = Memory[Reader](MAX_PREPARED)
        self.asked = self.known = 0  # questions that were put to the engine, and whose answer was remembered

    def remembered(
        self, policy: AcceptedPolicy, rules: Sequence[str], document: Mapping[str, JsonValue], data_key: Hashable
    ) -> tuple[Hashable, Results | None]:
        """The key of a question and its answer, if known. ``data_key`` stands for the data's content: same key, same data.

        The key is ``None`` where the policy reads its input by computed paths: then nothing is ever remembered.
        """
        if policy.paths is None:
            return None, None
        reader = self._readers.get(policy.digest)
        if reader is None:
            reader = Reader(policy.paths, policy.tests)
            self._readers.put(policy.digest, reader)
        read = reader.key(document)
        if read is None:
            return None, None
        key = (policy.digest, data_key, read, *rules)
        known = self._remembered.get(key)
        if known is not None:
            self.known += 1
        return key, known

    def evaluate(
        self,
        policy: AcceptedPolicy,
        rules: Sequence[str],
        document: Mapping[str, JsonValue],
        data: Mapping[str, JsonValue],
        data_key: Hashable = None,
    ) -> Results:
        """The values of ``rules`` with ``document`` as input; remembered if there is a ``data_key`` and it may be."""
        key, known = self.remembered(policy, rules, document, data_key) if data_key is not None else (None, None)
        if known is not None:
            return known
        results = self._answer(policy, rules, document, data, data_key)
        self._remembered.put(key, results)
        return results

    async def evaluate_async(
        self,
        policy: AcceptedPolicy,
        rules: Sequence[str],
        document: Mapping[str, JsonValue],
        data: Mapping[str, JsonValue],
        data_key: Hashable = None,
    ) -> Results:
        """As ``evaluate``; what is remembered costs no thread, and what is being asked is not asked a second time.

        After each activation all handshakes of a fleet have the same new question at once.
        """
        key, known = self.remembered(policy, rules, document, data_key) if data_key is not None else (None, None)
        if known is not None:
            return known
        loop = asyncio.get_running_loop()
        asked = self._under_way.get(key) if key is not None else None
        if asked is None or asked.get_loop() is not loop:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="rego")
            asked = loop.run_in_executor(self._thread, self._answer, policy, rules, document, data, data_key)
            if key is not None:
                self._under_way[key] = asked
                asked.add_done_callback(partial(self._answered, key))
        return await asyncio.shield(asked)  # whoever goes away meanwhile takes nobody else's answer along

    def _answer(
        self,
        policy: AcceptedPolicy,
        rules: Sequence[str],
        document: Mapping[str, JsonValue],
        data: Mapping[str, JsonValue],
        data_key: Hashable,
    ) -> Results:
        """In the engine's thread, so that a long list of reference values does not hold up the loop."""
        question = self._question(document, data, data_key)
        return self._ask(_Asked(policy, tuple(rules), document, data_key, question))

    def _answered(self, key: Hashable, asked: asyncio.Future[Results]) -> None:
        if self._under_way.get(key) is asked:
            del self._under_way[key]
        if not asked.cancelled() and asked.exception() is None:
            self._remembered.put(key, asked.result())

    def _question(
        self, document: Mapping[str, JsonValue], data: Mapping[str, JsonValue], data_key: Hashable
    ) -> dict[str, object]:
        prepared = self._prepared.get(data_key)
        if prepared is None:
            prepared = prepare(dict(data))
            self._prepared.put(data_key, prepared)
        return {"i": prepare(dict(document)), "d": prepared}

    def compile(self, policy: AcceptedPolicy, rules: Sequence[str]) -> None:
        """``PolicyInvalid`` if the engine does not take the policy. From then on the policy is there, compiled.

        Compiling takes ten times as long as an answer, so it is done in a second process, beside what was asked lately;
        then the two change places. Nobody's question waits for it. The question that was asked last is asked of the new
        policy ahead: a fleet's next handshake has the same.
        """
        with self._preparing:
            with self._lock:
                lately = list(self._lately.items())
            for key, asked in lately:
                try:
                    self._prepared_by_spare(key, asked.policy.engine_text, asked.rules)
                except PolicyInvalid:  # it once was taken: whoever asks next finds out what is wrong with it
                    with self._lock:
                        self._lately.pop(key, None)
            spare = self._prepared_by_spare(_key(policy, rules), policy.engine_text, rules)
            last = next((asked for _, asked in reversed(lately) if asked.rules == tuple(rules)), None)
            if last is not None and not self._answered_ahead(spare, last._replace(policy=policy)):
                spare.kill()
                self._spare = None
                return
            with self._lock:
                self._worker, self._spare = spare, self._worker

    def _answered_ahead(self, spare: _Worker, asked: _Asked) -> bool:
        """Have the answer, if it is one that may be remembered; whether the process may go on."""
        try:
            said = self._told(
                spare, _key(asked.policy, asked.rules), asked.policy.engine_text, asked.rules, asked.question
            )
            if asked.data_key is not None:
                key, _ = self.remembered(asked.policy, asked.rules, asked.document, asked.data_key)
                self._remembered.put(key, _results(said))
        except AdytonError:  # the policy breaks on this very question: for whoever asks it to find out
            return False
        return True

    def _prepared_by_spare(self, key: str, text: str, rules: Sequence[str]) -> _Worker:
        if self._spare is None or not self._spare.alive():
            if self._spare is not None:
                self._spare.kill()
            self._spare = _Worker(self._memory)
        try:
            self._told(self._spare, key, text, rules, None)
        except AdytonError:
            self._spare.kill()
            self._spare = None
            raise
        return self._spare

    def close(self) -> None:
        """End the worker process."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None
        with self._preparing, self._lock:
            for worker in (self._worker, self._spare):
                if worker is not None:
                    worker.kill()
            self._worker = self._spare = None

    def _ask(self, asked: _Asked) -> Results:
        self.asked += 1
        policy, rules = asked.policy, asked.rules
        key = _key(policy, rules)
        with self._lock:
            if self._worker is None or not self._worker.alive():  # died while idle: nobody's policy did that
                if self._worker is not None:
                    self._worker.kill()
                self._worker = _Worker(self._memory)
            try:
                said = self._told(self._worker, key, policy.engine_text, rules, asked.question)
            except AdytonError:
                self._worker.kill()
                self._worker = _Worker(self._memory)  # starts up while the refusal is on its way
                raise
            self._lately[key] = asked
            self._lately.move_to_end(key)
            if len(self._lately) > MAX_LATELY:
                self._lately.popitem(last=False)
        return _results(said)

    def _told(
        self, worker: _Worker, key: str, text: str, rules: Sequence[str], question: Mapping[str, object] | None
    ) -> dict[str, str]:
        """What a worker process says; after an error it is not to be used any more."""
        asked = {"key": key, "text": None, "rules": list(rules), "input": question, "cpu_ms": self._cpu_milliseconds}
        reply = worker.ask(asked)
        if reply.get("error") == "unknown_program":
            reply = worker.ask({**asked, "text": text})
        if "error" in reply:  # the engine does not always survive its own errors
            raise rego_failures.failed(str(reply["error"]), str(reply["detail"]))
        found: dict[str, str] = reply["rules"]
        return found


def _results(said: Mapping[str, str]) -> Results:
    return {rule: ABSENT if text == "undefined" else single(rule, text) for rule, text in said.items()}


def _key(policy: AcceptedPolicy, rules: Sequence[str]) -> str:
    return f"{policy.digest} {' '.join(rules)}"


class _Worker:
    """A running ``rego_worker``. Used under its engine's lock."""

    def __init__(self, memory: int) -> None:
        command = [sys.executable, "-I", "-S", "-c", _START, str(memory), *(path for path in sys.path if path)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, close_fds=True, start_new_session=True
            )
        except OSError as error:
            raise Unavailable(
                "cannot start the policy engine", code="policy_engine_down", hint=error.strerror
            ) from error
        assert self._process.stdin is not None  # noqa: S101 -- PIPE was asked for
        assert self._process.stdout is not None  # noqa: S101
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._fresh = True

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """One request and its reply; raises if the process does not live to answer in time."""
        if self._fresh:
            self._greet()
        deadline = time.monotonic() + WALL_SECONDS
        body = msgspec.json.encode(request)
        try:
            self._write(_HEADER.pack(len(body)) + body, deadline)
            (length,) = _HEADER.unpack(self._read(_HEADER.size, deadline))
            if length > MAX_REPLY:
                raise PolicyInvalid("the policy's result is too large", code="policy_failed", got=length)
            reply: dict[str, Any] = msgspec.json.decode(self._read(length, deadline))
        except (EOFError, BrokenPipeError):
            raise rego_failures.died(self._process.wait()) from None
        return reply

    def _greet(self) -> None:
        """Wait until the process says that it can work; ``PlatformError`` if it cannot, on this machine."""
        deadline = time.monotonic() + START_SECONDS
        try:
            (length,) = _HEADER.unpack(self._read(_HEADER.size, deadline))
            said: dict[str, Any] = msgspec.json.decode(self._read(min(length, MAX_REPLY), deadline))
        except EOFError:
            raise rego_failures.never_started(self._process.wait()) from None
        except PolicyInvalid:  # the deadline's
            raise Unavailable(
                "the policy engine does not start in time", code="policy_engine_down", hint="is the machine overloaded?"
            ) from None
        if "unfit" in said:
            raise rego_failures.unfit(str(said["unfit"]))
        self._fresh = False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._in, view) :]
            except BlockingIOError:
                self._wait(self._in, select.POLLOUT, deadline)

    def _read(self, count: int, deadline: float) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = os.read(self._out, count - len(data))
            except BlockingIOError:
                self._wait(self._out, select.POLLIN, deadline)
                continue
            if not piece:
                raise EOFError
            data += piece
        return data

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise rego_failures.deadline()
