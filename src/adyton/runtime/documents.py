"""Workload documents on the operator's side: written from an image's configuration, or held against what is asked for.

A plain ``adyton run IMAGE`` writes the document that says exactly what would run; ``--workload`` brings one, and then
everything else that is said must agree with it. The agent checks the same again, inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adyton.errors import DocumentInvalid
from adyton.image.manifest import ImageConfig
from adyton.protocol.workload import Broker, EnvPattern, Mount, Port, Workload, allowed_env, normal_path
from adyton.rats.types import Digest
from adyton.runtime.options import RunOptions


def from_image(
    digest: Digest,
    config: ImageConfig,
    options: RunOptions,
    *,
    broker: Broker | None = None,
    patterns: Mapping[str, str] | None = None,
    ports: Sequence[int] = (),
    logs: bool = True,
) -> Workload:
    """The document for these options, with the image's configuration where they say nothing (podman's rules).

    ``patterns``: variables whose value the operator may choose; ``ports``: allowed beside those in ``options.publish``.
    ``DocumentInvalid`` if neither the image nor the options say what to run.
    """
    allowed = sorted({*ports, *(item.container_port for item in options.publish)})
    declared = {normal_path(path) if path.startswith("/") else path for path in config.run.volumes or {}}
    mounts = {path: Mount(path=path, kind="volume") for path in sorted(declared)}
    mounts |= {path: Mount(path=path, kind="tmpfs") for path in options.tmpfs}
    for volume in options.volumes:
        mounts[volume.path] = Mount(path=volume.path, kind="host" if volume.is_host else "volume", mode=volume.mode)
    env: dict[str, str | EnvPattern] = dict(image_env(config))
    env |= options.env
    env |= {name: EnvPattern(pattern) for name, pattern in (patterns or {}).items()}
    return Workload(
        image=str(digest),
        command=command_line(config, options),
        cwd=options.workdir or config.run.working_dir or "/",
        user=options.user or config.run.user or "0:0",
        env=env,
        mounts=list(mounts.values()),
        ports=[Port(port) for port in allowed],
        network=options.network or ("bridge" if allowed else "none"),
        broker=broker,
        terminal=options.terminal,
        debug=options.debug,
        logs="host" if logs else False,
    )


def command_line(config: ImageConfig, options: RunOptions) -> list[str]:
    """Entry point and command: an entry point of the options drops the image's command, as with podman."""
    if options.entrypoint is not None:
        whole = [*options.entrypoint, *options.command]
    else:
        whole = [*(config.run.entrypoint or ()), *(options.command or config.run.cmd or ())]
    if not whole:
        raise DocumentInvalid(
            "nothing to run: the image has no command",
            code="command_missing",
            field="command",
            hint="name one after the image: adyton run IMAGE COMMAND",
        )
    return whole


def image_env(config: ImageConfig) -> dict[str, str]:
    """The variables of the image's configuration."""
    pairs = (entry.partition("=") for entry in config.run.env or ())
    return {name: value for name, equals, value in pairs if equals and name}


def hold_to(workload: Workload, options: RunOptions) -> None:
    """Refuse options that the document does not allow; ``DocumentInvalid`` names the first."""
    _agree("command", tuple(workload.command), options.command or None)
    if options.entrypoint is not None:
        _agree("command", tuple(workload.command[: len(options.entrypoint)]), options.entrypoint)
    _agree("cwd", workload.cwd, options.workdir)
    _agree("user", workload.user, options.user)
    _agree("network", workload.network, options.network)
    _agree("debug", workload.debug, options.debug or None)
    if options.terminal and not workload.terminal:
        raise _refused("terminal", False, True)
    mounts = {mount.path: mount for mount in workload.mounts}
    for volume in options.volumes:
        mount = mounts.get(volume.path)
        if mount is None or mount.kind == "tmpfs" or (mount.kind == "volume" and volume.is_host):
            raise _refused("mounts", sorted(mounts), volume.path)
        if mount.kind == "host" and not volume.is_host:
            raise _refused("mounts", f"a directory of the host at {mount.path}", volume.source)
        if volume.mode == "ro" and mount.mode == "rw":
            raise _refused("mounts", f"{mount.path} is to be written", f"{volume.path}:ro")
    for path in options.tmpfs:
        if path not in mounts or mounts[path].kind != "tmpfs":
            raise _refused("mounts", sorted(mounts), path)
    ports = sorted(port.container for port in workload.ports)
    for item in options.publish:
        if item.container_port not in ports:
            raise _refused("ports", ports, item.container_port)
    for name, value in options.env.items():
        rule = workload.env.get(name)
        if rule is None:
            raise _refused(f"env.{name}", sorted(workload.env), name)
        if isinstance(rule, str) and rule != value:
            raise _refused(f"env.{name}", "the value in the document", "another")
    allowed_env(workload, options.env)
    for mount in workload.mounts:
        if mount.kind == "host" and mount.path not in {volume.path for volume in options.volumes}:
            raise DocumentInvalid(
                f"the workload document needs a directory of the operator's at {mount.path}",
                code="volume_missing",
                field="mounts",
                expected=mount.path,
                hint=f"-v DIRECTORY:{mount.path}",
            )


def _agree(field: str, documented: object, asked: object) -> None:
    if asked is not None and asked != documented:
        raise _refused(field, documented, asked)


def _refused(field: str, expected: object, got: object) -> DocumentInvalid:
    return DocumentInvalid(
        f"the workload document does not allow this {field.partition('.')[0]}",
        code="not_in_document",
        field=field,
        expected=expected,
        got=got,
        spec="contracts 2",
        hint="what it does not list is refused; leave the option out, or write another: adyton workload new",
    )
