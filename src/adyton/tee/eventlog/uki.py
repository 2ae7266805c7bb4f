"""What systemd's stub measures of a unified kernel image: sections into PCR 11, as pairs of events.

systemd-stub(7), "TPM PCR Notes": for each section first its name in ASCII with a NUL, then its content; both are EV_IPL whose data
is the name in UTF-16. The content's digest is not in the log any other way, so it is compared with a measured image
(``tpm.measure``), never believed by its label alone.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import NamedTuple

from adyton.tee.eventlog import kinds
from adyton.tee.eventlog.banks import Bank
from adyton.tee.eventlog.bound import section_name
from adyton.tee.eventlog.log import EventLog

STUB_PCR = 11


class Section(NamedTuple):
    """A section as measured: its name, the digest of its content, and the number of the content's event."""

    name: str
    digest: bytes
    event: int


def sections(log: EventLog, bank: Bank, *, register: int = STUB_PCR) -> list[Section]:
    """The sections in the order in which they were measured: pairs whose first event's digest is that of the name."""
    position = log.position(bank)
    found: list[Section] = []
    if position is None:
        return found
    pending: str | None = None
    for number, (pcr, kind, digests, begin, end) in enumerate(log.rows):
        if pcr != register or kind == kinds.NO_ACTION:
            continue
        digest = digests[position] or b""
        name = section_name(log.data[begin:end]) if kind == kinds.IPL else None
        if pending is not None and name == pending:
            found.append(Section(name, digest, number))
            pending = None
        elif name is not None and compare_digest(bank.new(name.encode("ascii") + b"\0").digest(), digest):
            pending = name
        else:
            pending = None
    return found
