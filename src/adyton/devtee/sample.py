"""CoCo's sample evidence, as its attesters write it: no key is needed, which is the point."""

from __future__ import annotations

import base64
import json
from typing import Any


def evidence(report_data: bytes, /, *, svn: str = "1", **more: Any) -> bytes:
    """Evidence of a sample CPU; a sample device writes ``svn`` 2. ``more``: further members, or others for these two."""
    members = {"svn": svn, "report_data": base64.b64encode(report_data).decode("ascii")} | more
    return json.dumps(members).encode()
