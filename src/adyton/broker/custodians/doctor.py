"""What is weak on this machine for this broker, and how each is cured. It looks; it changes nothing and opens nothing."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from adyton.broker.running import fips
from adyton.collateral import directory as endorsements_directory
from adyton.errors import AdytonError
from adyton.protocol.loopback import is_loopback
from adyton.stores import rootkey
from adyton.stores.backup import CopiedFile
from adyton.stores.custody import keyring, passphrase, shared, slots
from adyton.stores.sqlite import FILE

Level = Literal["ok", "weak", "bad"]
SOON = timedelta(days=7)
LOW_BYTES, LEAST_BYTES = 1 << 30, 100 << 20
_TIME_ERROR = 5
_TIMEX_BYTES = 512  # struct timex and room to spare


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``cure`` is empty where nothing is to be done."""

    id: str
    level: Level
    text: str
    cure: str = ""


def examine(directory: Path, plain: Path, now: datetime, endorsements: tuple[Path, ...] = ()) -> list[Finding]:
    """Everything, in an order that does not change. What cannot be looked at is a finding too."""
    described = _described(directory)
    return [
        *_root_key(directory, plain),
        *_left_over(directory),
        *_files(directory, plain, described),
        *_memory(described),
        *_network(described),
        *_cryptography(described),
        *_clock(),
        *_endorsements(endorsements or tuple(Path(path) for path in described.get("endorsements") or ()), now),
        *_room(directory),
    ]


def _cure(error: AdytonError) -> str:
    return error.hint or f"look at {error.field or 'the file'}; restore it from a backup if need be"


def _described(directory: Path) -> dict[str, Any]:
    try:
        read = json.loads((directory / "broker.json").read_text())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _root_key(directory: Path, plain: Path) -> Iterator[Finding]:
    if not (directory / FILE).exists():
        yield Finding("store", "ok", "there is no store in this directory yet, or it is in a database of its own")
        if plain.exists():
            yield _plain_finding(plain)
        return
    try:
        database = CopiedFile(directory / FILE, served=True)  # which brings no older store up to date
        database.check()
    except AdytonError as error:
        yield Finding("store", "bad", f"the store cannot be opened: {error.message} [{error.code}]", _cure(error))
        return
    try:
        _, root = keyring.identity(database)
        held = slots.read(database)
    except AdytonError as error:
        yield Finding("root_key", "bad", f"{error.message} [{error.code}]", _cure(error))
        return
    finally:
        database.close()
    if plain.exists():
        try:
            ours = root is None or slots.root_id(rootkey.load(plain)) == root
        except AdytonError as error:
            yield Finding("root_key", "bad", f"{error.message} [{error.code}]", _cure(error))
            return
        if ours:
            yield _plain_finding(plain)
        else:
            cure = f"rm {plain}" if held else "restore the right file; without it the values cannot be had back"
            yield Finding("root_key", "weak" if held else "bad", "the root key's file is not this store's", cure)
    elif held:
        yield Finding("root_key", "ok", "held by " + ", ".join(f"{slot.name} ({slot.kind})" for slot in held))
    else:
        yield Finding("root_key", "bad", "nothing here opens the store", "restore its root key, or ask a peer: --peer")
    if len(held) + plain.exists() < 2:
        yield Finding(
            "recovery", "weak", "one way in only: if it is lost, everything is", "adyton broker root-key split …"
        )
    elif not any(slot.kind == shared.KIND for slot in held):
        yield Finding("recovery", "ok", "several ways in, none of them shared among owners")
    else:
        yield Finding("recovery", "ok", "owners' shares open the store when nothing else does")
    for slot in held:
        memory = slot.kept.details.get("memory_kib")
        if slot.kind == passphrase.KIND and isinstance(memory, int) and memory < passphrase.MEMORY_KIB:
            yield Finding(
                "passphrase",
                "weak",
                f"guesses at {slot.name} are cheap ({memory} KiB)",
                "root-key remove, root-key add",
            )


def _left_over(directory: Path) -> Iterator[Finding]:
    """What back ends may hold that no row points to."""
    if not (directory / FILE).exists():
        return
    try:
        database = CopiedFile(directory / FILE, served=True)
        try:
            counts = [database.read(f"SELECT count(*) FROM {table}")[0][0] for table in ("removals", "intents")]  # noqa: S608 -- two constants
        finally:
            database.close()
    except AdytonError:  # said by _root_key
        return
    removals, intents = counts
    if removals or intents:
        yield Finding(
            "left_over",
            "weak",
            f"back ends hold {removals} things that nothing points to any more, and perhaps {intents} of requests that"
            " did not end",
            "the broker removes them by itself while it runs and the back ends answer: adyton broker backends",
        )
    else:
        yield Finding("left_over", "ok", "no back end holds anything that nothing points to")


def _plain_finding(plain: Path) -> Finding:
    return Finding(
        "root_key",
        "weak",
        f"the root key lies in a plain file, {plain}: whoever reads it reads every secret",
        "adyton broker root-key change --custody tpm|kms|passphrase",
    )


def _files(directory: Path, plain: Path, described: dict[str, Any]) -> Iterator[Finding]:
    token = described.get("admin_token_file")
    private = [plain, Path(token) if isinstance(token, str) else directory / "admin.token"]
    private += [directory / FILE, directory / "tls" / "private-key.pem", directory / "broker.lock"]
    wrong = 0
    if directory.exists():
        status = directory.stat()
        if status.st_mode & 0o022:
            wrong += 1
            yield Finding("files", "bad", f"others may write in {directory}", f"chmod 700 {directory}")
    for path in private:
        try:
            status = path.lstat()
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode):
            wrong += 1
            yield Finding("files", "bad", f"{path} is not a regular file", "put the file itself there")
        elif status.st_mode & 0o077:
            wrong += 1
            cure = f"chmod 600 {path}; treat what is in it as known"
            yield Finding("files", "bad", f"others can read {path} (mode {stat.S_IMODE(status.st_mode):04o})", cure)
        elif status.st_uid not in {os.geteuid(), directory.stat().st_uid}:
            wrong += 1
            yield Finding("files", "weak", f"{path} belongs to user {status.st_uid}", f"chown it, as {directory}")
    if not wrong:
        yield Finding("files", "ok", "secrets are readable by their owner only")


def _memory(described: dict[str, Any]) -> Iterator[Finding]:
    try:
        swaps = Path("/proc/swaps").read_text().splitlines()[1:]
    except OSError:
        swaps = []
    disks = [line.split()[0] for line in swaps if line.split() and not line.startswith("/dev/zram")]
    if disks:
        text = f"memory may be written to swap ({', '.join(disks)}), keys included"
        yield Finding("swap", "weak", text, "swapoff -a, or swap on an encrypted device with a key made at each start")
    else:
        yield Finding("swap", "ok", "no swap on a disk")
    number = described.get("pid")
    try:
        limits = Path(f"/proc/{int(number)}/limits").read_text() if isinstance(number, int) else ""
    except (OSError, ValueError):
        limits = ""
    line = next((line for line in limits.splitlines() if line.startswith("Max core file size")), "")
    if not line:
        yield Finding("core_dumps", "ok", "no broker is running; one that runs makes no core files")
    elif line.split()[4] == "0":
        yield Finding("core_dumps", "ok", "the running broker makes no core files")
    else:
        yield Finding("core_dumps", "bad", "the running broker may leave its memory in a core file", "start it anew")


def _network(described: dict[str, Any]) -> Iterator[Finding]:
    plain = []
    for name in ("url", "public_url", "peers"):
        parts = urlsplit(str(described.get(name) or ""))
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            plain.append(parts.geturl())
    if plain:
        text = f"no TLS at {', '.join(plain)}: what owners send, the admin token too, can be read on the way"
        yield Finding("tls", "bad", text, "adyton broker serve --tls, or --certificate and --private-key")
    elif described:
        yield Finding("tls", "ok", "TLS, or loopback only")
    roots = described.get("environment")
    if roots in {"development", "ci", "test"}:
        text = f"environment {roots}: a development root may be trusted here, which protects nothing from the host"
        yield Finding("environment", "weak", text, "adyton broker serve --environment production")


def _cryptography(described: dict[str, Any]) -> Iterator[Finding]:
    """What the running broker says of its modules; without one, what this process sees."""
    try:
        state = msgspec.convert(described["fips"], fips.State)
    except (KeyError, msgspec.ValidationError):
        state = fips.state(fips=False)
    if state.profile == "fips" and not state.validated:
        cure = "build both modules with a validated provider: docs/broker/fips.md"
        yield Finding("fips", "weak", f"{state.text}: approved algorithms, computed by no validated module", cure)
    else:
        yield Finding("fips", "ok", state.text)


def _clock() -> Iterator[Finding]:
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: only look
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        state = -1
    if state == _TIME_ERROR:
        text = "nobody keeps this machine's clock: what has expired may seem valid, and what is valid expired"
        yield Finding("clock", "weak", text, "run chrony or systemd-timesyncd")
    elif state < 0:
        yield Finding("clock", "weak", "whether the clock is kept cannot be seen", "check it by hand: chronyc tracking")
    else:
        yield Finding("clock", "ok", "the clock is kept")


def _endorsements(paths: tuple[Path, ...], now: datetime) -> Iterator[Finding]:
    if not paths:
        text = "no endorsements are named: without the endorser's CRL every piece of evidence is refused"
        yield Finding("endorsements", "weak", text, "adyton broker serve --endorsements DIR, or --collateral-cache DIR")
        return
    try:
        found = endorsements_directory.load(paths)
    except AdytonError as error:
        yield Finding("endorsements", "bad", f"they cannot be read: {error.message} [{error.code}]", _cure(error))
        return
    cure = "adyton collateral fetch, or take the endorser's new CRL"
    if not found.crls:
        yield Finding("endorsements", "bad", "there is no CRL among them: evidence is refused", cure)
        return
    first = min(crl.next_update for crl in found.crls)
    shown = first.isoformat(timespec="minutes")
    if first <= now:
        yield Finding("endorsements", "bad", f"a CRL is stale since {shown}: evidence under it is refused", cure)
    elif first <= now + SOON:
        yield Finding("endorsements", "weak", f"a CRL becomes stale at {shown}", cure)
    else:
        yield Finding("endorsements", "ok", f"CRLs are good until {shown}")


def _room(directory: Path) -> Iterator[Finding]:
    place = directory if directory.exists() else directory.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        yield Finding("disk", "bad", f"{place} cannot be looked at", "is it mounted?")
        return
    text = f"{free >> 20} MiB are free where the store is"
    if free < LEAST_BYTES:
        yield Finding("disk", "bad", text + ": soon nothing can be decided, for want of its record", "make room")
    elif free < LOW_BYTES:
        yield Finding("disk", "weak", text, "make room")
    else:
        yield Finding("disk", "ok", text)
