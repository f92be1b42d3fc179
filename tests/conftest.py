import os
import shutil
import tempfile

import pytest
from hypothesis import settings

from split_unlearning.foundations.errors import UserError

# How long an example takes says something about the machine.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Of files with tests that take minutes.
_LONG = ("conformance", "flower", "slow")

# Where data sets are kept for all processes of the tests, those of xdist among them.
_CACHE = "XDG_CACHE_HOME"


@pytest.fixture(scope="session", autouse=True)
def no_gpus():
    """Hide GPUs: what tests compare is computed on CPUs. Those of tests/gpu show them again."""
    with pytest.MonkeyPatch.context() as patch:
        hide_gpus(patch)
        yield patch


def hide_gpus(patch):
    """Hide GPUs, if there are any, from this process and from all that it starts."""
    import torch

    if torch.cuda.is_available():
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        # This process has met them.
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda, "device_count", lambda: 0)


def pytest_addoption(parser):
    parser.addoption(
        "--plugin",
        metavar="package.module:Class",
        help="run tests/conformance on this strategy or unlearning method, and nothing else",
    )


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        os.environ[_CACHE] = tempfile.mkdtemp(prefix="split-unlearning-tests-")
    plugin = config.getoption("--plugin")
    if plugin:
        # Imports PyTorch and Flower: not for a run of a few other tests.
        from tests.conformance.cells import cells_of

        try:
            cells_of(plugin)
        except UserError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(_CACHE), ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Have long files begin first, so that no process is left alone with one of them at the end."""
    long = {item.path for item in items if any(map(item.get_closest_marker, _LONG))}
    items.sort(key=lambda item: item.path not in long)


def pytest_ignore_collect(collection_path, config):
    is_other = collection_path.suffix == ".py" and collection_path.name != "test_conformance.py"
    return True if config.getoption("--plugin") and is_other else None
