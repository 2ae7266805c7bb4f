"""``adyton run``: an image in the development TEE, in podman's words."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton.cli import output
from adyton.cli.files import read, read_text
from adyton.cli.instances import connect
from adyton.cli.places import places
from adyton.cli.workload_options import (
    broker_option,
    document_options,
    image_options,
    registry_access,
    run_options,
    say_if_foreign,
)
from adyton.errors import AdytonError, ConfigError

if TYPE_CHECKING:
    from adyton.image.registry_options import RegistryOptions
    from adyton.image.store import Store
    from adyton.protocol.devtee import Run
    from adyton.protocol.workload import WorkloadDocument
    from adyton.runtime.images import Named
    from adyton.runtime.options import RunOptions

FAILED = 125


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
        except (click.ClickException, click.exceptions.Exit, click.Abort, output.Exit, BrokenPipeError):
            raise
        except Exception as error:
            output.print_error(output.defect(error))  # with the status 1 it would be taken for the workload's
            raise output.Exit(FAILED) from error


@click.command(cls=RunCommand, context_settings={"allow_interspersed_args": False})
@click.argument("image", required=False, default="")
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

    IMAGE is a name in a registry, or oci:DIR, oci-archive:FILE, dir:DIR; with --workload it may be left out where this
    machine has a name for the document's image. Exit status: the workload's own; 127 and 126
    when its command is missing or cannot be run; 125 when Adyton could not do it.
    """
    began = time.monotonic()
    from adyton.image.store import Store
    from adyton.runtime.attached import Streams, attached, detached
    from adyton.runtime.progress import Bars, Quiet

    here = places()
    store = Store(here.store)
    if not given["image"]:
        given["image"] = _name(given["document_file"], store)
    options = run_options(given)
    access = registry_access(given)
    document, named = _document(given, options, access, store)
    if not given["quiet"]:
        say_if_foreign(named.config)
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
    # At once: everything is written, and Python's taking itself apart would be a tenth of what the caller waits for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _name(document_file: str | None, store: Store) -> str:
    """The name that this machine knows the document's image by."""
    from adyton.protocol import workload
    from adyton.rats.types import Digest
    from adyton.runtime import images

    if document_file is None:
        raise click.UsageError("Missing argument 'IMAGE' (only with --workload may it be left out).")
    return images.name_of(Digest.parse(workload.parse(read(Path(document_file))).workload.image), store)


def _document(
    given: dict[str, Any], options: RunOptions, access: RegistryOptions, store: Store
) -> tuple[WorkloadDocument, Named]:
    from adyton.protocol import workload
    from adyton.rats.types import Digest
    from adyton.runtime import documents, images

    if given["document_file"] is None:
        named = images.find(options.image, store, access, images.Pull(given["pull"]))
        written = documents.from_image(named.digest, named.config, options, broker=broker_option(given))
        return workload.write(written), named
    document = workload.parse(read(Path(given["document_file"])))
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
    access: RegistryOptions,
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
