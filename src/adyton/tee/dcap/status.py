"""What Intel says about a TCB, and how the statuses of a platform's parts become one (evidence 3.3.14, 3.4)."""

from __future__ import annotations

from enum import Enum


class TcbStatus(Enum):
    """A status under Intel's name. ``REVOKED`` is refused by every policy; whoever holds a status may not drop it."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    REVOKED = "Revoked"

    @property
    def needs_configuration(self) -> bool:
        """Whether something is to be set differently on the platform."""
        return self in _CONFIGURATION


# What may stand in signed documents: the rest comes of comparing.
PLATFORM_STATUSES: dict[str, TcbStatus] = {
    status.value: status
    for status in TcbStatus
    if status not in {TcbStatus.TD_RELAUNCH_ADVISED, TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED}
}
ENCLAVE_STATUSES: dict[str, TcbStatus] = {
    status.value: status for status in (TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED)
}

_CONFIGURATION = frozenset(
    {
        TcbStatus.CONFIGURATION_NEEDED,
        TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
        TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
        TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED,
    }
)
_OUTDATED = {
    TcbStatus.UP_TO_DATE: TcbStatus.OUT_OF_DATE,
    TcbStatus.SW_HARDENING_NEEDED: TcbStatus.OUT_OF_DATE,
    TcbStatus.TD_RELAUNCH_ADVISED: TcbStatus.OUT_OF_DATE,
    TcbStatus.CONFIGURATION_NEEDED: TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED: TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
}


def converge(platform: TcbStatus, part: TcbStatus | None) -> TcbStatus:
    """The platform's status, made worse by that of its TDX module or quoting enclave; ``None``: there is no such part.

    A part is up to date, out of date or revoked.
    """
    if platform is TcbStatus.REVOKED or part is TcbStatus.REVOKED:
        return TcbStatus.REVOKED
    if part is TcbStatus.OUT_OF_DATE:
        return _OUTDATED.get(platform, platform)
    return platform


def relaunch(sgx: TcbStatus, converged: TcbStatus) -> TcbStatus:
    """The status of a TD that is out of date only because of the module it was launched with, since updated."""
    if sgx.needs_configuration or converged.needs_configuration:
        return TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
    return TcbStatus.TD_RELAUNCH_ADVISED
