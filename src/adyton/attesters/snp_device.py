"""Evidence from a real SEV-SNP guest: Linux's ``/dev/sev-guest`` and, where there is one, configfs-tsm.

Two roads to the same secure processor. configfs-tsm (kernel 6.7 and later, ``/sys/kernel/config/tsm/report``) is a
directory per request: 64 bytes into ``inblob``, the report out of ``outblob``, the host's certificates out of
``auxblob``; ``generation`` shows whether somebody else wrote in between. The ioctl interface (``linux/sev-guest.h``):
``SNP_GET_EXT_REPORT`` gives report and certificates, ``SNP_GET_REPORT`` the report alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from adyton.attesters import cert_table
from adyton.errors import MalformedEvidence, PlatformError, Unavailable
from adyton.rats.ports import CollectedEvidence
from adyton.rats.types import JsonValue, ReportData

DEVICE = Path("/dev/sev-guest")
TSM_REPORTS = Path("/sys/kernel/config/tsm/report")
SNP_GET_REPORT = 0xC0205300  # _IOWR('S', 0x0, struct snp_guest_request_ioctl), 32 bytes
SNP_GET_EXT_REPORT = 0xC0205302  # _IOWR('S', 0x2, struct snp_guest_request_ioctl)
REPORT_SIZE = 1184
_REQUEST = struct.Struct("<64sI28x")  # struct snp_report_req: user_data, vmpl, reserved
_EXTENDED = struct.Struct("<96sQI4x")  # struct snp_ext_report_req: data, certs_address, certs_len
_IOCTL = struct.Struct("<B7xQQQ")  # struct snp_guest_request_ioctl: msg_version, req_data, resp_data, exitinfo2
_RESPONSE = struct.Struct("<II24x")  # MSG_REPORT_RSP: status, report_size, reserved; the report follows
_RESPONSE_SIZE = 4000
_INVALID_LEN = 1  # vmm_error, the upper half of exitinfo2: certs_len is now what the table needs
_TRIES = 5

Raw = tuple[bytes, list[tuple[str, bytes]]]


class DevicePort(Protocol):
    """The kernel's side of the device. Law: ``argument`` is changed in place, addresses in it are this process's."""

    def ioctl(self, code: int, argument: bytearray) -> None:
        """One ioctl; ``OSError`` as the kernel gives it."""
        ...


class SevGuestDevice:
    """``/dev/sev-guest`` itself."""

    def __init__(self, path: Path = DEVICE) -> None:
        self._path = path

    def ioctl(self, code: int, argument: bytearray) -> None:
        """Open, ask, close: the device serialises its users anyway."""
        import fcntl

        descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, code, argument, True)
        finally:
            os.close(descriptor)


class TsmPort(Protocol):
    """The kernel's side of configfs-tsm. Laws: ``mkdir`` makes an entry with its attributes, ``rmdir`` takes both."""

    def mkdir(self, entry: str) -> None:
        """A new request."""
        ...

    def read(self, entry: str, attribute: str) -> bytes:
        """The whole of an attribute; empty when this kernel has no such attribute."""
        ...

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        """One write, which the kernel takes whole or not at all."""
        ...

    def rmdir(self, entry: str) -> None:
        """Forget the request."""
        ...


class TsmReports:
    """``/sys/kernel/config/tsm/report`` itself."""

    def __init__(self, directory: Path = TSM_REPORTS) -> None:
        self._directory = directory

    def mkdir(self, entry: str) -> None:
        """One directory, one request."""
        (self._directory / entry).mkdir()

    def read(self, entry: str, attribute: str) -> bytes:
        """Read until the end: the kernel gives large attributes in pages."""
        try:
            return (self._directory / entry / attribute).read_bytes()
        except FileNotFoundError:
            return b""

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        """Without O_TRUNC or O_CREAT, which configfs does not know."""
        descriptor = os.open(self._directory / entry / attribute, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def rmdir(self, entry: str) -> None:
        """The kernel removes the attributes with it."""
        (self._directory / entry).rmdir()


class SnpDeviceAttester:
    """An ``Attester`` over one of the two roads; make it with ``by_ioctl``, ``by_tsm`` or ``find``."""

    def __init__(self, read: Callable[[bytes], Raw]) -> None:
        self._read = read

    @classmethod
    def by_ioctl(cls, device: DevicePort | None = None, *, vmpl: int = 0) -> SnpDeviceAttester:
        """Over the device; ``vmpl`` is the privilege level that the report speaks for."""
        port = device or SevGuestDevice()
        return cls(lambda report_data: _by_ioctl(port, report_data, vmpl))

    @classmethod
    def by_tsm(cls, reports: TsmPort | None = None) -> SnpDeviceAttester:
        """Over configfs-tsm."""
        port = reports or TsmReports()
        return cls(lambda report_data: _by_tsm(port, report_data))

    @classmethod
    def find(cls, device: Path = DEVICE, directory: Path = TSM_REPORTS) -> SnpDeviceAttester:
        """Whichever this machine has, configfs first; ``PlatformError`` when it is no SNP guest."""
        if directory.is_dir():
            return cls.by_tsm(TsmReports(directory))
        if device.exists():
            return cls.by_ioctl(SevGuestDevice(device))
        raise PlatformError(
            "this machine is not a SEV-SNP guest",
            code="snp_absent",
            tee="snp",
            expected=[str(directory), str(device)],
            hint="the guest's kernel needs the sev-guest driver",
        )

    @property
    def tee(self) -> str:
        """``snp``."""
        return "snp"

    def collect(self, report_data: ReportData) -> CollectedEvidence:
        """CoCo's SNP JSON (``kbs-protocol`` 2.4); the certificates are the host's, absent if it gave none."""
        from adyton.tee.snp.abi import SnpReport
        from adyton.tee.snp.json_form import to_json

        try:
            raw, certificates = self._read(report_data.value)
            report = SnpReport.parse(raw)
        except OSError as error:
            raise _device_failed(error) from error
        except MalformedEvidence as error:
            raise Unavailable(error.message, code="report_malformed", tee="snp", field=error.field) from error
        if report.report_data != report_data.value:
            raise Unavailable("the device answered for other report data", code="report_for_another", tee="snp")
        value: JsonValue = to_json(report, certificates)
        return CollectedEvidence("snp", value)


def _by_ioctl(device: DevicePort, report_data: bytes, vmpl: int) -> Raw:
    request = _REQUEST.pack(report_data, vmpl)
    certificates = ctypes.create_string_buffer(4 * 4096)
    for _ in range(_TRIES):
        extended = ctypes.create_string_buffer(
            _EXTENDED.pack(request, ctypes.addressof(certificates), len(certificates)), _EXTENDED.size
        )
        try:
            report = _ask(device, SNP_GET_EXT_REPORT, extended)
        except _CertificatesTooLarge:
            needed = _EXTENDED.unpack(extended.raw)[2]
            if not len(certificates) < needed <= cert_table.MAX_SIZE:
                raise Unavailable(
                    "the host's certificate table has no sensible size", code="report_failed", tee="snp", got=needed
                ) from None
            certificates = ctypes.create_string_buffer(needed)
            continue
        except OSError as error:
            if error.errno not in {errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP}:
                raise
            # A host without extended reports: the verifier must then have the endorsements itself.
            return _ask(device, SNP_GET_REPORT, ctypes.create_string_buffer(request, _REQUEST.size)), []
        table = certificates.raw
        return report, cert_table.parse(table) if any(table[:24]) else []
    raise Unavailable("the host's certificate table keeps growing", code="report_failed", tee="snp")


class _CertificatesTooLarge(Exception):
    """The host says that it needs a larger buffer, whose size is now in the request."""


def _ask(device: DevicePort, code: int, request: ctypes.Array[ctypes.c_char]) -> bytes:
    response = ctypes.create_string_buffer(_RESPONSE_SIZE)
    argument = bytearray(_IOCTL.pack(1, ctypes.addressof(request), ctypes.addressof(response), 0))
    try:
        device.ioctl(code, argument)
    except OSError as error:
        exit_info = _IOCTL.unpack(argument)[3]
        if exit_info >> 32 == _INVALID_LEN and code == SNP_GET_EXT_REPORT:
            raise _CertificatesTooLarge from error
        raise
    status, size = _RESPONSE.unpack_from(response.raw)
    if status or size != REPORT_SIZE:
        raise Unavailable(
            "the secure processor refused to make a report",
            code="report_failed",
            tee="snp",
            expected=[0, REPORT_SIZE],
            got=[status, size],
            spec="SEV-SNP ABI, MSG_REPORT_RSP",
        )
    return response.raw[_RESPONSE.size : _RESPONSE.size + REPORT_SIZE]


def _by_tsm(reports: TsmPort, report_data: bytes) -> Raw:
    for _ in range(_TRIES):
        name = f"adyton-{os.getpid()}-{os.urandom(6).hex()}"
        reports.mkdir(name)
        try:
            provider = reports.read(name, "provider").decode("ascii", "replace").strip()
            if provider != "sev_guest":
                raise PlatformError(
                    "configfs-tsm of this machine does not speak for SEV-SNP",
                    code="snp_absent",
                    tee="snp",
                    expected="sev_guest",
                    got=provider[:40],
                )
            before = int(reports.read(name, "generation"))
            reports.write(name, "inblob", report_data)
            report = reports.read(name, "outblob")
            table = reports.read(name, "auxblob")
            if int(reports.read(name, "generation")) == before + 1:
                return report, cert_table.parse(table)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:  # what outblob says when the entry was written to meanwhile
                raise
        finally:
            reports.rmdir(name)
    raise Unavailable("another user of configfs-tsm keeps interfering", code="report_failed", tee="snp")


def _device_failed(error: OSError) -> Unavailable | PlatformError:
    name = errno.errorcode.get(error.errno or 0, "unknown error")
    if error.errno in {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV}:
        return PlatformError(
            "the SNP guest device cannot be used", code="snp_absent", tee="snp", got=name, hint="it needs root"
        )
    return Unavailable("the SNP guest device failed", code="report_failed", tee="snp", got=name)
