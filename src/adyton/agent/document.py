"""Whether what is to run is what the evidence says, and whether the operator offers only what the document allows.

HOST_DATA is fixed by the secure processor when the instance starts and cannot be changed from inside or outside. A
document whose digest it does not hold is somebody else's.
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from adyton.attesters.devtee import ReportChannel
from adyton.errors import BindingMismatch, DocumentInvalid, MalformedEvidence, Unavailable
from adyton.protocol.devtee import Start
from adyton.protocol.workload import Workload, WorkloadDocument, parse


def accept(start: Start, channel: ReportChannel, volumes: Path) -> WorkloadDocument:
    """The checked document; ``volumes``: where the launcher puts what the operator offers. ``DocumentInvalid`` or ``BindingMismatch`` says why it is not run."""
    document = parse(start.document.encode("utf-8"))
    _check_host_data(document, channel)
    check_offer(document.workload, start, volumes)
    return document


def _check_host_data(document: WorkloadDocument, channel: ReportChannel) -> None:
    from adyton.tee.snp.abi import SnpReport

    challenge = os.urandom(64)
    try:
        report = SnpReport.parse(channel.report(challenge).report)
    except MalformedEvidence as error:
        raise Unavailable("the platform's answer is not an SNP report", code="report_malformed", tee="snp") from error
    if not hmac.compare_digest(report.report_data, challenge):
        raise Unavailable("the platform answered for other report data", code="report_for_another", tee="snp")
    if not hmac.compare_digest(report.host_data, document.digest.value):
        raise BindingMismatch(
            "the workload document is not the one that this instance was started for",
            code="host_data_mismatch",
            tee="snp",
            field="host_data",
            expected=document.digest.value,
            got=report.host_data,
            spec="contracts 2",
            hint="adyton measure workload W.toml prints what HOST_DATA must hold",
        )


def check_offer(workload: Workload, start: Start, volumes: Path) -> None:
    """Refuse an operator's offer that the document does not allow, and a missing one that it needs."""
    run = start.run
    mounts = {mount.path: mount for mount in workload.mounts}
    for path in {**run.volumes, **start.volumes}:
        if path not in mounts or mounts[path].kind == "tmpfs":
            raise refusal("mounts", f"no volume at {path}", path)
    for path, place in start.volumes.items():
        if Path(place).parent != volumes or Path(place).name in {"", "..", "."}:
            raise DocumentInvalid(
                "the platform names a place that is none of the operator's volumes",
                code="volume_place",
                field=path,
                expected=f"a name below {volumes}",
                got=place[:200],
            )
    for mount in workload.mounts:
        if mount.kind == "host" and mount.path not in start.volumes:
            raise DocumentInvalid(
                f"the workload document needs a directory of the operator's at {mount.path}",
                code="volume_missing",
                field="mounts",
                expected=mount.path,
                hint=f"-v DIRECTORY:{mount.path}",
            )
    ports = {port.container for port in workload.ports}
    for publish in run.publish:
        if publish.container_port not in ports:
            raise refusal("ports", f"port {publish.container_port} not to be published", publish.container_port)
    if run.terminal and not workload.terminal:
        raise refusal("terminal", "no terminal", True)


def refusal(field: str, what: str, got: object) -> DocumentInvalid:
    """``DocumentInvalid`` for an offer outside the document."""
    return DocumentInvalid(
        f"the workload document says: {what}",
        code="not_in_document",
        field=field,
        got=got,
        spec="contracts 2",
        hint="what the document does not list is refused; write another with adyton workload new",
    )
