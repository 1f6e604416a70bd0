"""`orchestrate completion`: the script that lets a shell complete commands, options, sweeps and columns."""

from __future__ import annotations

import click

PROGRAM, VARIABLE = "orchestrate", "_ORCHESTRATE_COMPLETE"
# What click's scripts lack, by shell. After a part of a key comes the next one, and after `key=` its value:
# bash and zsh would put a space there; and fish would cut off what comes after a comma.
_CHANGES = {
    "bash": (
        "COMPREPLY+=($value)\n",
        "COMPREPLY+=($value)\n            [[ $value == *[=.] ]] && compopt -o nospace\n",
    ),
    "zsh": (
        "compadd -U -V unsorted -a completions\n",
        "local -a unfinished=(${(M)completions:#*[=.]}) finished=(${completions:#*[=.]})\n"
        "        (( $#unfinished )) && compadd -U -V unsorted -S '' -a unfinished\n"
        "        (( $#finished )) && compadd -U -V unsorted -a finished\n",
    ),
    "fish": ('string split "," $completion', 'string split --max 1 "," $completion'),
}


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands, options, sweeps, stages, columns and keys.

    \b
    Examples:
      orchestrate completion bash > ~/.orchestrate.bash; echo '. ~/.orchestrate.bash' >> ~/.bashrc
      orchestrate completion zsh > ~/.orchestrate.zsh; echo '. ~/.orchestrate.zsh' >> ~/.zshrc
      orchestrate completion fish > ~/.config/fish/completions/orchestrate.fish
    """
    from click.shell_completion import get_completion_class

    writer = get_completion_class(shell)
    assert writer is not None, "click knows these shells"
    script = writer(ctx.find_root().command, {}, PROGRAM, VARIABLE).source()
    click.echo(script.replace(*_CHANGES[shell]), nl=False)
