"""The command ``decloud-trainer``: finds a command, runs it, turns failures into exit codes."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from decloud_trainer import __version__
from decloud_trainer.cli.output import allow_any_text, folded
from decloud_trainer.errors import DecloudError, SettingsError
from decloud_trainer.masking import masked

# name -> (module of cli/, short help). A module is imported when its command is used, so that
# `--help` and `--version` stay instant.
COMMANDS = {
    "setup": ("setup", "Answer a few questions; everything is then ready for start."),
    "start": ("start", "Run the daemon: find, join, train, submit, claim."),
    "config": ("config", "Show and change settings."),
    "list": ("listing", "List the rounds on the network."),
    "explain": ("listing", "Say why a round would be taken or not."),
    "join": ("rounds", "Join one round by hand."),
    "train": ("rounds", "Train and submit one joined round by hand."),
    "claim": ("rounds", "Claim the reward of one completed round by hand."),
    "status": ("status", "Show the daemon, or where a round stands."),
    "pause": ("steering", "Take no new rounds for a while."),
    "resume": ("steering", "Take new rounds again."),
    "finish": ("steering", "End the daemon once its rounds are over."),
    "stop": ("steering", "End the daemon now."),
    "metrics": ("metrics", "Show the running daemon's figures, for Prometheus and Grafana."),
    "notify": ("notify", "Send a test message the way alarms go."),
    "earnings": ("earnings", "Show every lamport in and out."),
    "wallet": ("wallet", "Show, make, import, export the wallet; its balance."),
    "completion": ("completion", "Print the completion script for a shell."),
    "localnet": ("localnet", "Run a complete local DECLOUD network on this machine."),
    "doctor": ("doctor", "Check everything; say how to fix what is wrong."),
    "service": ("service", "Run the daemon in the background, also after a restart."),
    "datasets": ("datasets", "Show, fetch and check datasets."),
    "device": ("device", "Show what training would use, and how fast it is."),
    "runs": ("runs", "Show and compare the training runs of this machine."),
    "replay": ("replay", "Train again from a run's record, and compare."),
    "store": ("store", "Look at chains of versions of training states."),
    "pricer": ("pricer", "Train a network on simulated options, and price with it."),
    "bench": ("bench", "Measure training beside a plain loop."),
    "version": ("version", "Show versions of this program and its parts."),
    "demo": ("demo", "Watch a whole round earn its reward on a local network."),
}

EXIT_CODES = """\b
Exit codes:
  0    done
  1    it failed for an expected reason, which is said
  2    wrong usage or configuration
  3    unexpected failure (a defect of this program)
  4    corrupted data found
  130  interrupted
"""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        loaded = importlib.import_module(f"decloud_trainer.cli.{module}")
        command = getattr(loaded, "list_rounds" if cmd_name == "list" else cmd_name)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click's, but from the table: no command is imported for it."""
        commands = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.option("--keypair", type=click.Path(), help="Keypair file to use instead of the settings'.")
@click.option(
    "--passphrase-fd",
    type=click.IntRange(0, 1 << 20),
    metavar="N",
    help="Read the wallet's passphrase from this file descriptor; 0: standard input.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log more, and show where an error came from.")
@click.option("--no-color", is_flag=True, help="No colours, as with NO_COLOR in the environment.")
@click.version_option(__version__, prog_name="decloud-trainer")
@click.pass_context
def cli(
    ctx: click.Context,
    keypair: str | None,
    passphrase_fd: int | None,
    verbose: bool,
    no_color: bool,
) -> None:
    """Earn rewards on the DECLOUD network by training models on this machine.

    \b
    Example, with a complete network on this machine and no real money:
      decloud-trainer demo
    """
    ctx.obj = {"keypair": keypair, "verbose": verbose}
    if no_color:
        ctx.color = False  # which commands' contexts inherit; see `output.shows_colors`
    if passphrase_fd is not None:
        # The number is no secret; whoever needs the passphrase reads it there, once.
        os.environ["DECLOUD_WALLET_PASSPHRASE_FD"] = str(passphrase_fd)
    _take_over_settings()


def _take_over_settings() -> None:
    """Put the configuration of an earlier trainer kit into our terms, once, and say how."""
    from decloud_trainer import config

    try:
        taken = config.take_over()
    except DecloudError:
        return  # a file that can't be used is what the command itself will speak of
    if taken is None:
        return
    click.echo("note: the configuration of an earlier trainer kit was taken over:", err=True)
    for note in taken.notes:
        click.echo(folded("  - ", note), err=True)
    click.echo(folded("  ", f"the file as it was: {taken.backup}"), err=True)


def _show(error: click.ClickException) -> None:
    """As click shows it, but a word in the wrong place may be a key: that is never repeated."""
    text = error.format_message()
    if masked(text) == text:
        error.show()
    else:
        click.UsageError(masked(text), ctx=getattr(error, "ctx", None)).show()


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line; its exit code."""
    allow_any_text()
    verbose = any(word in ("-v", "--verbose") for word in (args or sys.argv[1:]))
    try:
        outcome = cli.main(args=args, prog_name="decloud-trainer", standalone_mode=False)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except SystemExit as leaving:
        if not leaving.code:
            raise  # completion's end
        # click's, when the reader of our output has gone, as in `decloud-trainer list | head`.
        return 0
    except DecloudError as error:
        if verbose:
            traceback.print_exc()
        wrong_word = isinstance(error, SettingsError)
        click.echo(f"error: {masked(error.message) if wrong_word else error.message}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort of the whole program
        from decloud_trainer.cli.crash import tell_crash

        return tell_crash(error, args or sys.argv[1:], COMMANDS, verbose=verbose)
    return outcome if isinstance(outcome, int) else 0
