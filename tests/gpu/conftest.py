"""What runs on a real GPU; where there is none, these tests say that they skip."""

import pytest
import torch

from tests.conftest import hide_gpus


@pytest.fixture(scope="module", autouse=True)
def gpu(no_gpus):
    """Show this machine's GPUs; the name of the first."""
    no_gpus.undo()
    try:
        if not torch.cuda.is_available():
            pytest.skip("this machine has no GPU that PyTorch can use")
        yield torch.cuda.get_device_name()
    finally:
        hide_gpus(no_gpus)
