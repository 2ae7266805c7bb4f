"""The front door: ``adyton <noun> <verb>``. One thin file per noun; a room is imported only when its noun is used.

Settings (options, environment, files) and the clock are read here and handed down. Errors of the tree become one
message with its hint on standard error and an exit status (``adyton.cli.output.exit_status``); with ``--json`` one
object on standard output.
"""

from __future__ import annotations

import importlib
import io
import os
import sys

import click

from adyton import __version__

# noun -> (module, attribute, one line of help). The help stands here so that `--help` imports no noun.
NOUNS: dict[str, tuple[str, str, str]] = {
    "apply": ("adyton.cli.apply", "apply", "Bring tenants into the state that a document declares."),
    "diff": ("adyton.cli.apply", "diff", "Print how tenants differ from a document."),
    "export": ("adyton.cli.apply", "export", "Print a tenant as a document."),
    "approval": ("adyton.cli.approval", "approval", "See and decide what waits for several people."),
    "attestation-service": (
        "adyton.cli.attestation_service",
        "attestation_service",
        "Run the attestation service alone, as CoCo's clients know it.",
    ),
    "audit": ("adyton.cli.audit", "audit", "Read the broker's record of decisions."),
    "broker": ("adyton.cli.broker", "broker", "Run the key broker."),
    "ca": ("adyton.cli.ca", "ca", "The tenant's certification authority: show, rotate, revoke, its list of revoked."),
    "collateral": ("adyton.cli.collateral", "collateral", "Fetch, keep, bundle and serve endorsements."),
    "completion": ("adyton.cli.completion", "completion", "Print a shell's completion script."),
    "configuration": ("adyton.cli.configuration", "configuration", "Set and show settings that workloads read."),
    "demo": ("adyton.cli.demo", "demo", "Play the whole story on real parts, refusals included."),
    "devtee": ("adyton.cli.devtee", "devtee", "The development TEE: genuine formats, no hardware protection."),
    "evidence": ("adyton.cli.evidence", "evidence", "Verify, show and test evidence."),
    "identity": ("adyton.cli.person", "identity", "Identity providers that know people (OpenID)."),
    "image": ("adyton.cli.image", "image", "Encrypt, decrypt and inspect images."),
    "key": ("adyton.cli.key", "key", "Make, use, rotate and destroy keys inside the broker."),
    "logs": ("adyton.cli.instances", "logs", "Print what a workload wrote, if its document allows it."),
    "measure": ("adyton.cli.measure", "measure", "Compute the measurements that evidence must show."),
    "organisation": ("adyton.cli.tenant", "organisation", "Organisations, which own tenants."),
    "person": ("adyton.cli.person", "person", "People, their roles, keys and tokens."),
    "policy": ("adyton.cli.policy", "policy", "Set, list, show and delete policies."),
    "ps": ("adyton.cli.instances", "ps", "List workloads."),
    "reference": ("adyton.cli.reference", "reference", "Publish, list, show and delete reference values."),
    "resource": ("adyton.cli.resource", "resource", "Register, bind, list, show and delete secrets."),
    "rm": ("adyton.cli.instances", "rm", "Forget ended workloads."),
    "run": ("adyton.cli.run", "run", "Run an image in the development TEE."),
    "stop": ("adyton.cli.instances", "stop", "Stop workloads."),
    "tenant": ("adyton.cli.tenant", "tenant", "Tenants: environments, quotas, approvals, promotion."),
    "token": ("adyton.cli.token", "token", "Verify attestation results."),
    "workload": ("adyton.cli.workload", "workload", "Write and read workload documents."),
}


class _Nouns(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NOUNS:
            return None
        module, attribute, _ = NOUNS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 -- our own table
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from adyton.cli.administering import tell

            tell(error, wanted="--json" in args)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(noun, NOUNS[noun][2]) for noun in sorted(NOUNS)])


@click.command(cls=_Nouns, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(
    __version__, prog_name="adyton", message="%(prog)s %(version)s"
)  # no package metadata in a checkout
def adyton() -> None:
    """Containers, functions and jobs in trusted execution environments, given their keys only after proof."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit. Nothing but an exit status and its message leaves here."""
    try:
        from adyton.cli.output import run

        _keep_standard_streams()
        status = run(adyton, arguments)
    except KeyboardInterrupt:  # before anything had begun
        status = 130
    sys.exit(status)


def _keep_standard_streams() -> None:
    """Put ``/dev/null`` where a stream was closed: else the next socket would become it, and a workload's output go there."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 -- for as long as the process lives
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 -- for as long as the process lives
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 -- for as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):  # a character that a terminal lacks is escaped, and ends no command
        sys.stdout.reconfigure(errors="backslashreplace")
