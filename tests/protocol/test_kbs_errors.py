"""Error bodies: both members always there, foreign ones bounded and printable."""

from __future__ import annotations

import json

import pytest

from adyton.protocol import kbs_errors
from adyton.protocol.kbs_errors import Variant


def test_trap_both_members_are_strings() -> None:
    body = json.loads(kbs_errors.encode(Variant.POLICY_DENY, "no"))
    assert body == {"type": "https://github.com/confidential-containers/kbs/errors/PolicyDeny", "detail": "no"}


def test_detail_is_bounded_both_ways() -> None:
    assert len(json.loads(kbs_errors.encode(Variant.JWE_ERROR, "x" * 9999))["detail"]) == 500
    read = kbs_errors.decode(json.dumps({"type": "a/b", "detail": "\x1b[31m" + "x" * 9999}).encode())
    assert read is not None
    assert read.detail.startswith(" [31m")
    assert len(read.detail) == 500
    assert read.variant == "b"


@pytest.mark.parametrize("body", [b"", b"null", b"<html>", b'{"type":"x"}', b'{"type":1,"detail":"x"}', b"[" * 9000])
def test_other_bodies_are_none(body: bytes) -> None:
    assert kbs_errors.decode(body) is None
