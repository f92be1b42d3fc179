"""RRWithPrior against its paper's formulas, by enumeration."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from split_unlearning.clients.label_privacy.randomised_response import (
    best_k,
    draws,
    randomised_labels,
    response_with_prior,
    top_k_response,
    uniform_prior,
)
from split_unlearning.foundations.seeds import derive_seed
from tests.refusals import refusal

EPSILONS = st.floats(0.01, 12)


@st.composite
def priors(draw, most=7):
    weights = draw(st.lists(st.integers(0, 9), min_size=1, max_size=most).filter(any))
    return np.array(weights) / sum(weights)


def told_with_probability(prior, k, epsilon, true, told):
    """Algorithm 2, one pair of labels at a time."""
    ranked = sorted(range(len(prior)), key=lambda label: (-prior[label], label))[:k]
    if told not in ranked:
        return 0.0
    if true not in ranked:
        return 1 / k
    return (math.exp(epsilon) if told == true else 1.0) / (math.exp(epsilon) + k - 1)


@settings(deadline=None, max_examples=60)
@given(priors(), EPSILONS, st.data())
def test_what_is_told_is_what_algorithm_2_says(prior, epsilon, data):
    k = data.draw(st.integers(1, len(prior)))
    labels = range(len(prior))
    expected = [
        [told_with_probability(prior, k, epsilon, true, told) for told in labels] for true in labels
    ]
    np.testing.assert_allclose(top_k_response(prior, k, epsilon), expected, rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(priors(), EPSILONS)
def test_no_answer_tells_two_labels_apart_by_more_than_epsilon(prior, epsilon):
    told = response_with_prior(prior, epsilon)
    np.testing.assert_allclose(told.sum(axis=1), 1)
    possible = told[:, told.max(axis=0) > 0]
    # What can be answered to one label can be answered to each.
    assert possible.all()
    ratios = [abs(np.log(one / other)).max() for one, other in combinations(possible, 2)]
    assert max(ratios, default=0) <= epsilon + 1e-9
    # Nothing is given away of the budget: two labels among the answers differ by all of it.
    if best_k(prior, epsilon) > 1:
        assert max(ratios) == pytest.approx(epsilon)


@settings(deadline=None, max_examples=60)
@given(priors(), EPSILONS)
def test_no_other_k_tells_the_true_label_more_often(prior, epsilon):
    def right(k):
        return sum(
            prior[label] * told_with_probability(prior, k, epsilon, label, label)
            for label in range(len(prior))
        )

    best = prior @ np.diag(response_with_prior(prior, epsilon))
    assert best == pytest.approx(max(right(k) for k in range(1, len(prior) + 1)))


@settings(deadline=None, max_examples=60)
@given(priors(most=4), EPSILONS, st.integers(0, 2**32))
def test_no_other_private_mechanism_tells_the_true_label_more_often(prior, epsilon, seed):
    """Theorem 3, against random mechanisms that are as private."""
    labels = len(prior)
    best = prior @ np.diag(response_with_prior(prior, epsilon))
    raw = np.exp(np.random.default_rng(seed).uniform(0, epsilon, (50, labels, labels)))
    # Rows of numbers within a factor e^(ε/2) of each other; what is divided by differs as little.
    others = raw**0.5 / (raw**0.5).sum(axis=2, keepdims=True)
    ratio = np.log(others.max(axis=1) / others.min(axis=1)).max()
    assert ratio <= epsilon + 1e-9
    assert (np.einsum("l,nll->n", prior, others) <= best + 1e-12).all()


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
def test_with_a_uniform_prior_it_is_k_ary_randomised_response(epsilon):
    whole = math.exp(epsilon) + 9
    expected = np.full((10, 10), 1 / whole) + np.eye(10) * (math.exp(epsilon) - 1) / whole
    assert best_k(uniform_prior(10), epsilon) == 10
    np.testing.assert_allclose(response_with_prior(uniform_prior(10), epsilon), expected)


def test_a_prior_that_knows_leaves_unlikely_labels_out_and_more_so_at_a_small_epsilon():
    prior = [0.1, 0.6, 0.25, 0.05]
    assert [best_k(prior, epsilon) for epsilon in (0.1, 1.5, 2.4, 9.0)] == [1, 2, 3, 4]
    # At the smallest the best answer is always the likeliest label.
    assert response_with_prior(prior, 0.1)[:, 1].tolist() == [1, 1, 1, 1]


def test_a_huge_epsilon_tells_the_truth():
    np.testing.assert_array_equal(response_with_prior(uniform_prior(3), 2000.0), np.eye(3))


@pytest.mark.parametrize("true", [0, 3])
def test_labels_are_told_as_often_as_the_mechanism_says(true):
    response = response_with_prior([0.1, 0.4, 0.3, 0.2, 0.0], 1.5)
    ids = np.arange(0, 200_000, 7)
    labels = torch.full((len(ids),), true)
    told = randomised_labels(labels, response, draws(ids, derive_seed(3, "told-label", true)))
    assert told.dtype == torch.int64
    counts = np.bincount(told.numpy(), minlength=5)
    possible = response[true] > 0
    assert counts[~possible].sum() == 0
    assert chisquare(counts[possible], response[true][possible] * len(ids)).pvalue > 0.01


def test_the_numbers_are_uniform_and_those_of_two_clients_have_nothing_in_common():
    ids = np.arange(20_000)
    one, other = (draws(ids, derive_seed(0, "told-label", client)) for client in (0, 1))
    assert kstest(one, "uniform").pvalue > 0.01
    # Neighbours in a client's ids, and the same id with two clients.
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.02
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.02


@given(st.sets(st.integers(0, 10**6), min_size=2, max_size=40), st.data())
def test_what_is_told_of_a_sample_does_not_depend_on_the_others(ids, data):
    ids = np.array(sorted(ids))
    some = np.array(data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))))
    labels, response = torch.from_numpy(ids % 10), response_with_prior(uniform_prior(10), 1.0)
    told = randomised_labels(labels, response, draws(ids, 5))
    again = randomised_labels(labels[torch.from_numpy(some)], response, draws(ids[some], 5))
    assert torch.equal(told[torch.from_numpy(some)], again)


def test_an_answer_without_probability_is_not_given_at_the_end_of_the_range():
    response = top_k_response([0.1] * 9 + [0.0, 0.1], 10, 1.0)
    last = np.full(11, np.nextafter(1.0, 0.0))
    assert set(randomised_labels(torch.arange(11), response, last).tolist()) == {10}
    response = top_k_response([0.3, 0.4, 0.3, 0.0, 0.0], 3, 0.7)
    assert set(randomised_labels(torch.arange(5), response, last[:5]).tolist()) == {2}


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_an_epsilon_that_promises_nothing_is_refused(epsilon):
    message = refusal(response_with_prior, [0.5, 0.5], epsilon, error=ValueError)
    assert message == f"epsilon={epsilon!r} is not possible; allowed: a number > 0"


@pytest.mark.parametrize("prior", [[0.5, 0.6], [1.5, -0.5], [], [[1.0]], [math.nan, 1.0]])
def test_a_prior_that_is_no_distribution_is_refused(prior):
    message = refusal(response_with_prior, prior, 1.0, error=ValueError)
    assert message.startswith("prior=")


@pytest.mark.parametrize("k", [0, 4])
def test_so_many_answers_as_there_are_not_are_refused(k):
    message = refusal(top_k_response, [0.2, 0.3, 0.5], k, 1.0, error=ValueError)
    assert message == f"k={k} is not possible; allowed: from 1 to 3, the number of labels"
