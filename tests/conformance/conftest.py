import gc
import tempfile
from pathlib import Path

import pytest

from tests.conformance.cells import CellRun, cells_of, selection, write_files


def pytest_generate_tests(metafunc):
    if "cell" in metafunc.fixturenames:
        wanted = getattr(metafunc.function, "wanted", lambda cell: True)
        plugin = metafunc.config.getoption("--plugin")
        cells = cells_of(plugin)
        # Of a stranger's class every cell is run.
        quick = cells if plugin else selection(cells)
        metafunc.parametrize(
            "cell",
            [
                pytest.param(cell, id=cell.name, marks=[] if cell in quick else pytest.mark.slow)
                for cell in cells
                if wanted(cell)
            ],
        )


def pytest_collection_modifyitems(items):
    """Have all tests of a cell follow each other, so that one run at a time is kept."""
    places = [
        place for place, item in enumerate(items) if "cell" in getattr(item, "fixturenames", ())
    ]
    ordered = sorted((items[place] for place in places), key=lambda item: item.callspec.id)
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


@pytest.fixture(scope="session")
def folder():
    """Where the files are that the runs read; a short path, for the tables that name it."""
    with tempfile.TemporaryDirectory(prefix="cells-") as path:
        write_files(Path(path))
        # What was imported is no garbage; to look it over takes a tenth of the time.
        gc.freeze()
        yield Path(path)


@pytest.fixture(scope="session")
def latest():
    """What the latest cell came to, by its name: its run, or what it raised."""
    return {}


@pytest.fixture
def run(cell, latest, folder):
    if cell.name not in latest:
        latest.clear()
        try:
            latest[cell.name] = CellRun(cell, folder)
        except Exception as error:  # noqa: BLE001 - told by every test that looks at the run
            latest[cell.name] = error
    if isinstance(latest[cell.name], Exception):
        raise latest[cell.name]
    return latest[cell.name]
