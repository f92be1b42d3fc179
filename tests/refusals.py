"""How what is kept says no: in one line; and a disk that is full."""

import resource
from contextlib import contextmanager

import pytest

from split_unlearning.foundations.errors import StateError, UserError


def refusal(call, *arguments, error=StateError, **named):
    """Return the one line with which a call is refused."""
    with pytest.raises(error) as refused:
        call(*arguments, **named)
    assert isinstance(refused.value, UserError)
    message = str(refused.value)
    assert message
    assert "\n" not in message
    return message


@contextmanager
def files_no_larger_than(size):
    """Have the system refuse to write further, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
