"""``adyton workload``: write and read workload documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adyton.cli import files, output
from adyton.cli.administering import Noun
from adyton.cli.places import places
from adyton.cli.workload_options import (
    broker_option,
    document_options,
    image_options,
    registry_access,
    run_options,
    say_if_foreign,
)
from adyton.errors import ConfigError

if TYPE_CHECKING:
    from adyton.protocol.workload import WorkloadDocument


@click.group(cls=Noun)
def workload() -> None:
    """Write and read workload documents: what is to run, exactly."""


class _New(click.Command):
    """Takes ``IMAGE [CMD…] -o FILE`` as well: options may follow IMAGE, and ``-o FILE`` the command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As the base, with this command's options put first; ``--`` ends them."""
        valued = {
            name: not parameter.is_flag
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            for name in parameter.opts
        }
        front: list[str] = []
        rest = list(args)
        image: list[str] = []
        while rest and rest[0] != "--":
            name = rest[0].partition("=")[0] if rest[0].startswith("--") else rest[0][:2]
            if rest[0].startswith("-") and rest[0] != "-" and (not image or name in valued):
                whole = rest[0] != name or not valued.get(name, False)  # its value is in the word, or it has none
                front += rest[: 1 if whole else 2]
                rest = rest[1 if whole else 2 :]
            elif image:
                break
            else:
                image = [rest.pop(0)]
        else:
            rest = rest[1:]
        given = any(word in {"-o", "--output"} or word.startswith(("-o", "--output=")) for word in front)
        if len(rest) > 2 and rest[-2] in {"-o", "--output"} and not given:
            front += rest[-2:]
            rest = rest[:-2]
        return super().parse_args(ctx, [*front, "--", *image, *rest] if image or rest else front)


@workload.command(cls=_New, context_settings={"allow_interspersed_args": False})
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("-o", "--output", "file", default="-", help="Where to write it; - is standard output.")
@document_options
@click.option(
    "-e", "--env", "env", multiple=True, metavar="K=V|K~REGEX", help="A value, or what the operator may choose."
)
@click.option("-p", "--port", "ports", multiple=True, type=click.IntRange(1, 65535), help="May be published.")
@click.option("--terminal", is_flag=True, help="Allow a terminal (run -t).")
@click.option(
    "--logs",
    type=click.Choice(["host"]),
    help="host: what it writes may leave the instance. Without this it does not.",
)
@image_options
def new(**given: Any) -> None:
    """Write the document for IMAGE.

    The first word after IMAGE that is no option of these begins the command; ``-o FILE`` may also end it. What the document
    does not list is refused at run time.
    """
    from adyton.image.store import Store
    from adyton.protocol.workload import write
    from adyton.runtime import documents, images

    patterns = {}
    exact = []
    for item in given["env"]:
        name, tilde, pattern = item.partition("~")
        if tilde and "=" not in name:
            patterns[name] = pattern
        elif "=" in item:
            exact.append(item)
        else:
            raise ConfigError(
                "a document holds values, not this shell's",
                code="option_invalid",
                field="-e",
                expected="K=V or K~REGEX",
                got=item,
            )
    options = run_options({**given, "env": exact, "publish": ()})
    named = images.find(options.image, Store(places().store), registry_access(given), images.Pull(given["pull"]))
    say_if_foreign(named.config)
    document = write(
        documents.from_image(
            named.digest,
            named.config,
            options,
            broker=broker_option(given),
            patterns=patterns,
            ports=given["ports"],
            logs=given["logs"] == "host",
        )
    )
    _put(document, given["file"])
    output.say(f"{document.digest}  {given['file']}")


def _put(document: WorkloadDocument, file: str) -> None:
    if file == "-":
        click.echo(document.raw.decode(), nl=False)
        return
    files.write(Path(file), document.raw)


@workload.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--key",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The signer's private key: PEM, mode 0600; Ed25519, EC P-256 or RSA.",
)
@click.option(
    "--passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The private key's own passphrase, in a 0600 file.",
)
@click.option("-o", "--output", "to", help="Where to write it; - is standard output. [default: FILE itself]")
@output.json_option
def sign(file: str, key: Path, passphrase_file: Path | None, to: str | None, as_json: bool) -> None:
    """Add a signature to FILE: over the whole document, beside those that it carries.

    A resource that is bound to the signer (--signer) is then released to this workload, and to whatever else that key
    signs. The digest, HOST_DATA, is another one afterwards.
    """
    from adyton.cli.signers import signing_key
    from adyton.crypto import detached
    from adyton.protocol import workload_signers
    from adyton.protocol.workload import parse

    if as_json and to == "-":
        raise click.UsageError("--json and -o -: both write to standard output")
    private = signing_key(key, passphrase_file)
    document = workload_signers.sign(parse(files.read(Path(file))), private)
    _put(document, to if to is not None else file)
    signer = detached.fingerprint(private.public_key())
    if as_json:
        signers = workload_signers.signers("sha256", document.data)
        output.print_json({"host_data": str(document.digest), "signer": signer, "signers": signers})
        return
    output.say(f"{document.digest}  {to or file}, signed by {signer}")


@workload.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@output.json_option
def show(file: str, as_json: bool) -> None:
    """Check a document and print what it says and its digest, HOST_DATA."""
    import msgspec

    from adyton.protocol import workload_signers
    from adyton.protocol.workload import parse, to_toml

    document = parse(files.read(Path(file)))
    signers = workload_signers.signers("sha256", document.data)
    if as_json:
        content = msgspec.to_builtins(document.workload)
        also = sorted(document.data)
        output.print_json({
            "host_data": str(document.digest), "workload": content, "also": also, "signers": signers
        })  # fmt: skip
        return
    click.echo(f"# HOST_DATA {document.digest}")
    for signer in signers:
        click.echo(f"# signed by {signer}")
    click.echo(to_toml(document.workload), nl=False)
