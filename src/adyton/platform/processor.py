"""The secure processor of the development TEE: what it knows of each launch, and what it signs.

A ``Launch`` is fixed when an instance starts; its holder can choose REPORT_DATA and nothing else. So a report speaks of
its own launch only. The signing key does not leave this object.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from adyton.devtee.certificates import Signer
from adyton.devtee.root import DevelopmentRoot
from adyton.devtee.snp import POLICY, POLICY_DEBUG, ReportFields, issue_report
from adyton.errors import MalformedRequest
from adyton.protocol.devtee import Certificate, Report
from adyton.protocol.workload import WorkloadDocument

REPORT_VERSION = 5


@dataclass(frozen=True, slots=True)
class Launch:
    """One launched instance, to the processor."""

    host_data: bytes
    policy: int
    report_id: bytes
    _measurement: bytes = field(repr=False)
    _signer: Signer = field(repr=False)
    _certificates: tuple[Certificate, ...] = field(repr=False)

    def report(self, report_data: bytes) -> Report:
        """A report of this launch over 64 bytes; ``MalformedRequest`` for any other number of them."""
        if len(report_data) != 64:
            raise MalformedRequest(
                "report data has 64 bytes", code="report_data_length", expected=64, got=len(report_data)
            )
        signed = issue_report(
            self._signer,
            ReportFields(
                version=REPORT_VERSION,
                report_data=report_data,
                measurement=self._measurement,
                host_data=self.host_data,
                policy=self.policy,
                report_id=self.report_id,
            ),
        )
        return Report(report=signed, certificates=list(self._certificates))


class SecureProcessor:
    """Signs under a development root, for launches of one measured guest stack."""

    def __init__(self, root: DevelopmentRoot, measurement: bytes) -> None:
        self._signer = root.signer
        self._certificates = tuple(Certificate(kind, der) for kind, der in root.certificates)
        self._measurement = measurement

    def launch(self, document: WorkloadDocument) -> Launch:
        """Fix what is measured of an instance that is started for ``document``."""
        return Launch(
            host_data=document.digest.value,
            policy=POLICY | (POLICY_DEBUG if document.workload.debug else 0),
            report_id=secrets.token_bytes(32),
            _measurement=self._measurement,
            _signer=self._signer,
            _certificates=self._certificates,
        )
