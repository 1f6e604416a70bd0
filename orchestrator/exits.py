"""How a command ends when something is wrong: one message, and the exit status that scripts rely on."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from orchestrator.errors import Busy, ClusterUnavailable, LeaseLost, UserError, nearest


class Commands(click.Group):
    """The group of commands: turns errors into one message and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; 2 is bad input, 1 is work that failed."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except Busy as error:
            click.echo(f"error: the sweep is being advanced by {error}", err=True)
            ctx.exit(1)
        except (ClusterUnavailable, LeaseLost) as error:
            click.echo(f"error: {error}. Nothing is lost: call it again", err=True)
            ctx.exit(1)
        except BrokenPipeError:
            # The reader of our output (head, less) has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except OSError as error:
            # A full disk, a stale handle, a missing permission: the facts on disk are whole all the same.
            click.echo(f"error: {error}. Nothing is lost: put it right and call it again", err=True)
            ctx.exit(1)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find a command, or name the nearest one."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(f"there is no command '{args[0]}'. {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)
