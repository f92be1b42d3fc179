"""No test of the link leaves a thread behind."""

import threading
import time

import pytest


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = set(threading.enumerate())
    yield
    patience = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < patience:
        time.sleep(0.01)
    assert not left
