"""Adyton: containers, functions and jobs in trusted execution environments, given their keys only after proof.

As a library: ``adyton.verify(evidence, endorsements=…, at=…)`` verifies evidence of any TEE (``adyton.verification``).
The house is described in ``docs/architecture.md``; the words are those of RFC 9334.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adyton.verification import verify as verify

__version__ = "0.1.0"
__all__ = ["__version__", "verify"]


def __getattr__(name: str) -> Any:
    """Import the verifier when it is first asked for: most of Adyton's programs start without it."""
    if name == "verify":
        from adyton.verification import verify

        return verify
    raise AttributeError(f"module 'adyton' has no attribute {name!r}")
