"""The wire of the development TEE: the platform service's control socket, and an instance's report channel.

Both carry frames: a 4-byte big-endian length, then one JSON object tagged by ``type``, at most ``MAX_FRAME`` bytes.
On the control socket (a Unix stream socket, peers of the service's own user only) ``Run`` carries the caller's standard
input, output and error as descriptors (SCM_RIGHTS). The report channel is the one descriptor that an agent inherits:
whoever holds it can have reports of that instance, and of no other. It never reaches the workload.

Nothing that arrives in ``Start`` besides ``document`` is measured: an agent believes only what the document's digest,
HOST_DATA in its own report, covers. Keys and credentials travel here, never in argument vectors or environments.
"""

from __future__ import annotations

import struct
from typing import TypeAlias, TypeVar

import msgspec

from adyton.errors import MalformedRequest
from adyton.wire import strict_json

MAX_FRAME = 8 * 1024 * 1024
HEADER = struct.Struct(">I")
STOP = 0  # in ``Signal``: the signal that the image wants to be asked to end by


class Publish(msgspec.Struct, frozen=True):
    """A host port to forward. ``host_port`` 0 lets the machine choose."""

    container_port: int
    host_port: int = 0
    host_address: str = "127.0.0.1"


class Run(msgspec.Struct, frozen=True, tag=True):
    """Start an instance. ``document`` is the whole init data; the rest is what the operator offers it.

    ``volumes`` maps a path of the document's mounts to a host directory or file, or to the name of a volume. ``source``
    says where the image is pulled from (a registry reference without digest) when the store lacks it.
    ``decryption_keys`` are PEM private keys for JWE recipients; ``registry_auth`` is a containers-auth.json document.
    """

    document: str
    name: str = ""
    source: str = ""
    detach: bool = False
    interactive: bool = False
    terminal: bool = False
    remove: bool = False
    volumes: dict[str, str] = {}
    publish: list[Publish] = []
    env: dict[str, str] = {}
    decryption_keys: list[str] = []
    registry_auth: str = ""
    registry_plain_http: list[str] = []
    registry_unverified_tls: list[str] = []
    registry_ca: str = ""
    rows: int = 0
    columns: int = 0


class Signal(msgspec.Struct, frozen=True, tag=True):
    """Send the workload's first process a signal, ``STOP`` for the image's own."""

    number: int


class Resize(msgspec.Struct, frozen=True, tag=True):
    """The caller's terminal has a new size."""

    rows: int
    columns: int


class Attach(msgspec.Struct, frozen=True, tag=True):
    """Wait for an instance's events from now on."""

    instance: str


class List(msgspec.Struct, frozen=True, tag=True):
    """Which instances there are; ``all`` includes the ended ones that were not removed."""

    all: bool = False


class Logs(msgspec.Struct, frozen=True, tag=True):
    """What an instance wrote. ``Output`` frames follow, then ``Done``."""

    instance: str
    follow: bool = False


class Stop(msgspec.Struct, frozen=True, tag=True):
    """The image's stop signal (TERM if it names none), then after ``timeout`` seconds KILL."""

    instance: str
    timeout: float = 10.0


class Remove(msgspec.Struct, frozen=True, tag=True):
    """Forget an ended instance; with ``force`` a running one is killed first."""

    instance: str
    force: bool = False


class About(msgspec.Struct, frozen=True, tag=True):
    """Ask for ``Platform``."""


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    """End the service; refused while instances run unless ``force``."""

    force: bool = False


class Started(msgspec.Struct, frozen=True, tag=True):
    """The instance exists; ``host_data`` is the digest of its document."""

    instance: str
    host_data: str


class Phase(msgspec.Struct, frozen=True, tag=True):
    """What an instance is doing. ``done`` of ``total`` bytes where known; ``seconds`` since its start."""

    name: str
    seconds: float = 0.0
    label: str = ""
    done: int = 0
    total: int | None = None


class Running(msgspec.Struct, frozen=True, tag=True):
    """The workload's process runs; ``published`` are the ports as they were bound."""

    published: list[Publish] = []


class Exited(msgspec.Struct, frozen=True, tag=True):
    """The workload ended with this status (128 + n for signal n)."""

    status: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Adyton could not do it. ``error`` is ``AdytonError.as_dict`` plus ``kind``, the class's name."""

    error: dict[str, object]


class Output(msgspec.Struct, frozen=True, tag=True):
    """A piece of what an instance wrote; base64 on the wire."""

    stream: str
    data: bytes


class Instance(msgspec.Struct, frozen=True):
    """One row of ``ps``. Times are RFC 3339."""

    id: str
    name: str
    image: str
    command: list[str]
    host_data: str
    state: str
    created: str
    status: int | None = None
    published: list[Publish] = []


class Instances(msgspec.Struct, frozen=True, tag=True):
    """The answer to ``List``."""

    instances: list[Instance]


class Platform(msgspec.Struct, frozen=True, tag=True):
    """What this development platform is. ``measurement`` is what ``adyton measure guest`` prints for its guest."""

    root_fingerprint: str
    measurement: str
    guest: str
    chip_id: str
    pid: int


class Done(msgspec.Struct, frozen=True, tag=True):
    """The request was carried out."""


class Start(msgspec.Struct, frozen=True, tag=True):
    """First frame on a report channel: the document and what the operator offers.

    ``volumes`` maps a path of the document's mounts to the place inside the instance where the service has put it.
    """

    instance: str
    document: str
    run: Run
    volumes: dict[str, str] = {}


class ReportRequest(msgspec.Struct, frozen=True, tag=True):
    """Ask the secure processor for a report over 64 bytes of the agent's choosing; base64 on the wire."""

    report_data: bytes


class Certificate(msgspec.Struct, frozen=True):
    """A certificate as CoCo's evidence lists it: ``VCEK``, ``VLEK``, ``ASK`` or ``ARK``, in DER."""

    cert_type: str
    data: bytes


class Report(msgspec.Struct, frozen=True, tag=True):
    """A report of this instance, 1184 bytes, with the platform's certificates."""

    report: bytes
    certificates: list[Certificate]


ControlRequest: TypeAlias = Run | Signal | Resize | Attach | List | Logs | Stop | Remove | About | Shutdown
ControlReply: TypeAlias = Started | Phase | Running | Exited | Failed | Output | Instances | Platform | Done
ToAgent: TypeAlias = Start | Signal | Resize | Report | Failed
FromAgent: TypeAlias = ReportRequest | Phase | Running | Exited | Failed

CONTROL_REQUEST = msgspec.json.Decoder(ControlRequest)
CONTROL_REPLY = msgspec.json.Decoder(ControlReply)
TO_AGENT = msgspec.json.Decoder(ToAgent)
FROM_AGENT = msgspec.json.Decoder(FromAgent)
_ENCODER = msgspec.json.Encoder()


def frame(message: msgspec.Struct) -> bytes:
    """One message as it goes over the wire."""
    body = _ENCODER.encode(message)
    if len(body) > MAX_FRAME:
        raise MalformedRequest("a frame of the development TEE's protocol would be too large", code="frame_too_large")
    return HEADER.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """The length that a 4-byte header announces; ``MalformedRequest`` if it is over ``MAX_FRAME``."""
    (length,) = HEADER.unpack(header)
    if length > MAX_FRAME:
        raise MalformedRequest(
            "a frame of the development TEE's protocol is too large", code="frame_too_large", got=length
        )
    return int(length)


_T = TypeVar("_T")


def decode(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """One message of the kinds that ``decoder`` knows; ``MalformedRequest`` for anything else."""
    try:
        return decoder.decode(body)
    except strict_json.UNREADABLE as error:
        raise MalformedRequest("not a message of the development TEE's protocol", code="frame_malformed") from error
