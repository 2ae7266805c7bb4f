"""``adyton completion SHELL``: the script that teaches a shell to complete ``adyton``'s nouns, verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script for SHELL.

    \b
    bash:  adyton completion bash > ~/.local/share/bash-completion/completions/adyton
    zsh:   adyton completion zsh > "${fpath[1]}/_adyton"
    fish:  adyton completion fish > ~/.config/fish/completions/adyton.fish
    """  # noqa: D301 -- \b is click's mark for text that is not re-wrapped
    from adyton.cli import adyton

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 -- the choice above lists click's own
    click.echo(kind(adyton, {}, "adyton", "_ADYTON_COMPLETE").source())
