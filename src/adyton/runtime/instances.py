"""Asking the platform service about instances: list, logs, stop, remove."""

from __future__ import annotations

from collections.abc import Iterator

from adyton.errors import Unavailable
from adyton.protocol import devtee
from adyton.runtime.control import Control


def listed(control: Control, *, everything: bool) -> list[devtee.Instance]:
    """The running instances, or all that were not removed."""
    reply = control.ask(devtee.List(all=everything))
    if not isinstance(reply, devtee.Instances):
        raise _unexpected(reply)
    return reply.instances


def logs(control: Control, instance: str, *, follow: bool) -> Iterator[devtee.Output]:
    """What it wrote, and with ``follow`` what it goes on to write until it ends."""
    control.send(devtee.Logs(instance, follow))
    for reply in control.replies():
        if isinstance(reply, devtee.Output):
            yield reply
        elif isinstance(reply, devtee.Done):
            return
        else:
            raise _unexpected(reply)


def stop(control: Control, instance: str, timeout: float) -> None:
    """The image's stop signal, then after ``timeout`` seconds KILL; returns when it has ended."""
    _done(control.ask(devtee.Stop(instance, timeout)))


def remove(control: Control, instance: str, *, force: bool) -> None:
    """Forget it."""
    _done(control.ask(devtee.Remove(instance, force)))


def _done(reply: devtee.ControlReply) -> None:
    if not isinstance(reply, devtee.Done):
        raise _unexpected(reply)


def _unexpected(reply: devtee.ControlReply) -> Unavailable:
    return Unavailable(
        "the platform service gave an answer that does not fit", code="platform_answer", got=type(reply).__name__
    )
