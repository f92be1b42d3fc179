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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Say what has to run in one process, in order; the longest begins first.

    Real Flower and Ray processes, so that no more of them run at a time than there are cores for;
    the tests of one conformance run, which is kept for them; a file's, whose fixtures are.
    """
    for item in items:
        group = item.path.name
        if item.get_closest_marker("flower"):
            group = "flower"
        elif "cell" in getattr(item, "fixturenames", ()):
            group = item.callspec.params["cell"].name
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("flower") is None)
