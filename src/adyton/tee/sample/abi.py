"""CoCo's sample evidence: ``{"svn": "1", "report_data": base64}``, and nothing that would make it true (kbs-protocol 2.4)."""

from __future__ import annotations

import json
from typing import NamedTuple

from adyton.errors import MalformedEvidence
from adyton.wire import b64, strict_json

MAX_SIZE = 64 * 1024
MAX_REPORT_DATA = 1024
MAX_SVN = 64
SPEC = "kbs-protocol 2.4"


class SampleEvidence(NamedTuple):
    """What the two members say; ``report_data`` is decoded, empty if it was left out."""

    svn: str
    report_data: bytes

    def encode(self) -> bytes:
        """As CoCo's attester writes it."""
        document = {"svn": self.svn, "report_data": b64.encode(self.report_data)}
        return json.dumps(document, separators=(",", ":")).encode("ascii")


def parse(tee: str, data: bytes) -> SampleEvidence:
    """From JSON, or ``MalformedEvidence``. Other members are ignored: nothing in here is believed anyway."""
    try:
        document = strict_json.parse(data, max_size=MAX_SIZE, max_depth=8)
    except ValueError as error:
        raise _malformed(tee, "evidence", str(error)) from error
    if type(document) is not dict:
        raise _malformed(tee, "evidence", "no object")
    svn, text = document.get("svn"), document.get("report_data", "")
    if type(svn) is not str or not 1 <= len(svn) <= MAX_SVN:
        raise _malformed(tee, "svn", f"text of 1 to {MAX_SVN} characters is due")
    if type(text) is not str:
        raise _malformed(tee, "report_data", "no text")
    try:
        report_data = b64.decode(text)
    except ValueError as error:
        raise _malformed(tee, "report_data", str(error)) from error
    if len(report_data) > MAX_REPORT_DATA:
        raise _malformed(tee, "report_data", f"longer than {MAX_REPORT_DATA} bytes")
    return SampleEvidence(svn, report_data)


def _malformed(tee: str, field: str, message: str) -> MalformedEvidence:
    return MalformedEvidence(f"{field}: {message}", code=f"malformed_{field}", tee=tee, field=field, spec=SPEC)
