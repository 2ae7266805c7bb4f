"""docs/broker/operations.md: its blocks in order in one shell; the unit is one that systemd takes."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.docs.playing import free_port, play

from adyton.broker.running import exposition, journal
from adyton.broker.running.metrics import Metrics
from adyton.broker.settings import LIVE

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "broker" / "operations.md"
UNIT = REPOSITORY / "docs" / "broker" / "adyton-broker.service"


@pytest.mark.timeout(600)
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    ports = {"ADMIN_PORT": free_port(), "METRICS_PORT": free_port()}
    told = play("broker/operations.md", tmp_path, blocks=7, variables=ports).stdout
    for said in ("ready: Adyton", "adyton_workers 2.0", "as declared", "taken out of rack 7", "all tenants"):
        assert said in told, told


def test_the_page_names_every_metric_and_every_live_setting() -> None:
    page = PAGE.read_text()
    metrics = Metrics(tenants=1)
    metrics.request(journal.area(None), "default", 503, "store_disk", 0.1)
    moments = {"endorsement|crl": 1.0, "tcb|tdx": 1.0, "tls_certificate_expires": 1.0, "started": 1.0}
    text = exposition.render(metrics.snapshot({}, {}, moments), environment="test").decode()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        assert f"`{name}`" in page, f"{name} ({kind})"
    for name in LIVE - {"tenant_hosts"}:
        assert f"`{name.replace('_', '-')}`" in page, name


def test_the_unit() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    service = unit["Service"]
    assert service["Type"] == "notify" and "broker serve --config" in service["ExecStart"]
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "MemoryDenyWriteExecute"):
        assert service[name] == "yes"
    assert service["LimitCORE"] == "0" and service["ProtectSystem"] == "strict" and not service["CapabilityBoundingSet"]
    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True)
        assert "Unknown" not in done.stderr and "Failed to parse" not in done.stderr, done.stderr
