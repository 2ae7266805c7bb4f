"""A slot in this machine's TPM 2.0, opened only while chosen PCRs hold what they held when it was made.

The private key is a sealed data object under the TPM's storage primary (ECC, owner hierarchy), with a PCR policy and no
password, so that there is nothing to guess. tpm2-tools does the talking, each command by itself, so that it works through
the kernel's resource manager: secrets go through pipes only; the files it needs are the TPM's own blobs, in a directory
of this call. What crosses the bus of a discrete TPM is in the clear: whoever can solder reads it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adyton.errors import ConfigError, PlatformError, Unavailable
from adyton.stores.custody.port import Kept

KIND = "tpm"
DEFAULT_TCTI = "device:/dev/tpmrm0"
DEFAULT_PCRS = (0, 2, 4, 7)
"""Firmware, option ROMs, boot loader, secure boot state: what starts before the kernel."""
TIMEOUT = 60.0
_NO_MANAGER = ("swtpm", "mssim")
_TCTI = re.compile(r"(?:device|tabrmd|swtpm|mssim)(?::[\x21-\x7e]{0,200})?\Z")  # not ``cmd``, which runs what it says
_PCR = re.compile(rb"^\s*(\d+)\s*:\s*0x([0-9A-Fa-f]{64})\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TpmCustodian:
    """A TPM, by the address that tpm2-tools understands."""

    tcti: str = DEFAULT_TCTI
    pcrs: tuple[int, ...] = DEFAULT_PCRS

    def __post_init__(self) -> None:
        if not _TCTI.match(self.tcti):
            raise ConfigError("not the address of a TPM", code="tpm_address", field="tpm", got=self.tcti[:80])
        if not self.pcrs or len(set(self.pcrs)) != len(self.pcrs) or not set(self.pcrs) <= set(range(24)):
            raise ConfigError(
                "these PCRs cannot be sealed to",
                code="tpm_pcrs",
                field="pcrs",
                expected="one or more of 0 to 23, each once",
                got=list(self.pcrs)[:24],
            )

    @property
    def kind(self) -> str:
        """``tpm``."""
        return KIND

    def seal(self, secret: bytes, context: bytes) -> Kept:
        """Seal to the PCRs as they are now."""
        with tempfile.TemporaryDirectory(prefix="adyton-tpm-") as made:
            work = _Work(Path(made), self.tcti)
            name = work.primary()
            values = work.read_pcrs(self.pcrs)
            work.run(["tpm2_createpolicy", "-Q", "--policy-pcr", "-l", _selection(self.pcrs), "-L", "policy"])
            create = ["tpm2_create", "-Q", "-C", "primary.ctx", "-L", "policy", "-a", "fixedtpm|fixedparent|noda"]
            work.run([*create, "-u", "public", "-r", "private", "-i", "-"], _bound(secret, context))
            public, private = work.content("public"), work.content("private")
        sealed = len(public).to_bytes(2) + public + private
        return Kept(
            sealed,
            {"primary": name, "pcrs": {str(number): value for number, value in values.items()}, "bank": "sha256"},
        )

    def open(self, kept: Kept, context: bytes) -> bytes:
        """``ConfigError`` ``tpm_pcr_changed`` names the PCRs that differ; ``tpm_other`` if another TPM sealed it."""
        before = kept.details.get("pcrs")
        if not isinstance(before, dict) or not before.keys() <= {str(number) for number in range(24)}:
            raise ConfigError("the slot's row is damaged", code="slot_changed", field="details")
        numbers = tuple(sorted(int(number) for number in before))
        with tempfile.TemporaryDirectory(prefix="adyton-tpm-") as made:
            work = _Work(Path(made), self.tcti)
            if work.primary() != kept.details.get("primary"):
                raise ConfigError(
                    "another TPM sealed this slot, or it was cleared since",
                    code="tpm_other",
                    field="tpm",
                    hint="open another slot, or recover with the owners' shares; then adyton broker root-key add",
                )
            values = work.read_pcrs(numbers)
            differ = [number for number in numbers if values.get(number) != before[str(number)]]
            if differ:
                raise _pcrs_changed(differ)
            end = 2 + int.from_bytes(kept.sealed[:2])
            work.put("public", kept.sealed[2:end])
            work.put("private", kept.sealed[end:])
            try:
                work.run(["tpm2_load", "-Q", "-C", "primary.ctx", "-u", "public", "-r", "private", "-c", "object.ctx"])
            except Unavailable as error:
                raise ConfigError("the TPM does not know this slot", code="tpm_other", field="tpm") from error
            try:
                opened = work.run(["tpm2_unseal", "-c", "object.ctx", "-p", f"pcr:{_selection(numbers)}"])
            except Unavailable as error:
                raise _pcrs_changed(numbers) from error
        digest = hashlib.sha256(context).digest()
        if len(opened) != 64 or not hmac.compare_digest(opened[32:], digest):
            raise ConfigError("the TPM sealed this for another slot", code="slot_changed", field="sealed")
        return opened[:32]


def _bound(secret: bytes, context: bytes) -> bytes:
    """A TPM has no additional data: the digest of the context lies beside the secret."""
    return secret + hashlib.sha256(context).digest()


def _selection(pcrs: Sequence[int]) -> str:
    return "sha256:" + ",".join(str(number) for number in sorted(pcrs))


def _pcrs_changed(numbers: Sequence[int]) -> ConfigError:
    return ConfigError(
        "the TPM does not open this slot: the machine did not start as it did when the slot was made",
        code="tpm_pcr_changed",
        field="PCR " + ", ".join(str(number) for number in numbers),
        hint="if firmware or boot loader were changed on purpose: open another slot or recover with the owners' "
        "shares, then adyton broker root-key change --slot tpm",
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """tpm2-tools in a directory of its own, with nothing in its environment but what it needs."""

    directory: Path
    tcti: str

    def primary(self) -> str:
        """Make the storage primary (the same each time, as the TPM's owner seed says); its name in hex."""
        self.run(["tpm2_createprimary", "-Q", "-C", "o", "-g", "sha256", "-G", "ecc", "-c", "primary.ctx"])
        self.run(["tpm2_readpublic", "-Q", "-c", "primary.ctx", "-n", "primary.name"])
        return self.content("primary.name").hex()

    def read_pcrs(self, numbers: Sequence[int]) -> dict[int, str]:
        """The PCRs' values in hex."""
        text = self.run(["tpm2_pcrread", _selection(numbers)])
        return {int(number): value.decode().lower() for number, value in _PCR.findall(text)}

    def run(self, arguments: list[str], given: bytes = b"") -> bytes:
        """What the tool writes; ``Unavailable`` ``tpm_failed`` if it fails."""
        if self.tcti.startswith(_NO_MANAGER):  # nobody else makes room for what was loaded before
            self._tool(["tpm2_flushcontext", "-t"], b"")
        return self._tool(arguments, given)

    def _tool(self, arguments: list[str], given: bytes) -> bytes:
        try:
            done = subprocess.run(
                arguments,
                cwd=self.directory,
                input=given,
                capture_output=True,
                check=False,
                timeout=TIMEOUT,
                env={"PATH": "/usr/bin:/bin:/usr/local/bin", "TPM2TOOLS_TCTI": self.tcti, "TSS2_LOG": "all+NONE"},
            )
        except FileNotFoundError as error:
            raise PlatformError(
                "tpm2-tools is not installed", code="tpm_tools_missing", hint="apt-get install tpm2-tools"
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable("the TPM does not answer", code="tpm_failed", field=arguments[0]) from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise Unavailable(
                f"the TPM refused: {said[-1][:200] if said else 'without a word'}",
                code="tpm_failed",
                field=arguments[0],
                hint="is there a TPM 2.0 at this address, and may this user reach it (group tss)?",
            )
        return done.stdout

    def content(self, name: str) -> bytes:
        """A file that a tool wrote."""
        return (self.directory / name).read_bytes()

    def put(self, name: str, content: bytes) -> None:
        """A file for a tool."""
        (self.directory / name).write_bytes(content)
