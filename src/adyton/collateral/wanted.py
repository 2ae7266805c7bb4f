"""What an endorser can be asked for, as values; each has one name, which is its key in the cache and in a bundle.

::

    amd/vcek/<product>/<hardware id>/[<fmc>-]<boot loader>-<tee>-<snp>-<microcode>
    amd/chain/<product>/<vcek|vlek>                     amd/crl/<product>
    intel/root-crl                                      intel/pck-crl/<platform|processor>
    intel/tcb/<sgx|tdx>/<fmspc>/<edition>               intel/identity/<qe|td_qe|qve>/<edition>
    intel/evaluation-numbers/<sgx|tdx>                  intel/pck/<qe id>/<ppid>/<cpusvn>/<pcesvn>/<pceid>
    azure/thim                                          nvidia/rim/<id>
    nvidia/ocsp/<SHA-384 of issuer's name>/<SHA-384 of issuer's key>/<serial>

Bytes are lower-case hex, an edition is ``early``, ``standard`` or an evaluation data number (evidence 3.2, 4.2, 11).
``parse`` reads a name; everything else in it is ``ValueError``, from a constructor as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from adyton.tee.snp.product import Product

EDITIONS = ("early", "standard")
ENCLAVES = {"qe": "QE", "td_qe": "TD_QE", "qve": "QVE"}
_HEX = re.compile(r"([0-9a-f]{2})+\Z")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")
_RIM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")


@dataclass(frozen=True, slots=True)
class AmdVcek:
    """A chip's certificate at one TCB. ``chip_id`` has 64 bytes (Turin: 8); ``fmc`` is for Turin, and only there."""

    product: Product
    chip_id: bytes
    boot_loader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    def __post_init__(self) -> None:
        _need(len(self.chip_id) == self.product.hardware_id_size, "a hardware id of that product's length")
        _need((self.fmc is not None) is self.product.has_fmc, "an FMC level exactly for Turin")
        _need(all(0 <= level <= 255 for level in self.levels), "levels of one byte")

    @property
    def levels(self) -> tuple[int, ...]:
        """``[fmc,] boot loader, tee, snp, microcode``."""
        return (*(() if self.fmc is None else (self.fmc,)), self.boot_loader, self.tee, self.snp, self.microcode)

    @property
    def name(self) -> str:
        """See the module."""
        return f"amd/vcek/{self.product.value}/{self.chip_id.hex()}/{'-'.join(map(str, self.levels))}"


@dataclass(frozen=True, slots=True)
class AmdChain:
    """ASK and ARK (``vcek``) or ASVK and ARK (``vlek``) of a product."""

    product: Product
    key: str = "vcek"

    def __post_init__(self) -> None:
        _need(self.key in {"vcek", "vlek"}, "vcek or vlek")

    @property
    def name(self) -> str:
        """See the module."""
        return f"amd/chain/{self.product.value}/{self.key}"


@dataclass(frozen=True, slots=True)
class AmdCrl:
    """The ARK's revocation list."""

    product: Product

    @property
    def name(self) -> str:
        """See the module."""
        return f"amd/crl/{self.product.value}"


@dataclass(frozen=True, slots=True)
class IntelRootCrl:
    """The revocation list of Intel's SGX root."""

    @property
    def name(self) -> str:
        """See the module."""
        return "intel/root-crl"


@dataclass(frozen=True, slots=True)
class IntelPckCrl:
    """The revocation list of the ``platform`` or the ``processor`` CA."""

    ca: str

    def __post_init__(self) -> None:
        _need(self.ca in {"platform", "processor"}, "platform or processor")

    @property
    def name(self) -> str:
        """See the module."""
        return f"intel/pck-crl/{self.ca}"


@dataclass(frozen=True, slots=True)
class IntelTcbInfo:
    """TCB info of a family of platforms; ``fmspc`` has 6 bytes."""

    tee: str
    fmspc: bytes
    edition: str = "early"

    def __post_init__(self) -> None:
        _need(self.tee in {"sgx", "tdx"}, "sgx or tdx")
        _need(len(self.fmspc) == 6, "an FMSPC of 6 bytes")
        _need_edition(self.edition)

    @property
    def name(self) -> str:
        """See the module."""
        return f"intel/tcb/{self.tee}/{self.fmspc.hex()}/{self.edition}"


@dataclass(frozen=True, slots=True)
class IntelIdentity:
    """The identity of an enclave of Intel's: ``qe``, ``td_qe`` or ``qve``."""

    enclave: str
    edition: str = "early"

    def __post_init__(self) -> None:
        _need(self.enclave in ENCLAVES, "qe, td_qe or qve")
        _need_edition(self.edition)

    @property
    def name(self) -> str:
        """See the module."""
        return f"intel/identity/{self.enclave}/{self.edition}"


@dataclass(frozen=True, slots=True)
class IntelEvaluationNumbers:
    """Which TCB evaluation data numbers there are."""

    tee: str

    def __post_init__(self) -> None:
        _need(self.tee in {"sgx", "tdx"}, "sgx or tdx")

    @property
    def name(self) -> str:
        """See the module."""
        return f"intel/evaluation-numbers/{self.tee}"


@dataclass(frozen=True, slots=True)
class IntelPck:
    """A platform's PCK certificate: QE id (16 bytes), encrypted PPID (384), CPUSVN (16), PCESVN (2, little-endian), PCEID (2)."""

    qe_id: bytes
    encrypted_ppid: bytes
    cpusvn: bytes
    pcesvn: bytes
    pceid: bytes

    def __post_init__(self) -> None:
        sizes = tuple(map(len, (self.qe_id, self.encrypted_ppid, self.cpusvn, self.pcesvn, self.pceid)))
        _need(sizes == (16, 384, 16, 2, 2), "fields of 16, 384, 16, 2 and 2 bytes")

    @property
    def name(self) -> str:
        """See the module."""
        parts = (self.qe_id, self.encrypted_ppid, self.cpusvn, self.pcesvn, self.pceid)
        return "intel/pck/" + "/".join(part.hex() for part in parts)


@dataclass(frozen=True, slots=True)
class AzureThim:
    """VCEK and chain of the machine that asks, from Azure's metadata service."""

    @property
    def name(self) -> str:
        """See the module."""
        return "azure/thim"


@dataclass(frozen=True, slots=True)
class NvidiaRim:
    """A reference integrity manifest."""

    id: str

    def __post_init__(self) -> None:
        _need(_RIM.match(self.id) is not None, "a manifest's id")

    @property
    def name(self) -> str:
        """See the module."""
        return f"nvidia/rim/{self.id}"


@dataclass(frozen=True, slots=True)
class NvidiaOcsp:
    """Whether a certificate is revoked, asked by SHA-384 of its issuer's name and key (48 bytes each) and its serial."""

    issuer_name: bytes
    issuer_key: bytes
    serial: int

    def __post_init__(self) -> None:
        _need(len(self.issuer_name) == len(self.issuer_key) == 48, "two digests of 48 bytes")
        _need(0 < self.serial < 1 << 160, "a serial number of at most 20 bytes")

    @property
    def name(self) -> str:
        """See the module."""
        return f"nvidia/ocsp/{self.issuer_name.hex()}/{self.issuer_key.hex()}/{_bytes(self.serial).hex()}"


Wanted: TypeAlias = (
    AmdVcek | AmdChain | AmdCrl | IntelRootCrl | IntelPckCrl | IntelTcbInfo | IntelIdentity | IntelEvaluationNumbers
    | IntelPck | AzureThim | NvidiaRim | NvidiaOcsp
)  # fmt: skip


def parse(name: str) -> Wanted:
    """The wanted thing of that name, or ``ValueError``. ``parse(wanted.name) == wanted``."""
    vendor, _, rest = name.partition("/")
    kind, _, rest = rest.partition("/")
    parts = rest.split("/") if rest else []
    read = _READERS.get(f"{vendor}/{kind}")
    if read is None or len(parts) != read[0]:
        raise ValueError(f"no endorsement has such a name: {name[:80]}")
    found = read[1](parts)
    if found.name != name:
        raise ValueError(f"not the way to write it: {name[:80]}")
    return found


def _vcek(parts: list[str]) -> Wanted:
    product, levels = Product(parts[0]), [_number(level) for level in parts[2].split("-")]
    _need(len(levels) == 4 + product.has_fmc, "as many levels as that product has")
    fmc = levels.pop(0) if product.has_fmc else None
    boot_loader, tee, snp, microcode = levels
    return AmdVcek(product, _hex(parts[1]), boot_loader, tee, snp, microcode, fmc)


_READERS: dict[str, tuple[int, Callable[[list[str]], Wanted]]] = {
    "amd/vcek": (3, _vcek),
    "amd/chain": (2, lambda parts: AmdChain(Product(parts[0]), parts[1])),
    "amd/crl": (1, lambda parts: AmdCrl(Product(parts[0]))),
    "intel/root-crl": (0, lambda _: IntelRootCrl()),
    "intel/pck-crl": (1, lambda parts: IntelPckCrl(parts[0])),
    "intel/tcb": (3, lambda parts: IntelTcbInfo(parts[0], _hex(parts[1]), parts[2])),
    "intel/identity": (2, lambda parts: IntelIdentity(parts[0], parts[1])),
    "intel/evaluation-numbers": (1, lambda parts: IntelEvaluationNumbers(parts[0])),
    "intel/pck": (5, lambda parts: IntelPck(*map(_hex, parts))),
    "azure/thim": (0, lambda _: AzureThim()),
    "nvidia/rim": (1, lambda parts: NvidiaRim(parts[0])),
    "nvidia/ocsp": (3, lambda parts: NvidiaOcsp(_hex(parts[0]), _hex(parts[1]), int.from_bytes(_hex(parts[2]), "big"))),
}


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _hex(text: str) -> bytes:
    _need(_HEX.match(text) is not None, "lower-case hex")
    return bytes.fromhex(text)


def _number(text: str) -> int:
    _need(_NUMBER.match(text) is not None, "a number")
    return int(text)


def _need(good: bool, what: str) -> None:
    if not good:
        raise ValueError(f"expected {what}")


def _need_edition(edition: str) -> None:
    _need(edition in EDITIONS or _NUMBER.match(edition) is not None, "early, standard or a number")
