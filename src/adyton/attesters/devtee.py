"""Evidence from the development TEE, over the report channel that an instance inherits.

What comes back is a genuine-format SNP report under the development root, so the wire name is ``snp`` and the JSON is
CoCo's. Only the channel differs from hardware; the verifier sees no difference but the root.
"""

from __future__ import annotations

from typing import Protocol

from adyton.errors import MalformedEvidence, Unavailable
from adyton.protocol.devtee import Report
from adyton.rats.ports import CollectedEvidence
from adyton.rats.types import ReportData


class ReportChannel(Protocol):
    """Whoever holds the channel can have reports of this instance, and of no other."""

    def report(self, report_data: bytes) -> Report:
        """A new report over these 64 bytes; ``Unavailable`` when the platform does not answer."""
        ...


class DevTeeAttester:
    """An ``Attester`` over a report channel."""

    def __init__(self, channel: ReportChannel) -> None:
        self._channel = channel

    @property
    def tee(self) -> str:
        """``snp``: the format that the development TEE issues."""
        return "snp"

    def collect(self, report_data: ReportData) -> CollectedEvidence:
        """CoCo's SNP JSON (``kbs-protocol`` 2.4) over ``report_data``."""
        from adyton.tee.snp.abi import SnpReport
        from adyton.tee.snp.json_form import to_json

        answer = self._channel.report(report_data.value)
        try:
            report = SnpReport.parse(answer.report)
        except MalformedEvidence as error:
            raise Unavailable(
                "the platform's answer is not an SNP report",
                code="report_malformed",
                tee="snp",
                field=error.field,
                hint="restart it: adyton devtee stop",
            ) from error
        if report.report_data != report_data.value:
            raise Unavailable("the platform answered for other report data", code="report_for_another", tee="snp")
        return CollectedEvidence("snp", to_json(report, [(item.cert_type, item.data) for item in answer.certificates]))
