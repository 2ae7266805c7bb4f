"""A real broker process and evidence of every TEE that CoCo's protocol carries, under roots of our own: the whole road.

For each TEE: nothing is released before reference values say so; evidence that is replayed, made for another key or started
for another document is refused; then the secret comes. And devices beside a CPU: taken away, exchanged, stale.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.broker import rig

from adyton.appraisal.compared import TABLE
from adyton.appraisal.shapes import SHAPES
from adyton.crypto import jwe, jwk
from adyton.crypto.x509 import EndorsementSet
from adyton.devtee import sample
from adyton.devtee.az_vtpm import AzureGuest
from adyton.devtee.cca import Forge as CcaForge
from adyton.devtee.csv import CsvForge
from adyton.devtee.dcap import DcapForge, sgx_body, td_body
from adyton.devtee.nvidia import NvidiaForge, ReportFields, default_measurements, gpu_opaque, switch_opaque
from adyton.devtee.root import DevelopmentRoot
from adyton.devtee.snp import ReportFields as SnpFields
from adyton.devtee.snp import issue_report
from adyton.devtee.tpm import SoftTpm
from adyton.protocol import rcar
from adyton.protocol.release import Binding
from adyton.protocol.resource import ResourcePath
from adyton.rats import binding
from adyton.rats.types import JsonValue
from adyton.tee.csv import json_form as csv_form
from adyton.tee.csv.abi import CsvReport
from adyton.tee.csv.certificate import read as read_hygon
from adyton.tee.sample.anybody import ANYBODY
from adyton.tee.snp import json_form
from adyton.tee.snp.abi import SnpReport
from adyton.tee.tdx.abi import TdReport

RESOURCE = "/kbs/v0/resource/default/key/1"
PATH = ResourcePath("default", "key", "1")
DOCUMENT = rig.document()
DIGEST = DOCUMENT.digest.value
OTHER = rig.document(command=["/bin/false"])
PCR8 = hashlib.sha256(bytes(32) + DIGEST).digest()
Make = Callable[[bytes], Any]  # what the TEE's field is to hold -> primary evidence as JSON


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class World:
    """Every forge, and what a broker is started with to believe them."""

    snp: DevelopmentRoot
    now: datetime
    dcap: DcapForge = field(init=False)
    tpm: SoftTpm = field(init=False)
    cca: CcaForge = field(init=False)
    csv: CsvForge = field(init=False)
    gpu: NvidiaForge = field(init=False)
    pek: bytes = field(init=False)
    hsk_cek: bytes = field(init=False)
    gpus: tuple[NvidiaForge, ...] = field(init=False)
    switch: NvidiaForge = field(init=False)
    switches: tuple[NvidiaForge, ...] = field(init=False)
    ak: rsa.RSAPrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.dcap = DcapForge.new(self.now)
        self.tpm = SoftTpm.new("secp256r1", ("sha256",))
        self.tpm.extend(8, {"sha256": DIGEST})
        self.tpm.extend(11, b"a guest")
        self.cca = CcaForge.new()
        self.csv = CsvForge.new()
        self.gpu = NvidiaForge.new(self.now)
        self.pek, self.hsk_cek = self.csv.pek_certificate, self.csv.hsk_cek
        self.gpus = (self.gpu, *(self.gpu.with_device() for _ in range(8)))
        self.switch = NvidiaForge.new(self.now, chip="LS_10")
        self.switches = (self.switch, *(self.switch.with_device() for _ in range(3)))
        self.ak = rsa.generate_private_key(65537, 2048)

    # -- evidence, over what its field is to hold

    def of_snp(self, data: bytes, **fields: Any) -> Any:
        body = {"report_data": data, "measurement": rig.MEASUREMENT, "host_data": DIGEST, **fields}
        report = issue_report(self.snp.signer, SnpFields(**body))
        return json_form.to_json(SnpReport.parse(report), list(self.snp.certificates))

    def of_tdx(self, data: bytes, **fields: Any) -> Any:
        body = {"report_data": data, "mrconfigid": DIGEST + bytes(16), "mrtd": b"\x0d" * 48, **fields}
        registers = {"rtmr1": b"\x01" * 48, "rtmr2": b"\x02" * 48}
        return {"quote": _b64(self.dcap.quote(td_body(**{**registers, **body})).encode()), "cc_eventlog": None}

    def of_sgx(self, data: bytes, **fields: Any) -> Any:
        body = {"report_data": data, "configid": DIGEST + bytes(32), "mrenclave": b"\x09" * 32, **fields}
        return {"quote": _b64(self.dcap.quote(sgx_body(**body)).encode())}

    def _azure(self, data: bytes, **more: Any) -> Any:
        pcrs = tuple(PCR8 if number == 8 else bytes([number]) * 32 for number in range(24))
        guest = AzureGuest(ak=self.ak, pcrs=pcrs, user_data=data.ljust(64, b"\0"), **more)
        return json.loads(guest.evidence(data))

    def of_az_snp(self, data: bytes) -> Any:
        def report(bound: bytes) -> bytes:
            return issue_report(self.snp.signer, SnpFields(report_data=bound, measurement=rig.MEASUREMENT))

        return self._azure(data, hardware=report, vcek=self.snp.signer.certificate)

    def of_az_tdx(self, data: bytes) -> Any:
        def quote(hcl: bytes) -> bytes:
            return self.dcap.quote(td_body(report_data=TdReport.parse(hcl[32 : 32 + 1024]).report_data)).encode()

        return self._azure(data, hardware=lambda bound: TdReport(report_data=bound).encode(), td_quote=quote)

    def of_tpm(self, data: bytes) -> Any:
        return json.loads(self.tpm.coco(data))

    def of_cca(self, data: bytes) -> Any:
        return {"token": [*self.cca.token(realm={10: data, 44235: DIGEST + bytes(32)})]}

    def of_csv(self, data: bytes) -> Any:
        report = CsvReport.parse(self.csv.report(report_data=data, pek=self.pek))
        return csv_form.to_json(report, self.pek, serial=b"DEVTEE0001".ljust(64, b"\0"), hsk_cek=self.hsk_cek)

    def of_gpu(self, data: bytes, count: int = 1) -> Any:
        listed = []
        for forge in self.gpus[:count]:
            report = forge.report(ReportFields(opaque=gpu_opaque(), nonce=data))
            listed.append({"arch": "HOPPER", "evidence": report.hex(), "certificate": _b64(forge.pem)})
        return {"device_evidence_list": listed}

    def of_switch(self, data: bytes, count: int = 1) -> Any:
        golden = default_measurements()
        fields = ReportFields(opaque=switch_opaque(), nonce=data, measurements={n: golden[n] for n in range(1, 32)})
        return {
            "device_evidence_list": [
                {"arch": "LS10", "evidence": forge.report(fields).hex(), "certificate": _b64(forge.pem)}
                for forge in self.switches[:count]
            ]
        }

    # -- what the broker is given

    def lay_out(self, directory: Path) -> None:
        directory.mkdir()
        golden = default_measurements()
        blobs = [*self.dcap.collateral("tdx").blobs(), *self.dcap.collateral("sgx").blobs(), self.cca.cpak_pem]
        blobs += [self.hsk_cek, self.csv.hrk_certificate, *self.gpu.answers(), *self.switch.answers()]
        blobs += [answer for forge in (*self.gpus[1:], *self.switches[1:]) for answer in forge.answers()]
        blobs += [self.gpu.rim({7: [golden[8]]}), self.gpu.rim({0: [golden[1]]}, colloquialVersion="96.00.9F.00.01")]
        blobs += [self.switch.rim({0: [golden[1]]}, colloquialVersion="96.10.55.00.01", edition="SWITCH")]
        for number, blob in enumerate(blobs):
            (directory / f"{number}.der").write_bytes(blob)

    @property
    def roots(self) -> list[str]:
        own = hashlib.sha256(self.tpm.spki).hexdigest()
        devices = [root.hex() for root in self.gpu.anchors | self.switch.anchors]
        hygon = read_hygon(self.csv.hrk_certificate).fingerprint.hex()
        return [self.dcap.fingerprint.hex(), self.cca.cpak_fingerprint.hex(), own, hygon, *devices]


@pytest.fixture(scope="module")
def world(root: DevelopmentRoot) -> World:
    return World(root, datetime.fromtimestamp(time.time(), UTC))


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, root: DevelopmentRoot, world: World
) -> Iterator[rig.RunningBroker]:
    place = tmp_path_factory.mktemp("every") / "endorsements"
    world.lay_out(place)
    trust = [argument for found in world.roots for argument in ("--trust-dev-root", found)]
    running = rig.started(place.parent / "data", root, *trust, "--endorsements", str(place), "--trust-sample-evidence")
    yield running
    assert running.stop() == 0


def handshake(  # noqa: PLR0917 -- one thing each that a test may want otherwise
    client: rig.Raw,
    tee: str,
    make: Make,
    devices: Callable[[bytes], dict[str, Any]] | None = None,
    runs: bytes | None = DOCUMENT.raw,
    key: Any = None,
    bound_key: Any = None,
    sent: Callable[[str], str] = lambda additional: additional,
) -> tuple[int, Any, Any]:
    """Both steps as a guest does them: devices first, then the CPU over what they said."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    members = dict(jwk.from_public(key.public_key()).members)
    bound = dict(jwk.from_public((bound_key or key).public_key()).members)
    status, read, _ = client.ask("POST", "/kbs/v0/auth", rcar.request_body(tee))
    assert status == 200, read
    nonce = json.loads(read)["nonce"]
    additional = ""
    if devices is not None:
        said = binding.expected("nvidia", binding.device_object(nonce, bound)).value
        additional = json.dumps(devices(said))
    primary = make(binding.expected(tee, binding.primary_object(nonce, bound, additional)).value)
    body = rcar.attestation_body(nonce, members, primary, runs, sent(additional))
    status, read, _ = client.ask("POST", "/kbs/v0/attest", body)
    return status, json.loads(read), key


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def publish_what_came(broker: rig.RunningBroker, claims: dict[str, Any]) -> None:
    """As an owner would who knows this guest: every reference value that the evidence asks for, from what it said."""
    with broker.admin() as admin:
        for submodule in claims["submods"].values():
            evidence = submodule["ear.veraison.annotated-evidence"]
            for rule in TABLE[evidence["adyton"]["tee"]]:
                if rule.kind not in {"in", "each", "equal", "at least"}:
                    continue
                got: Any = evidence
                for part in rule.path:
                    got = got[part]
                value: JsonValue = [item[rule.part] for item in got] if rule.kind == "each" else got
                listed = SHAPES[rule.reference].many and rule.kind != "each"
                admin.set_reference(rule.reference, [value] if listed else value)
        admin.set_resource(PATH, rig.SECRET, Binding(workloads=[str(DOCUMENT.digest)]))


TEES = ("snp", "tdx", "sgx", "az-snp-vtpm", "az-tdx-vtpm", "tpm", "cca")
MAKERS = {
    "snp": "of_snp", "tdx": "of_tdx", "sgx": "of_sgx", "az-snp-vtpm": "of_az_snp", "az-tdx-vtpm": "of_az_tdx",
    "tpm": "of_tpm", "cca": "of_cca", "csv": "of_csv",
}  # fmt: skip


@pytest.mark.parametrize("tee", TEES)
def test_the_road_of_a_secret(broker: rig.RunningBroker, world: World, tee: str) -> None:
    make: Make = getattr(world, MAKERS[tee])
    with broker.admin() as admin:
        for stored in admin.list_references():
            admin.delete_reference(stored.name)
        admin.set_resource(PATH, rig.SECRET, Binding(workloads=[str(DOCUMENT.digest)]))
    with rig.raw(broker) as client:
        status, answer, key = handshake(client, tee, make)
        assert status == 200, answer
        claims = claims_of(answer["token"])
        assert claims["submods"]["cpu0"]["ear.status"] in {"contraindicated", "warning"}
        assert claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["adyton"]["host_data"] == DIGEST.hex()
        assert client.ask("GET", RESOURCE)[0] == 403
    publish_what_came(broker, claims)
    with rig.raw(broker) as client:
        status, answer, key = handshake(client, tee, make)
        assert status == 200, answer
        found = claims_of(answer["token"])["submods"]["cpu0"]
        vector = found["ear.trustworthiness-vector"]
        assert (vector["hardware"], found["ear.status"]) == (32, "warning")  # as good as under a development root
        status, body, _ = client.ask("GET", RESOURCE)
        assert status == 200, body
        assert jwe.decrypt(key, body) == rig.SECRET
    with broker.admin() as admin:
        admin.set_resource(PATH, rig.SECRET, Binding(workloads=[str(OTHER.digest)]))
    with rig.raw(broker) as client:
        assert handshake(client, tee, make)[0] == 200
        assert client.ask("GET", RESOURCE)[0] == 403


@pytest.mark.parametrize("tee", (*TEES, "csv", "sample"))
def test_evidence_for_another_key_or_nonce_is_refused(broker: rig.RunningBroker, world: World, tee: str) -> None:
    make: Make = getattr(world, MAKERS.get(tee, ""), lambda data: json.loads(sample.evidence(data)))
    runs = None if tee in {"csv", "sample"} else DOCUMENT.raw
    with rig.raw(broker) as client:
        status, answer, _ = handshake(client, tee, make, runs=runs, bound_key=ec.generate_private_key(ec.SECP256R1()))
        assert status == 401 and "report_data_mismatch" in answer["detail"]
        kept: list[Any] = []

        def recorded(data: bytes) -> Any:
            kept.append(make(data))
            return kept[0]

        assert handshake(client, tee, recorded, runs=runs)[0] == 200
    with rig.raw(broker) as client:
        status, answer, _ = handshake(client, tee, lambda _: kept[0], runs=runs)
        assert status == 401 and "report_data_mismatch" in answer["detail"]


@pytest.mark.parametrize("tee", TEES)
def test_another_document_is_refused(broker: rig.RunningBroker, world: World, tee: str) -> None:
    with rig.raw(broker) as client:
        status, answer, _ = handshake(client, tee, getattr(world, MAKERS[tee]), runs=OTHER.raw)
    assert status == 401 and "init_data_mismatch" in answer["detail"]


@pytest.mark.parametrize("tee", ["csv", "sample"])
def test_a_document_that_nothing_binds_is_refused_by_name(broker: rig.RunningBroker, world: World, tee: str) -> None:
    make: Make = getattr(world, MAKERS.get(tee, ""), lambda data: json.loads(sample.evidence(data)))
    with rig.raw(broker) as client:
        status, answer, _ = handshake(client, tee, make)
        assert status == 401 and "init_data_unbound" in answer["detail"]
        assert handshake(client, tee, make, runs=None)[0] == 200


@pytest.mark.parametrize("tee", ["csv", "sample"])
def test_a_tee_without_init_data_gets_only_what_any_accepted_workload_may_have(
    broker: rig.RunningBroker, world: World, tee: str
) -> None:
    make: Make = getattr(world, MAKERS.get(tee, ""), lambda data: json.loads(sample.evidence(data)))
    with rig.raw(broker) as client:
        _, answer, _ = handshake(client, tee, make, runs=None)
    claims = claims_of(answer["token"])
    if tee == "sample":
        assert (
            claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["adyton"]["root_fingerprint"] == ANYBODY.hex()
        )
    publish_what_came(broker, claims)
    for bound, status in ((Binding(workloads=[str(DOCUMENT.digest)]), 403), (Binding(any_workload_i_accept=True), 200)):
        with broker.admin() as admin:
            admin.set_resource(PATH, rig.SECRET, bound)
        with rig.raw(broker) as client:
            assert handshake(client, tee, make, runs=None)[0] == 200
            assert client.ask("GET", RESOURCE)[0] == status


# ---------------------------------------------------------------- what is started


def refused(data: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "adyton", "broker", "serve", "--data", str(data), "--listen", "127.0.0.1:0"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode
    return done.stderr


@pytest.mark.parametrize("environment", ["production", "pre-production", None])
def test_sample_evidence_is_for_development(tmp_path: Path, environment: str | None) -> None:
    where = ("--environment", environment) if environment else ()
    assert "sample_evidence_refused" in refused(tmp_path / "data", "--trust-sample-evidence", *where)


def test_the_sentinel_is_no_root(tmp_path: Path) -> None:
    said = refused(tmp_path / "data", "--trust-dev-root", ANYBODY.hex(), "--environment", "development")
    assert "development_root_refused" in said


def test_a_broker_that_believes_anybody_says_so(broker: rig.RunningBroker) -> None:
    assert "SAMPLE EVIDENCE IS BELIEVED" in broker.log()


def test_fetching_needs_a_place_to_keep_what_came(tmp_path: Path) -> None:
    assert "setting_invalid" in refused(tmp_path / "data", "--fetch-endorsements")


# ---------------------------------------------------------------- devices beside the CPU


@pytest.mark.parametrize("tee", ["snp", "tdx"])
def test_a_device_cannot_be_taken_away_exchanged_or_relayed(broker: rig.RunningBroker, world: World, tee: str) -> None:
    make: Make = getattr(world, MAKERS[tee])

    def devices(data: bytes) -> dict[str, Any]:
        return {"nvidia": world.of_gpu(data)}

    with rig.raw(broker) as client:
        status, answer, _ = handshake(client, tee, make, devices, sent=lambda _: "")
        assert status == 401 and "report_data_mismatch" in answer["detail"]
        status, answer, _ = handshake(client, tee, make, None, sent=lambda _: json.dumps(devices(bytes(32))))
        assert status == 401 and "report_data_mismatch" in answer["detail"]

        def exchanged(additional: str) -> str:
            nonce = bytes.fromhex(json.loads(additional)["nvidia"]["device_evidence_list"][0]["evidence"])[4:36]
            return json.dumps(devices(nonce))  # another report of the same device over the same nonce

        status, answer, _ = handshake(client, tee, make, devices, sent=exchanged)
        assert status == 401 and "report_data_mismatch" in answer["detail"]
        status, answer, _ = handshake(client, tee, make, devices, sent=lambda additional: additional + " ")
        assert status == 401 and "report_data_mismatch" in answer["detail"]
        # a stale or relayed device: the CPU vouches for the text, the device was asked by somebody else
        status, answer, _ = handshake(client, tee, make, lambda _: devices(b"\7" * 32))
        assert status == 401 and "report_data_mismatch" in answer["detail"]
        status, answer, _ = handshake(client, tee, make, lambda data: {"snp": world.of_snp(data.ljust(64, b"\0"))})
        assert status == 401
        one = world.of_gpu(bytes(32))["device_evidence_list"]
        status, answer, _ = handshake(client, tee, make, lambda _: {"nvidia": {"device_evidence_list": one * 2}})
        assert status == 401


@pytest.mark.parametrize("tee", ["snp", "tdx"])
def test_all_that_attests_must_be_accepted(broker: rig.RunningBroker, world: World, tee: str) -> None:
    make: Make = getattr(world, MAKERS[tee])

    def devices(data: bytes) -> dict[str, Any]:
        return {"nvidia": {"device_evidence_list": [*_gpus(data), *world.of_switch(data)["device_evidence_list"]]}}

    def _gpus(data: bytes) -> list[Any]:
        found: list[Any] = world.of_gpu(data)["device_evidence_list"]
        return found

    with rig.raw(broker) as client:
        status, answer, _ = handshake(client, tee, make, devices)
        assert status == 200, answer
    claims = claims_of(answer["token"])
    assert list(claims["submods"]) == ["cpu0", "gpu0", "switch0"]
    assert (
        "additional-evidence" not in claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["runtime_data_claims"]
    )
    publish_what_came(broker, claims)
    with rig.raw(broker) as client:
        status, answer, key = handshake(client, tee, make, devices)
        for name, found in claims_of(answer["token"])["submods"].items():
            assert found["ear.trustworthiness-vector"]["hardware"] == 32, name
        status, body, _ = client.ask("GET", RESOURCE)
        assert status == 200, body
        assert jwe.decrypt(key, body) == rig.SECRET
        # the passport: the token alone, with the key
        with rig.raw(broker) as other:
            status, body, _ = other.ask("GET", RESOURCE, headers={"Authorization": f"Bearer {answer['token']}"})
            assert status == 200 and jwe.decrypt(key, body) == rig.SECRET
    # one device that the policy does not like is enough
    with broker.admin() as admin:
        admin.set_policy("attestation", "default_switch", 'package policy\ntrust_claims := {"hardware": 97}')
    with rig.raw(broker) as client:
        assert handshake(client, tee, make, devices)[0] == 200
        assert client.ask("GET", RESOURCE)[0] == 403
        assert handshake(client, tee, make)[0] == 200  # nobody says that there must be devices
    with broker.admin() as admin:
        admin.delete_policy("attestation", "default_switch")
    # firmware that is not its maker's is refused before any policy is asked
    wrong = {**default_measurements(), 8: bytes(48)}

    def changed(data: bytes) -> dict[str, Any]:
        report = world.gpu.report(ReportFields(opaque=gpu_opaque(), measurements=wrong, nonce=data))
        device = {"arch": "HOPPER", "evidence": report.hex(), "certificate": _b64(world.gpu.pem)}
        return {"nvidia": {"device_evidence_list": [device]}}

    with rig.raw(broker) as client:
        assert handshake(client, tee, make, changed)[0] == 401


def test_a_device_alone_gets_nothing(broker: rig.RunningBroker) -> None:
    for tee in ("nvidia", "sampledevice"):
        with rig.raw(broker) as client:
            assert client.ask("POST", "/kbs/v0/auth", rcar.request_body(tee))[0] == 401


def test_two_devices_are_two_submodules(broker: rig.RunningBroker, world: World) -> None:
    with rig.raw(broker) as client:
        make: Make = world.of_tdx
        status, answer, _ = handshake(client, "tdx", make, lambda data: {"nvidia": world.of_gpu(data, 2)})
        assert status == 200, answer
        assert list(claims_of(answer["token"])["submods"]) == ["cpu0", "gpu0", "gpu1"]


def test_devices_that_are_demanded_must_be_there_and_be_accepted(broker: rig.RunningBroker, world: World) -> None:
    """Demanded by the binding, by the repository, by the tenant: missing, too few, not accepted, then there."""

    def devices(gpus: int, switches: int) -> Callable[[bytes], dict[str, Any]] | None:
        def made(data: bytes) -> dict[str, Any]:
            listed = [
                *(world.of_gpu(data, gpus)["device_evidence_list"] if gpus else []),
                *(world.of_switch(data, switches)["device_evidence_list"] if switches else []),
            ]
            return {"nvidia": {"device_evidence_list": listed}}

        return made if gpus or switches else None

    def got(gpus: int, switches: int) -> tuple[int, list[str]]:
        with rig.raw(broker) as client:
            status, answer, key = handshake(client, "snp", world.of_snp, devices(gpus, switches))
            assert status == 200, answer
            status, body, _ = client.ask("GET", RESOURCE)
            assert status != 200 or jwe.decrypt(key, body) == rig.SECRET
        with broker.admin() as admin:
            row = admin.audit(limit=1)[0]["row"]
        return status, sorted(
            {reason.partition(":")[0] for reason in row.get("reasons", [])} - {"by_workload", "nothing_affirmed"}
        )

    with rig.raw(broker) as client:
        status, answer, _ = handshake(client, "snp", world.of_snp, devices(2, 2))
        assert status == 200, answer
    publish_what_came(broker, claims_of(answer["token"]))
    missing = (403, ["device_missing"])
    with broker.admin() as admin:
        mine = [str(DOCUMENT.digest)]
        admin.bind_resource(PATH, Binding(workloads=mine, devices={"gpu": 1}))
        assert [got(0, 0), got(0, 1)] == [missing, missing]  # no device, and one of another class
        assert got(1, 0) == (200, [])
        admin.set_policy("requirements", "release", '{"repositories": {"default": {"devices": {"gpu": 2}}}}')
        assert got(1, 0) == missing
        assert got(2, 0) == (200, [])
        admin.set_policy("requirements", "release", '{"devices": {"switch": 1}}')
        assert got(1, 0) == missing
        assert got(1, 1) == (200, [])
        admin.set_policy("attestation", "default_gpu", 'package policy\ntrust_claims := {"hardware": 97}')
        assert got(1, 1) == (403, ["hardware_not_accepted"])  # a device that is there and not accepted is no help
        admin.delete_policy("attestation", "default_gpu")
        admin.delete_policy("requirements", "release")
        # eight GPUs and four switches, no more and no fewer, are the set that is called ppcie
        admin.bind_resource(PATH, Binding(workloads=mine, devices={"ppcie": 1}))
        for counts in ((0, 0), (2, 1), (7, 4), (8, 3), (9, 4)):
            assert got(*counts) == missing, counts
        assert got(8, 4) == (200, [])
        admin.bind_resource(PATH, Binding(workloads=mine, devices={"ppcie": 2}))
        assert got(8, 4) == missing
        admin.bind_resource(PATH, Binding(workloads=mine))


def test_endorsements_of_everything_are_recognised(world: World, tmp_path: Path) -> None:
    world.lay_out(tmp_path / "all")
    found = EndorsementSet.parse([file.read_bytes() for file in (tmp_path / "all").iterdir()])
    assert found.certificates and found.crls and found.documents
