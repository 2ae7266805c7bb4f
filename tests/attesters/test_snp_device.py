"""The real device's attester against stand-ins at the device's boundary: the kernel's structures, byte for byte."""

from __future__ import annotations

import ctypes
import errno
import struct
from pathlib import Path

import msgspec
import pytest

from adyton.attesters import cert_table
from adyton.attesters.snp_device import SNP_GET_EXT_REPORT, SNP_GET_REPORT, SnpDeviceAttester, TsmReports
from adyton.devtee.certificates import Signer
from adyton.devtee.snp import ReportFields, issue_report
from adyton.errors import PlatformError, Unavailable
from adyton.rats.types import ReportData
from adyton.tee.snp.json_form import parse_json

DATA = ReportData(bytes(range(64)))
Chain = list[tuple[str, bytes]]


class SevGuest:
    """Linux's sev-guest driver as ``linux/sev-guest.h`` describes it, over a development signer."""

    def __init__(self, signer: Signer, table: bytes = b"", *, extended: bool = True, status: int = 0) -> None:
        self.signer, self.table, self.extended, self.status = signer, table, extended, status
        self.calls: list[int] = []

    def ioctl(self, code: int, argument: bytearray) -> None:
        self.calls.append(code)
        version, request, response, _ = struct.unpack("<B7xQQQ", argument)
        assert version == 1
        if code == SNP_GET_EXT_REPORT:
            if not self.extended:
                raise OSError(errno.ENOTTY, "no such request")
            address, length = struct.unpack("<QI", ctypes.string_at(request + 96, 12))
            if length < len(self.table):
                ctypes.memmove(request + 104, struct.pack("<I", len(self.table)), 4)
                struct.pack_into("<II", argument, 24, 0, 1)  # fw_error, vmm_error = SNP_GUEST_VMM_ERR_INVALID_LEN
                raise OSError(errno.EIO, "invalid length")
            ctypes.memmove(address, self.table, len(self.table))
        report_data, vmpl = struct.unpack("<64sI", ctypes.string_at(request, 68))
        report = issue_report(self.signer, ReportFields(report_data=report_data, vmpl=vmpl))
        answer = struct.pack("<II24x", self.status, len(report)) + report
        ctypes.memmove(response, answer, len(answer))


class Tsm:
    """configfs-tsm of an SNP guest, after the kernel's ``configfs-tsm-report`` ABI document."""

    def __init__(
        self, signer: Signer, table: bytes = b"", *, provider: bytes = b"sev_guest\n", rivals: int = 0
    ) -> None:
        self.signer, self.table, self.provider, self.rivals = signer, table, provider, rivals
        self.entries: dict[str, tuple[int, bytes]] = {}

    def mkdir(self, entry: str) -> None:
        assert entry not in self.entries
        self.entries[entry] = (0, b"")

    def read(self, entry: str, attribute: str) -> bytes:
        generation, data = self.entries[entry]
        if attribute == "outblob" and self.rivals:
            self.rivals -= 1
            self.entries[entry] = (generation + 1, b"\xee" * 64)
            if self.rivals % 2:
                raise OSError(errno.EWOULDBLOCK, "written meanwhile")
        return {
            "provider": self.provider,
            "generation": b"%d\n" % generation,
            "outblob": issue_report(self.signer, ReportFields(report_data=data)) if len(data) == 64 else b"",
            "auxblob": self.table,
        }[attribute]

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        assert attribute == "inblob"
        self.entries[entry] = (self.entries[entry][0] + 1, data)

    def rmdir(self, entry: str) -> None:
        del self.entries[entry]


def read(attester: SnpDeviceAttester) -> Chain:
    evidence = attester.collect(DATA)
    report, certificates = parse_json(msgspec.json.encode(evidence.primary))
    assert evidence.tee == attester.tee == "snp"
    assert report.report_data == DATA.value
    return certificates


def test_firmware_that_refuses(signer: Signer) -> None:
    with pytest.raises(Unavailable) as caught:
        SnpDeviceAttester.by_ioctl(SevGuest(signer, status=0x16)).collect(DATA)
    assert caught.value.code == "report_failed"


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EACCES, PlatformError), (errno.EIO, Unavailable), (errno.ENOENT, PlatformError)]
)
def test_devices_that_fail(number: int, kind: type[Exception]) -> None:
    class Failing:
        def ioctl(self, code: int, argument: bytearray) -> None:
            raise OSError(number, "no")

    with pytest.raises(kind):
        SnpDeviceAttester.by_ioctl(Failing()).collect(DATA)


def test_a_host_that_lies_about_the_tables_size(signer: Signer) -> None:
    with pytest.raises(Unavailable):
        SnpDeviceAttester.by_ioctl(SevGuest(signer, bytes(cert_table.MAX_SIZE + 1))).collect(DATA)


def test_a_broken_table_is_not_passed_on(signer: Signer) -> None:
    with pytest.raises(Unavailable) as caught:
        SnpDeviceAttester.by_ioctl(SevGuest(signer, b"\xff" * 48)).collect(DATA)
    assert caught.value.code == "report_malformed"


def test_extended_report(signer: Signer, certificates: Chain) -> None:
    device = SevGuest(signer, cert_table.write(certificates))
    assert read(SnpDeviceAttester.by_ioctl(device)) == certificates
    assert device.calls == [SNP_GET_EXT_REPORT]


def test_a_table_larger_than_the_first_buffer(signer: Signer, certificates: Chain) -> None:
    device = SevGuest(signer, cert_table.write(certificates) + bytes(20_000))
    assert read(SnpDeviceAttester.by_ioctl(device)) == certificates
    assert device.calls == [SNP_GET_EXT_REPORT] * 2


def test_hosts_without_extended_reports(signer: Signer) -> None:
    device = SevGuest(signer, extended=False)
    assert read(SnpDeviceAttester.by_ioctl(device)) == []
    assert device.calls == [SNP_GET_EXT_REPORT, SNP_GET_REPORT]


def test_configfs(signer: Signer, certificates: Chain) -> None:
    tsm = Tsm(signer, cert_table.write(certificates))
    assert read(SnpDeviceAttester.by_tsm(tsm)) == certificates
    assert tsm.entries == {}


def test_configfs_of_another_tee(signer: Signer) -> None:
    tsm = Tsm(signer, provider=b"tdx_guest\n")
    with pytest.raises(PlatformError):
        SnpDeviceAttester.by_tsm(tsm).collect(DATA)
    assert tsm.entries == {}


def test_configfs_with_rivals(signer: Signer) -> None:
    tsm = Tsm(signer, rivals=3)
    assert read(SnpDeviceAttester.by_tsm(tsm)) == []
    tsm = Tsm(signer, rivals=100)
    with pytest.raises(Unavailable):
        SnpDeviceAttester.by_tsm(tsm).collect(DATA)
    assert tsm.entries == {}


def test_the_files_themselves(tmp_path: Path) -> None:
    reports = TsmReports(tmp_path)
    reports.mkdir("a")
    (tmp_path / "a" / "inblob").touch()
    reports.write("a", "inblob", b"x" * 64)
    assert reports.read("a", "inblob") == b"x" * 64
    assert reports.read("a", "auxblob") == b""
    (tmp_path / "a" / "inblob").unlink()
    reports.rmdir("a")
    assert not any(tmp_path.iterdir())


def test_a_machine_that_is_no_guest(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        SnpDeviceAttester.find(tmp_path / "sev-guest", tmp_path / "report")
    assert caught.value.code == "snp_absent"
    (tmp_path / "report").mkdir()
    with pytest.raises(PlatformError):  # configfs is there, and no provider in it
        SnpDeviceAttester.find(tmp_path / "sev-guest", tmp_path / "report").collect(DATA)
