"""The command line: exit status 0 = done, 1 = refused or failed with one sentence on stderr, 2 = wrong usage.

Nothing here imports torch: `saadi jobs` answers in half a second, and work is done by the worker process.
"""

from __future__ import annotations

import sys

import typer

from saadi.cli import evidence, masks, mining, projects, release, upkeep, withdrawals, work
from saadi.errors import SaadiError

app = typer.Typer(name="saadi", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="SAADi Studio: annotated synthetic surgical images. Research use only; not a medical device.")
for part in (projects, work, masks, mining, release, withdrawals, evidence, upkeep):
    part.register(app)


def main() -> None:
    """Run one command and exit."""
    try:
        app(prog_name="saadi")
    except SaadiError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


__all__ = ["app", "main"]
