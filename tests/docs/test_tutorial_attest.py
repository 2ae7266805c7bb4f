"""The tutorials on attesting a broker and on FIPS: their shell blocks, in order, as a reader types them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests import ports
from tests.broker.instance_rig import DOCUMENT, MEASUREMENT, Platform

from adyton.broker.running import fips
from adyton.devtee.root import DevelopmentRoot

REPOSITORY = Path(__file__).resolve().parents[2]


def played(name: str, place: Path, descriptors: tuple[int, ...] = (), **environment: str) -> str:
    blocks = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "docs" / "broker" / name).read_text(), re.DOTALL)
    assert len(blocks) >= 2
    programs = place / "bin"
    programs.mkdir()
    (programs / "adyton").write_text(f'#!/bin/sh\nexec {sys.executable} -m adyton "$@"\n')
    (programs / "adyton").chmod(0o755)
    script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(blocks)
    result = subprocess.run(
        ["bash", "-c", script],
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "TMPDIR": str(place),
            "BROKER_PORT": str(ports.reserve()),
            "OTHER_PORT": str(ports.reserve()),
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        pass_fds=descriptors,
    )
    assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_is_this_the_broker(tmp_path: Path) -> None:
    root = DevelopmentRoot.create(tmp_path / "root", datetime.fromtimestamp(time.time(), UTC))
    platform = Platform(root)
    channel = platform.theirs.fileno()
    try:
        said = played(
            "attest.md",
            tmp_path,
            (channel,),
            CHANNEL=str(channel),
            DEV_ROOT=root.fingerprint,
            ENDORSEMENTS=str(root.endorsements),
            MEASUREMENT=MEASUREMENT.hex(),
            DOCUMENT=f"sha256:{DOCUMENT.hex()}",
        )
    finally:
        platform.close()
    for text in ("broker_identity_unnamed", "VERIFIED", "tls_key", "attested", "broker_identity_refused"):
        assert text in said
    assert "broker_not_attested" in said
    assert "broker_unattested" in said


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(fips.state(fips=True).validated, reason="both modules run in their FIPS mode here")
def test_the_fips_profile(tmp_path: Path) -> None:
    said = played("fips.md", tmp_path)
    for text in ("fips_module", "profile fips", "fips_key_kind"):
        assert text in said
