"""``adyton run``, ``ps``, ``logs``, ``stop``, ``rm``: podman's words for containers, in the development TEE."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton.cli import output
from adyton.cli.places import places
from adyton.cli.registry_access import credentials_file, read_text, registry_options
from adyton.errors import AdytonError, ConfigError

if TYPE_CHECKING:
    from adyton.image.store import Store
    from adyton.protocol.devtee import Publish, Run
    from adyton.protocol.workload import Broker, WorkloadDocument
    from adyton.runtime.control import Control
    from adyton.runtime.images import Access, Named
    from adyton.runtime.options import RunOptions

FAILED = 125
IDLE_EXIT = 600


class RunCommand(click.Command):
    """A command whose every failure of Adyton's own is exit status 125, wrong usage included, as ``podman run``'s."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """As the base; wrong usage leaves with 125."""
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            error.show()
            raise output.Exit(FAILED) from error

    def invoke(self, ctx: click.Context) -> Any:
        """As the base; an error of the tree is said, and leaves with 125, 126 or 127."""
        try:
            return super().invoke(ctx)
        except AdytonError as error:
            from adyton.runtime.attached import exit_status

            output.print_error(error)
            raise output.Exit(exit_status(error)) from error
        except click.UsageError as error:
            error.show()
            raise output.Exit(FAILED) from error


def image_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where images come from: the options that ``run`` and ``workload new`` share."""
    choice = click.Choice(["missing", "always", "never"])
    pull = click.option("--pull", type=choice, default="missing", show_default=True, help="When to ask the registry.")
    return registry_options(pull(command))


def document_options(command: Callable[..., None]) -> Callable[..., None]:
    """What a workload document says: the options that ``run`` and ``workload new`` share."""
    for option in reversed(
        (
            click.option(
                "-v", "--volume", "volumes", multiple=True, metavar="SRC:DST[:ro]", help="A directory or volume."
            ),
            click.option("--tmpfs", multiple=True, metavar="DST", help="Private memory at DST."),
            click.option("-w", "--workdir", help="Working directory."),
            click.option("-u", "--user", metavar="USER[:GROUP]", help="Names are the image's."),
            click.option("--entrypoint", metavar="WORD|JSON", help="Instead of the image's."),
            click.option(
                "--network",
                type=click.Choice(["none", "bridge", "host"]),
                help="none and bridge: loopback only, bridge with -p; host: the host's. Default: none, bridge with -p.",
            ),
            click.option("--broker", metavar="URL", help="Who has the image's key."),
            click.option("--broker-pin", metavar="sha256:HEX", help="SPKI digest of the broker's certificate."),
            click.option(
                "--broker-cert", type=click.Path(exists=True, dir_okay=False), help="Or the certificate, PEM."
            ),
            click.option("--debug", is_flag=True, help="Set the debug bit of the guest's policy."),
        )
    ):
        command = option(command)
    return command


@click.command(cls=RunCommand, context_settings={"allow_interspersed_args": False})
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@document_options
@click.option("-e", "--env", "env", multiple=True, metavar="K[=V]", help="Set a variable, or pass the caller's on.")
@click.option("--env-file", multiple=True, type=click.Path(exists=True, dir_okay=False), help="Variables, one a line.")
@click.option(
    "-p", "--publish", "publish", multiple=True, metavar="[[IP:]HOST:]PORT", help="On 127.0.0.1 unless IP says."
)
@click.option("-i", "--interactive", is_flag=True, help="Connect standard input.")
@click.option("-t", "--tty", "terminal", is_flag=True, help="Give it a terminal.")
@click.option("--rm", "remove", is_flag=True, help="Forget the instance when it ends.")
@click.option("-d", "--detach", is_flag=True, help="Print the instance's id and leave it running.")
@click.option("--name", default="", help="A name for ps, logs, stop and rm.")
@click.option("--workload", "document_file", type=click.Path(exists=True, dir_okay=False), help="A document to run by.")
@click.option(
    "--decryption-key",
    "keys",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="PEM private key of a JWE recipient.",
)
@image_options
@click.option("-q", "--quiet", is_flag=True, help="Do not print the document's digest.")
@click.option("--verbose", is_flag=True, help="Say where the time went, and what was cut.")
def run(**given: Any) -> None:
    """Run IMAGE in the development TEE, as `podman run` would run it.

    IMAGE is a name in a registry, or oci:DIR, oci-archive:FILE, dir:DIR. Exit status: the workload's own; 127 and 126
    when its command is missing or cannot be run; 125 when Adyton could not do it.
    """
    began = time.monotonic()
    from adyton.image.store import Store
    from adyton.runtime.attached import Streams, attached, detached
    from adyton.runtime.progress import Bars, Quiet

    options = run_options(given)
    access = registry_access(given)
    here = places()
    store = Store(here.store)
    document, named = _document(given, options, access, store)
    if not given["quiet"]:
        output.say(f"adyton: workload document {document.digest}")
    status = 0
    request = _request(given, options, access, document, named)
    prepared = time.monotonic() - began
    with connect() as control:
        watcher = Bars() if sys.stderr.isatty() and not given["quiet"] else Quiet()
        if options.detach:
            click.echo(detached(control, request, watcher))
        else:
            status = attached(control, request, Streams(0, 1, 2), watcher)
    if given["verbose"]:
        for notice in watcher.notices:
            output.say(f"adyton: {notice}")
        for name, seconds in [("prepare", prepared), *watcher.stages()]:
            output.say(f"adyton: {1000 * seconds:8.1f} ms {name}")
    raise output.Exit(status)


def run_options(given: dict[str, Any]) -> RunOptions:
    """The strings that click gives as checked options."""
    from adyton.runtime import options

    env: dict[str, str] = {}
    for file in given.get("env_file", ()):
        env |= options.env_file(read_text(Path(file)), os.environ)
    env |= options.env(given["env"], os.environ)
    return options.RunOptions(
        image=given["image"],
        command=given["command"],
        entrypoint=None if given["entrypoint"] is None else options.entrypoint(given["entrypoint"]),
        env=env,
        workdir=given["workdir"],
        user=given["user"],
        volumes=tuple(options.volume(text) for text in given["volumes"]),
        tmpfs=tuple(options.tmpfs(text) for text in given["tmpfs"]),
        publish=tuple(options.publish(text) for text in given["publish"]),
        network=given["network"],
        interactive=given.get("interactive", False),
        terminal=given.get("terminal", False),
        remove=given.get("remove", False),
        detach=given.get("detach", False),
        name=options.name(given["name"]) if given.get("name") else "",
        debug=given["debug"],
    )


def registry_access(given: dict[str, Any]) -> Access:
    """Where the image's registry's credentials and certificates are; nothing for an image on disk."""
    from adyton.image.reference import ImageReference
    from adyton.runtime.images import Access

    reference = ImageReference.parse(given["image"])
    if not reference.registry:
        return Access()
    credentials = given["authfile"] or credentials_file()
    host = frozenset({reference.host})
    return Access(
        auth_json=read_text(credentials) if credentials is not None else "",
        plain_http=host if given["plain_http"] else frozenset(),
        ca_pem=read_text(given["registry_ca"]) if given["registry_ca"] else "",
        unverified_tls=frozenset() if given["tls_verify"] else host,
    )


def broker_option(given: dict[str, Any]) -> Broker | None:
    """``--broker`` with its pin."""
    from adyton.protocol.workload import Broker

    if given["broker"] is None:
        if given["broker_pin"] or given["broker_cert"]:
            raise ConfigError("a pin needs the broker it belongs to", code="option_invalid", hint="--broker URL")
        return None
    pin = given["broker_pin"]
    if given["broker_cert"]:
        from cryptography.hazmat.primitives.hashes import SHA256, Hash
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
        from cryptography.x509 import load_pem_x509_certificate

        try:
            key = load_pem_x509_certificate(Path(given["broker_cert"]).read_bytes()).public_key()
        except ValueError as error:
            raise ConfigError(
                "not a PEM certificate", code="certificate_malformed", field="--broker-cert", got=given["broker_cert"]
            ) from error
        digest = Hash(SHA256())
        digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        computed = f"sha256:{digest.finalize().hex()}"
        if pin is not None and pin != computed:
            raise ConfigError(
                "--broker-pin is not the pin of --broker-cert", code="option_invalid", expected=computed, got=pin
            )
        pin = computed
    return Broker(url=given["broker"], pin=pin)


def _document(
    given: dict[str, Any], options: RunOptions, access: Access, store: Store
) -> tuple[WorkloadDocument, Named]:
    from adyton.protocol import workload
    from adyton.rats.types import Digest
    from adyton.runtime import documents, images

    if given["document_file"] is None:
        named = images.find(options.image, store, access, images.Pull(given["pull"]))
        written = documents.from_image(named.digest, named.config, options, broker=broker_option(given))
        return workload.write(written), named
    document = workload.parse(Path(given["document_file"]).read_bytes())
    if (broker := broker_option(given)) is not None and broker != document.workload.broker:
        raise ConfigError(
            "the workload document names another broker, and it alone decides",
            code="not_in_document",
            field="broker",
            got=broker.url,
        )
    documents.hold_to(document.workload, options)
    named = images.find(options.image, store, access, images.Pull(given["pull"]), Digest.parse(document.workload.image))
    return document, named


def _request(
    given: dict[str, Any],
    options: RunOptions,
    access: Access,
    document: WorkloadDocument,
    named: Named,
) -> Run:
    from adyton.protocol.devtee import Run
    from adyton.runtime import terminal

    for volume in options.volumes:
        if volume.is_host and not Path(volume.source).exists():
            raise ConfigError(
                "there is no such file or directory to mount", code="volume_missing", field="-v", got=volume.source
            )
    rows, columns = terminal.size(sys.stdout.fileno()) if options.terminal else (0, 0)
    return Run(
        document=document.raw.decode(),
        name=options.name,
        source=named.source,
        detach=options.detach,
        interactive=options.interactive,
        terminal=options.terminal,
        remove=options.remove,
        volumes={volume.path: volume.source for volume in options.volumes if volume.source},
        publish=list(options.publish),
        env=dict(options.env),
        decryption_keys=[read_text(Path(path)) for path in given["keys"]],
        registry_auth=access.auth_json,
        registry_plain_http=sorted(access.plain_http),
        registry_ca=access.ca_pem,
        registry_unverified_tls=sorted(access.unverified_tls),
        rows=rows,
        columns=columns,
    )


def connect() -> Control:
    """A connection to the platform service, which is started if it is not there."""
    from adyton.runtime.service import Service
    from adyton.runtime.service import connect as connect_service

    here = places()
    command = ["-m", "adyton", "devtee", "serve", "--idle-exit", str(IDLE_EXIT)]
    return connect_service(Service(here.devtee_socket, command, here.devtee / "service.log"), output.say)


def reach() -> Control:
    """A connection to the platform service if it runs: where it does not, nothing runs that could be stopped."""
    from adyton.runtime.control import Control

    return Control.connect(places().devtee_socket)


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that have ended.")
@output.json_option
def ps(everything: bool, as_json: bool) -> None:
    """List workloads."""
    from adyton.runtime import instances

    if everything or places().devtee_socket.exists():
        with connect() as control:
            rows = instances.listed(control, everything=everything)
    else:
        rows = []
    if as_json:
        import msgspec

        output.print_json(msgspec.to_builtins(rows))
        return
    output.print_table(
        ("id", "name", "image", "command", "created", "state", "ports"),
        [
            (
                row.id[:12],
                row.name,
                row.image[:19],
                " ".join(row.command)[:30],
                row.created,
                row.state if row.status is None else f"{row.state} ({row.status})",
                ports(row.published),
            )
            for row in rows
        ],
    )


def ports(published: Iterable[Publish]) -> str:
    """Published ports as podman writes them."""
    return ", ".join(f"{item.host_address}:{item.host_port}->{item.container_port}/tcp" for item in published)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@click.argument("name")
def logs(follow: bool, name: str) -> None:
    """Print what a workload wrote, if its document allows it."""
    from adyton.runtime import instances

    with connect() as control:
        for piece in instances.logs(control, name, follow=follow):
            stream = sys.stderr.buffer if piece.stream == "stderr" else sys.stdout.buffer
            stream.write(piece.data)
            stream.flush()


@click.command()
@click.option("-t", "--time", "timeout", type=click.FloatRange(min=0), default=10.0, show_default=True, help="Seconds.")
@click.argument("names", nargs=-1, required=True)
def stop(timeout: float, names: tuple[str, ...]) -> None:
    """Ask workloads to end (TERM), and after a time end them (KILL)."""
    from adyton.runtime import instances

    _each(names, reach, lambda control, name: instances.stop(control, name, timeout))


@click.command()
@click.option("-f", "--force", is_flag=True, help="Kill it first if it runs.")
@click.argument("names", nargs=-1, required=True)
def rm(force: bool, names: tuple[str, ...]) -> None:
    """Forget workloads that have ended, and what they wrote."""
    from adyton.runtime import instances

    _each(names, connect, lambda control, name: instances.remove(control, name, force=force))


def _each(names: Iterable[str], to: Callable[[], Control], action: Callable[[Control, str], None]) -> None:
    """Do it for every name, say which were done, and fail if one was not."""
    failed = False
    for name in names:
        try:
            with to() as control:
                action(control, name)
        except AdytonError as error:
            output.print_error(error)
            failed = True
        else:
            click.echo(name)
    if failed:
        raise output.Exit(1)
