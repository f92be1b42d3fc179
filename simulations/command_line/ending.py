"""How a command ends: with one line for the user, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from split_unlearning.foundations.errors import StateError, UserError

RUN_FAILED, BAD_ARGUMENTS, DOES_NOT_HOLD, INTERRUPTED = 1, 2, 3, 130


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error into one line for the user and the exit code that stands for it."""
    try:
        yield
    except StateError as error:
        end(f"error: {error}", RUN_FAILED)
    except UserError as error:
        end(f"error: {error}", BAD_ARGUMENTS)
    except OSError as error:
        end(f"error: {error}", RUN_FAILED)
    except KeyboardInterrupt:
        end("interrupted; all that was started has ended", INTERRUPTED)


def end(text: str, code: int) -> NoReturn:
    """Say why the command ends, on one line of the error stream, and end it."""
    typer.echo(" ".join(text.split()), err=True)
    raise typer.Exit(code)
