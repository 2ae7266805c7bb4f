"""Adyton: containers, functions and jobs in trusted execution environments, given their keys only after proof.

The house is described in ``docs/architecture.md``; the words are those of RFC 9334.
"""

__version__ = "0.1.0"
