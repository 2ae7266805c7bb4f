"""``adyton measure``: what evidence will have to show, computed beforehand from what is to run."""

from __future__ import annotations

import os
from pathlib import Path

import click

from adyton.cli.administering import Noun
from adyton.cli.files import read
from adyton.cli.output import json_option, print_json, say
from adyton.cli.places import places
from adyton.rats.types import JsonValue

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MAX_FIRMWARE = 256 << 20
_PIECE = 1 << 20


@click.group(cls=Noun)
def measure() -> None:
    """Compute the measurements that evidence must show."""


@measure.command()
@click.argument("file", required=False, type=_FILE)
@click.option(
    "--reference-values", is_flag=True, help="JSON for adyton reference set --file: it, and the platform's TCB."
)
@json_option
def guest(file: Path | None, reference_values: bool, as_json: bool) -> None:
    """MEASUREMENT of development instances that start from the guest stack FILE [default: where serve looks].

    It is published as the reference value snp_launch_measurement.
    """
    from adyton.platform.guest import measure as measure_guest
    from adyton.platform.reference_values import reference_values as values

    path = file or places().guest
    measurement = measure_guest(path)
    value = measurement.hex()
    if reference_values:
        print_json(values(measurement))
    elif as_json:
        print_json({"tee": "snp", "measurement": value, "guest": str(path)})
    else:
        click.echo(value)


@measure.command()
@click.argument("file", type=_FILE)
@json_option
def workload(file: Path, as_json: bool) -> None:
    """HOST_DATA of an instance that is started for the workload document FILE: the SHA-256 of its bytes."""
    from adyton.protocol import workload as document

    checked = document.parse(read(file))
    if as_json:
        print_json({"host_data": checked.digest.hex, "image": checked.workload.image})
    else:
        click.echo(checked.digest.hex)


@measure.command()
@click.option("--ovmf", "firmware", type=_FILE, required=True, help="The firmware's image.")
@click.option("--kernel", type=_FILE, help="For measured direct boot.")
@click.option("--initrd", type=_FILE, help="With --kernel; without it an empty one is measured, as QEMU does.")
@click.option("--append", "cmdline", default="", help="The kernel's command line.")
@click.option("--vcpus", type=click.IntRange(1, 4096), default=1, show_default=True)
@click.option("--vcpu-type", help="QEMU's name of the CPU model, such as EPYC-Genoa; not measured by ec2 and gce.")
@click.option("--guest-features", default="0x1", show_default=True, help="SEV_FEATURES as a number.")
@click.option(
    "--vmm-type", type=click.Choice(["QEMU", "ec2", "gce"], case_sensitive=False), default="QEMU", show_default=True
)
@json_option
def snp(
    *,
    firmware: Path,
    kernel: Path | None,
    initrd: Path | None,
    cmdline: str,
    vcpus: int,
    vcpu_type: str | None,
    guest_features: str,
    vmm_type: str,
    as_json: bool,
) -> None:
    """MEASUREMENT of an SNP guest, from what its VMM loads: firmware, kernel, initrd, command line, vCPUs."""
    from adyton.tee.snp.measure import KernelHashes, launch_digest
    from adyton.tee.snp.vmsa import Vmm

    if kernel is None and (initrd is not None or cmdline):
        raise click.UsageError("--initrd and --append are measured with --kernel only")
    vmm = next(kind for kind in Vmm if kind.value.lower() == vmm_type.lower())
    if vcpu_type is None and vmm is Vmm.QEMU:
        raise click.UsageError("--vcpu-type is needed: QEMU's guests are measured with it")
    try:
        features = int(guest_features, 0)
    except ValueError as error:
        raise click.BadParameter("a number such as 0x1", param_hint="--guest-features") from error
    hashes = None
    if kernel is not None:
        hashes = KernelHashes.precomputed(
            kernel=_sha256(kernel), initrd=_sha256(initrd or Path(os.devnull)), cmdline=cmdline
        )
    digest = launch_digest(
        firmware=read(firmware, _MAX_FIRMWARE),
        kernel_hashes=hashes,
        vcpus=vcpus,
        vcpu_type=vcpu_type,
        guest_features=features,
        vmm=vmm,
    ).hex()
    if as_json:
        print_json({"tee": "snp", "measurement": digest})
    else:
        click.echo(digest)


@measure.command()
@click.argument("file", required=False, type=_FILE)
@click.option("--sigstruct", type=_FILE, help="The enclave's SIGSTRUCT: it is verified, and must be FILE's.")
@json_option
def sgx(file: Path | None, sigstruct: Path | None, as_json: bool) -> None:
    """MRENCLAVE of the enclave in FILE, an SGX stream (.sgxs); or what a SIGSTRUCT vouches for, once it verifies."""
    from adyton.tee.sgx.measure import measure as measure_stream
    from adyton.tee.sgx.sigstruct import SIZE, Sigstruct

    shown: dict[str, JsonValue] = {"tee": "sgx"}
    measurement = None
    if file is None and sigstruct is None:
        raise click.UsageError("give an SGX stream, --sigstruct, or both")
    if file is not None:
        with file.open("rb") as stream:
            measured = measure_stream(iter(lambda: stream.read(_PIECE), b""))
        measurement = measured.mrenclave
        shown |= {"size": measured.size, "pages": measured.pages, "unmeasured_chunks": measured.unmeasured}
    if sigstruct is not None:
        with sigstruct.open("rb") as stream:
            signed = Sigstruct.parse(stream.read(SIZE + 1))
        signed.verify()
        if measurement is not None:
            signed.check_measurement(measurement)
        measurement = signed.enclave_hash
        shown |= {
            "mrsigner": signed.mrsigner.hex(),
            "isvprodid": signed.isv_prod_id,
            "isvsvn": signed.isv_svn,
            "attributes": signed.attributes.hex(),
            "debug": signed.debug,
            "date": signed.signed_on.isoformat() if signed.signed_on is not None else None,
        }
    value = measurement.hex() if measurement is not None else None
    if as_json:
        print_json({**shown, "measurement": value})
        return
    click.echo(value)
    if sigstruct is not None:
        for name in ("mrsigner", "isvprodid", "isvsvn", "attributes", "debug", "date"):
            say(f"{name + ':':<12}{shown[name]}")


@measure.command()
@click.argument("firmware", type=_FILE)
@click.option(
    "--order",
    type=click.Choice(["page", "section"]),
    help="How the VMM measures: each page as it is added, or a section once all its pages are [default: both].",
)
@json_option
def tdx(firmware: Path, order: str | None, as_json: bool) -> None:
    """MRTD of a trust domain that starts with FIRMWARE, a TDVF such as OVMF.

    VMMs measure in one of two orders, which give two values: publish the one that your VMM's guests show.
    """
    from adyton.tee.tdx.measure import MAX_FIRMWARE, Order, mrtd

    with firmware.open("rb") as stream:
        image = stream.read(MAX_FIRMWARE + 1)
    wanted = [each for each in Order if order in {None, each.value}]
    values = {each.value: mrtd(image, each).hex() for each in wanted}
    if as_json:
        only = {"measurement": values[order]} if order is not None else {}
        print_json({"tee": "tdx", **only, "measurements": {**values}})
    elif order is not None:
        click.echo(values[order])
    else:
        for name, value in values.items():
            click.echo(f"{name + ':':<9}{value}")


@measure.command()
@click.argument("image", required=False, type=_FILE)
@click.option("--role", help="ARN of the IAM role that the parent instance has: register 3.")
@click.option("--instance", help="Id of the parent instance (i-...): register 4.")
@json_option
def nitro(image: Path | None, role: str | None, instance: str | None, as_json: bool) -> None:
    """Registers of a Nitro enclave that starts from IMAGE, an enclave image file (.eif): 0, 1, 2, and 8 if it is signed."""
    from adyton.tee.nitro import measure as registers

    if image is None and role is None and instance is None:
        raise click.UsageError("give an enclave image, --role or --instance")
    if role is not None and not role.startswith("arn:"):  # an unset variable of a script would be measured as well
        raise click.BadParameter("an ARN begins with arn:", param_hint="--role")
    if instance is not None and not instance.startswith("i-"):
        raise click.BadParameter("the id of an instance begins with i-", param_hint="--instance")
    found = registers.image_pcrs(_enclave_image(image)) if image is not None else {}
    if role is not None:
        found[registers.ROLE] = registers.role_pcr(role)
    if instance is not None:
        found[registers.INSTANCE] = registers.instance_pcr(instance)
    pcrs = {str(number): found[number].hex() for number in sorted(found)}
    if as_json:
        print_json({"tee": "nitro", "measurement": pcrs.get("0"), "pcrs": {**pcrs}})
        return
    for number, value in pcrs.items():
        click.echo(f"{'PCR' + number + ':':<7}{value}")


def _enclave_image(path: Path) -> bytes:
    """All of it; no more than its beginning if that shows that it is none."""
    from adyton.tee.nitro.eif import HEADER_SIZE, MAGIC

    with path.open("rb") as stream:
        head = stream.read(HEADER_SIZE)
        return head + stream.read() if head.startswith(MAGIC) else head


def _sha256(path: Path) -> bytes:
    import hashlib

    if path.is_char_device() and path != Path(os.devnull):
        raise click.UsageError(f"{path} is a device, which may never end")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
