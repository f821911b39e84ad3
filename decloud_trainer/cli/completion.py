"""``completion``: the script that teaches a shell this program's words."""

from __future__ import annotations

import click

EPILOG = """\b
Examples (bash, zsh, fish):
  decloud-trainer completion bash >> ~/.bashrc
  decloud-trainer completion zsh >> ~/.zshrc
  decloud-trainer completion fish > ~/.config/fish/conf.d/decloud-trainer.fish

Start a new shell afterwards. It then completes commands, options, presets, datasets, settings
and the ids of rounds that the journal knows; nothing is asked of the network.
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, shell
    program = "decloud-trainer"
    root = ctx.find_root().command
    made = kind(root, {}, program, "_DECLOUD_TRAINER_COMPLETE")
    # `source` would also start bash to warn of versions before 4.4.
    click.echo(made.source_template % made.source_vars())
