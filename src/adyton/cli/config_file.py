"""``--config FILE.toml``: any option of a command may stand in a file; what is on the command line wins.

Keys are the options' own names (``listen``, ``trust-dev-root``), so the file knows every option that the command knows,
and no other. Types are checked before anything else, and an error names the key. Relative paths begin at the file.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

import click

from adyton.cli.sections import Sectioned
from adyton.errors import ConfigError

MAX_SIZE = 1024 * 1024
_CODE = "config_file_invalid"


class Configured(Sectioned):
    """A command that can be asked again later what its options are, the file read anew."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--config"],
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                is_eager=True,
                expose_value=False,
                callback=_take,
                help="TOML file with any of these options; those given here win. Read again on SIGHUP.",
            )
        )

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """As every command's; the arguments are kept."""
        kept = list(args)
        ctx = super().make_context(info_name, args, parent, **extra)
        ctx.meta[f"{__name__}.arguments"] = kept
        return ctx


def again(ctx: click.Context) -> dict[str, Any]:
    """The options as they are now; ``ConfigError`` if the file, or what it names, cannot be used."""
    try:
        fresh = ctx.command.make_context(ctx.info_name, list(ctx.meta[f"{__name__}.arguments"]), parent=ctx.parent)
    except click.ClickException as error:
        raise ConfigError(error.format_message(), code=_CODE) from error
    return dict(fresh.params)


def _take(ctx: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    if value is None:
        return
    options = {_key(one): one for one in ctx.command.params if isinstance(one, click.Option) and one.expose_value}
    found = read(value, options)
    ctx.default_map = {options[key].name or "": one for key, one in found.items()}


def _key(option: click.Option) -> str:
    return next((name[2:] for name in option.opts if name.startswith("--")), option.name or "")


def read(path: Path, options: dict[str, click.Option]) -> dict[str, Any]:
    """The file's values by key, paths made absolute; ``ConfigError`` names the key that is wrong."""
    import msgspec

    try:
        content = path.read_bytes()
        if len(content) > MAX_SIZE:
            raise ValueError("too large")
        document = tomllib.loads(content.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the file of settings cannot be read: {error}", code=_CODE, field=str(path)) from error
    unknown = sorted(document.keys() - options.keys())
    if unknown:
        raise ConfigError(
            f"there is no setting {unknown[0]!r}",
            code="config_key_unknown",
            field=f"{path}: {unknown[0]}",
            expected=sorted(options),
            got=unknown[:10],
        )
    struct = msgspec.defstruct("Settings", [(f"f{n}", _type(options[key])) for n, key in enumerate(document)])
    numbered = {f"f{n}": value for n, value in enumerate(document.values())}
    try:
        msgspec.convert(numbered, struct)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at `$.f")
        number = "".join(character for character in where[:4] if character.isdigit())
        key = list(document)[int(number)] if number else "?"
        raise ConfigError(
            f"a setting has the wrong type: {said}", code=_CODE, field=f"{path}: {key}", got=str(document[key])[:80]
        ) from error
    return {key: _placed(options[key], value, path.parent.absolute()) for key, value in document.items()}


def _type(option: click.Option) -> Any:
    kind: Any = str
    if option.is_flag:
        kind = bool
    elif isinstance(option.type, click.Choice):
        kind = Literal[tuple(str(choice) for choice in option.type.choices)]
    elif isinstance(option.type, click.types.IntParamType):
        kind = int
    elif isinstance(option.type, click.types.FloatParamType):
        kind = float
    return list[kind] if option.multiple else kind


def _placed(option: click.Option, value: Any, base: Path) -> Any:
    if not isinstance(option.type, click.Path):
        return value
    return [str(base / one) for one in value] if option.multiple else str(base / value)
