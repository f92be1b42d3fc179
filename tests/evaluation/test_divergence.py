"""The Jensen-Shannon divergence of outputs: what it has to be, and whom it compares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import jensenshannon

from split_unlearning.evaluation.divergence import jensen_shannon, mean_divergence
from split_unlearning.evaluation.outputs import Outputs

VALUES = st.floats(0, 1, width=32).filter(lambda value: value == 0 or value > 1e-6)


@st.composite
def tables(draw, how_many):
    """Some tables of one shape, whose rows are distributions but for rounding."""
    rows, labels = draw(st.integers(1, 6)), draw(st.integers(2, 5))
    found = []
    for _ in range(how_many):
        table = draw(arrays.arrays(np.float32, (rows, labels), elements=VALUES))
        table[table.sum(axis=1) == 0, 0] = 1
        found.append((table / table.sum(axis=1, keepdims=True)).astype(np.float32))
    return found


@given(tables(2))
def test_what_a_divergence_is(drawn):
    one, other = drawn
    found = jensen_shannon(one, other)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found, jensen_shannon(other, one), atol=1e-12)
    np.testing.assert_array_equal(jensen_shannon(one, one), 0)
    # scipy's is the square root of it.
    expected = np.nan_to_num(jensenshannon(one.astype(float), other.astype(float), axis=1, base=2))
    np.testing.assert_allclose(found, expected**2, atol=1e-7)


@given(tables(3))
def test_its_root_is_a_distance(drawn):
    a, b, c = drawn
    ab, bc, ac = (np.sqrt(jensen_shannon(*pair)) for pair in ((a, b), (b, c), (a, c)))
    assert (ac <= ab + bc + 1e-6).all()


def test_nothing_in_common_is_one_bit():
    one = np.array([[1, 0, 0], [0.5, 0.5, 0]])
    other = np.array([[0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(jensen_shannon(one, other), 1)
    # Half of a coin that falls either way, worked out by hand.
    half = jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))
    np.testing.assert_allclose(half, 0.5 * np.log2(4 / 3) + 0.25 * np.log2(2 / 3) + 0.25)


def outputs(client, ids, split, probabilities):
    size = len(ids)
    return Outputs(
        client=np.array(client),
        ids=np.array(ids),
        labels=np.zeros(size, dtype=np.int64),
        split=np.array(split),
        forgotten_by=np.full(size, -1),
        probabilities=np.array(probabilities, dtype=np.float32),
    )


def test_samples_are_matched_by_client_split_and_id_in_any_order():
    left, right, half = [1, 0], [0, 1], [0.5, 0.5]
    one = outputs([0, 0, 1, 1], [5, 6, 5, 7], [0, 0, 0, 1], [left, half, right, left])
    other = outputs([1, 1, 0, 2], [7, 5, 5, 9], [1, 0, 0, 0], [right, right, left, half])
    # In both: client 1's test sample 7 (apart), its 5 (equal), client 0's 5 (equal).
    assert mean_divergence(one, other) == pytest.approx(1 / 3)
    assert mean_divergence(one, one.where(np.array([False, True, False, False]))) == 0
    assert mean_divergence(one.where(np.zeros(4, dtype=bool)), other) is None
    assert mean_divergence(one, outputs([0], [5], [1], [left])) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.ones((2, 3)), np.ones((3, 3))),
        (np.ones(3), np.ones(3)),
        (np.zeros((1, 2)), np.ones((1, 2))),
        (np.array([[-1.0, 2.0]]), np.ones((1, 2))),
    ],
)
def test_what_is_no_distribution_is_refused(one, other):
    with pytest.raises(ValueError, match="probabilities"):
        jensen_shannon(one, other)
