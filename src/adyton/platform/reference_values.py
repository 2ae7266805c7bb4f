"""What an owner publishes so that instances of one guest stack on development platforms are accepted.

Names are those of CoCo's default CPU policy for SNP (``kbs-protocol`` 2.6). Each value is a list: the policy tests
membership.
"""

from __future__ import annotations

from adyton.devtee.certificates import Levels
from adyton.rats.types import JsonValue


def reference_values(measurement: bytes, levels: Levels | None = None) -> dict[str, JsonValue]:
    """Reference values for MEASUREMENT (48 bytes) and a platform at ``levels`` (default: as development roots are)."""
    tcb = levels or Levels()
    return {
        "snp_launch_measurement": [measurement.hex()],
        "snp_bootloader": [tcb.boot_loader],
        "snp_tee_svn": [tcb.tee],
        "snp_snp_svn": [tcb.snp],
        "snp_microcode": [tcb.microcode],
    }
