import pytest

from models.errors import UserError


def pytest_addoption(parser):
    parser.addoption(
        "--plugin",
        metavar="package.module:Class",
        help="run tests/conformance on this strategy or unlearning method, and nothing else",
    )


def pytest_configure(config):
    plugin = config.getoption("--plugin")
    if plugin:
        # Imports PyTorch and Flower: not for a run of a few other tests.
        from tests.conformance.cells import cells_of

        try:
            cells_of(plugin)
        except UserError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_ignore_collect(collection_path, config):
    is_other = collection_path.suffix == ".py" and collection_path.name != "test_conformance.py"
    return True if config.getoption("--plugin") and is_other else None
