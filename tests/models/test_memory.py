"""A process that trains keeps the memory of a step for the next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = """
import resource, sys, threading
import torch
from split_unlearning.models.memory import keep_freed_memory
from split_unlearning.models.split import build_segment

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
torch.set_num_threads(1)
segment = build_segment("server", "cnn", (3, 32, 32), 10, seed=0).train()
x, y = torch.rand(64, 8, 16, 16), torch.zeros(64, dtype=torch.int64)

def steps(count):
    for _ in range(count):
        torch.nn.functional.cross_entropy(segment(x.clone().requires_grad_()), y).backward()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def measure():
    steps(5)
    before = faults()
    steps(20)
    print(kept, (faults() - before) // 20)

# The link answers in threads, which glibc gives memory of their own.
thread = threading.Thread(target=measure)
thread.start()
thread.join()
"""


def measured(how, **environment):
    """Whether it was done, and how many pages were new in a step of the server segment."""
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, how],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_hardly_a_page_of_a_step_is_new():
    _, before = measured("no")
    kept, faults = measured("keep")
    assert kept == "True"
    assert faults < before / 5


def test_what_the_user_has_set_stays():
    assert measured("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
