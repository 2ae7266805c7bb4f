"""The real thing: a swtpm process of its own, driven by tpm2-tools, and its quotes verified here."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import ports
from tests.tee.tpm.building import verify
from tests.waiting import LONG, until

from adyton.crypto.x509 import EndorsementSet
from adyton.devtee.forge import flip
from adyton.devtee.tpm import b64, digest
from adyton.errors import EvidenceError
from adyton.rats.types import ReportData, TrustAnchors
from adyton.tee.tpm.abi import AK_ATTRIBUTES, PublicArea

PROGRAMS = ("swtpm", "tpm2_startup", "tpm2_createek", "tpm2_createak", "tpm2_pcrextend", "tpm2_pcrread", "tpm2_quote")
NONCE = bytes(range(32))

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in PROGRAMS), reason="needs swtpm and tpm2-tools"
)


class Tpm:
    """A TPM in a folder of its own; ``run`` calls one of tpm2-tools on it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self._environment = {**os.environ, "TPM2TOOLS_TCTI": f"swtpm:host=127.0.0.1,port={port}"}

    def run(self, *command: str) -> None:
        """Without a resource manager the three places for objects must be emptied by hand."""
        self._run(*command)
        self._run("tpm2_flushcontext", "-t")

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (command, done.stderr)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def swtpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tpm]:
    folder = tmp_path_factory.mktemp("swtpm")
    server = ports.reserve_two()
    control = server + 1  # where tpm2-tools look for it
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "not-need-init,startup-clear"]
    command += ["--server", f"type=tcp,port={server}", "--ctrl", f"type=tcp,port={control}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            tpm = Tpm(folder, server)
            until(lambda: process.poll() is not None or _answers(control), what="swtpm does not listen")
            if process.poll() is not None:
                pytest.fail(f"swtpm ended: {process.stderr.read().decode() if process.stderr else ''}")
            tpm.run("tpm2_createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.pub")
            yield tpm
        finally:
            process.terminate()
            process.wait(LONG)


def quoted(tpm: Tpm, kind: str, hash_name: str, scheme: str, selection: str) -> dict[str, Any]:
    """An AK, a quote under it, and the values of its PCRs, as the bundle's members."""
    name = f"{kind}-{hash_name}-{scheme}"
    algorithm = ["-G", kind, "-g", hash_name, "-s", scheme]
    tpm.run("tpm2_createak", "-C", "ek.ctx", "-c", f"{name}.ctx", *algorithm, "-u", f"{name}.pub", "-n", f"{name}.name")
    nonce = NONCE.hex()
    files = ["-m", f"{name}.msg", "-s", f"{name}.sig"]
    tpm.run(
        "tpm2_quote", "-c", f"{name}.ctx", "-l", selection, "-q", nonce, "-g", hash_name, "--scheme", scheme, *files
    )
    pcrs: dict[str, dict[str, str]] = {}
    for part in selection.split("+"):
        bank = part.split(":")[0]
        tpm.run("tpm2_pcrread", part, "-o", "values.bin")
        values = tpm.read("values.bin")
        size = len(digest(bank, b""))
        numbers = [int(number) for number in part.split(":")[1].split(",")]
        pcrs[bank] = {str(n): values[i * size : (i + 1) * size].hex() for i, n in enumerate(numbers)}
    return {
        "quotes": [{"message": b64(tpm.read(f"{name}.msg")), "signature": b64(tpm.read(f"{name}.sig"))}],
        "pcrs": pcrs,
        "ak_public": b64(tpm.read(f"{name}.pub")),
    }


@pytest.mark.parametrize(
    ("kind", "hash_name", "scheme"),
    [
        ("rsa", "sha256", "rsassa"),
        ("rsa", "sha256", "rsapss"),
        ("ecc", "sha256", "ecdsa"),
        ("ecc384", "sha384", "ecdsa"),
    ],
)
def test_quotes_of_a_tpm_verify(swtpm: Tpm, kind: str, hash_name: str, scheme: str) -> None:
    name = f"{kind}-{hash_name}-{scheme}"
    swtpm.run("tpm2_pcrextend", f"16:sha1={'11' * 20},sha256={'22' * 32},sha384={'33' * 48}")
    document = quoted(swtpm, kind, hash_name, scheme, "sha256:0,7,16,23+sha384:8,16")
    area = PublicArea.parse(swtpm.read(f"{name}.pub"))
    assert area.name == swtpm.read(f"{name}.name")
    assert area.attributes & AK_ATTRIBUTES == AK_ATTRIBUTES

    verified = verify(json.dumps(document).encode(), report_data=ReportData(NONCE))
    pcrs: Any = verified.claims["pcrs"]
    assert list(pcrs) == ["sha256", "sha384"]
    assert list(pcrs["sha256"]) == ["00", "07", "16", "23"]
    assert set(pcrs["sha256"]["16"]) != {"0"}
    assert verified.claims["nonce"] == NONCE.hex()

    signature = swtpm.read(f"{name}.sig")
    document["quotes"][0]["signature"] = b64(flip(signature, 8 * len(signature) - 1))
    with pytest.raises(EvidenceError):
        verify(json.dumps(document).encode())


def test_what_was_extended_is_what_is_predicted(swtpm: Tpm) -> None:
    before = quoted(swtpm, "rsa", "sha256", "rsassa", "sha256:23")["pcrs"]["sha256"]["23"]
    step = digest("sha256", b"an event")
    swtpm.run("tpm2_pcrextend", f"23:sha256={step.hex()}")
    document = quoted(swtpm, "rsa", "sha256", "rsassa", "sha256:23")
    assert document["pcrs"]["sha256"]["23"] == digest("sha256", bytes.fromhex(before) + step).hex()
    pins = TrustAnchors(vendor=False, custom=EndorsementSet.parse([_pem(swtpm)]).fingerprints)
    assert verify(json.dumps(document).encode(), anchors=pins).claims["ak_trust"] == "pinned"


def _pem(tpm: Tpm) -> bytes:
    tpm.run("tpm2_readpublic", "-c", "rsa-sha256-rsassa.ctx", "-f", "pem", "-o", "ak.pem")
    return tpm.read("ak.pem")
