"""How a command ends when something is wrong: one message, and the exit status that scripts rely on."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import click

from orchestrator.errors import Busy, ClusterUnavailable, LeaseLost, UserError, nearest

STDOUT, STDERR = 1, 2
FAILED, BAD_INPUT = 1, 2
# What a shell gives for a program that SIGPIPE has ended, as it ends ls and git.
CUT_SHORT = 128 + 13
# Of these the output is all that they are called for: whoever has seen enough of it has got what he wanted.
ANSWERS = ("completion", "plan", "results", "status")


class Commands(click.Group):
    """The group of commands: turns errors into one message and an exit status."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; 2 is bad input, 1 is work that failed."""
        try:
            # What click prints out here is that the command line is wrong.
            with _silent_when_unread(lambda: BAD_INPUT):
                return super().main(*args, **kwargs)
        except UserError as error:
            _end(f"{error}", BAD_INPUT)
        except Busy as error:
            _end(f"the sweep is being advanced by {error}", FAILED)
        except (ClusterUnavailable, LeaseLost) as error:
            _end(f"{error}. Nothing is lost: call it again", FAILED)
        except OSError as error:
            # A full disk, a stale handle, a missing permission: the facts on disk are whole all the same.
            _end(f"{error}. Nothing is lost: put it right and call it again", FAILED)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the command line, and print the help where that is asked for."""
        with _silent_when_unread(lambda: 0):
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _silent_when_unread(lambda: 0 if ctx.invoked_subcommand in ANSWERS else CUT_SHORT):
            return super().invoke(ctx)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find a command, or name the nearest one."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(f"there is no command '{args[0]}'. {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


def _end(problem: str, status: int) -> NoReturn:
    try:
        click.echo(f"error: {problem}", err=True)
    except BrokenPipeError:
        _send_nowhere(STDERR)  # the status still tells it
    sys.exit(status)


@contextlib.contextmanager
def _silent_when_unread(status: Callable[[], int]) -> Iterator[None]:
    """End the process without a word where the reader of its output (head, less) has gone away.

    Args:
        status: gives what it ends with.
    """
    try:
        yield
    except BrokenPipeError:
        gone = [stream for stream in (STDOUT, STDERR) if _is_unread(stream)]
        if not gone:
            # Another pipe broke, a server's or that of a program that we called; click takes it for ours.
            raise ConnectionError("the connection to another program broke") from None
        for stream in gone:
            _send_nowhere(stream)
        sys.exit(status())


def _is_unread(stream: int) -> bool:
    asked = select.poll()
    asked.register(stream, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0))


def _send_nowhere(stream: int) -> None:
    """Let what is still buffered go nowhere: Python would complain of it at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)
