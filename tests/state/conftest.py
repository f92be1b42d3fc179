import pytest

from tests.state.bench import SLICED, few_digits


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The name of a data set of a few digits."""
    return few_digits(tmp_path_factory.mktemp("digits") / "digits.npz")


@pytest.fixture(scope="session")
def sliced(digits):
    """Settings of a short run with slices on both sides."""
    return {**SLICED, "dataset": digits}
