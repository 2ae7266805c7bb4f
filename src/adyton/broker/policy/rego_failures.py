"""What is wrong when the policy engine gives no answer: the policy, this machine, or the moment."""

from __future__ import annotations

import signal

from adyton.errors import AdytonError, PlatformError, PolicyInvalid, Unavailable

CPU_SECONDS = 0.1


def failed(code: str, detail: str) -> PolicyInvalid:
    """What the worker process says of a question that it could not answer."""
    if code == "policy_not_rego":
        found = detail.partition("(errormsg ")[2].partition(")")[0].partition(":")[2] or detail.strip().split("\n")[0]
        return PolicyInvalid(f"the policy does not compile: {found[:200]}", code=code, hint="try it with `opa check`")
    return PolicyInvalid(
        f"the policy could not be evaluated: {detail[:200]}" if detail else "the policy could not be evaluated",
        code="policy_failed",
        hint="a rule has several values, or the engine met something that it cannot do",
    )


def deadline() -> PolicyInvalid:
    """The policy took longer than it may."""
    return PolicyInvalid(
        "the policy takes too long",
        code="policy_deadline",
        expected=f"{round(CPU_SECONDS * 1000)} ms",
        spec="contracts 5",
        hint="it loops, or computes far more than a decision needs",
    )


def never_started(status: int) -> AdytonError:
    """The process ended before it could work."""
    if status in {-signal.SIGKILL, -signal.SIGTERM}:
        return died(status)
    ended = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    return unfit(f"its process ended with {ended} before it was ready; what it said is in the log above")


def unfit(detail: str) -> PlatformError:
    """It can never work on this machine."""
    library, missing, _ = detail.partition(": cannot open shared object file")
    if missing:
        package = " (Debian: apt install libatomic1)" if library.startswith("libatomic") else ""
        hint = f"install the package that has {library}{package}"
    else:
        hint = "install Adyton anew: its dependency regopy does not load"
    return PlatformError(
        f"the policy engine cannot run on this machine: {detail[:300]}", code="policy_engine_unfit", hint=hint
    )


def died(status: int) -> AdytonError:
    """The process ended at work."""
    if status == -signal.SIGPROF:
        return deadline()
    if status in {-signal.SIGKILL, -signal.SIGTERM}:
        return Unavailable(
            "the policy engine was killed", code="policy_engine_down", hint="is the machine out of memory?"
        )
    return PolicyInvalid(
        "the policy broke the engine that evaluates it",
        code="policy_crashed",
        got=signal.Signals(-status).name if status < 0 else status,
        spec="contracts 5",
        hint="it takes too much memory, or is nested too deeply",
    )
