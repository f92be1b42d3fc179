"""Losses in two halves, against the formulas in numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from split_unlearning.unlearning.objectives import (
    TEACHERS,
    Batch,
    BoundedAscent,
    CrossEntropy,
    Distillation,
    Objective,
)

QUICK = settings(deadline=None, max_examples=40)

# Float32 sums of this many terms of this size are good to about that.
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small are not worth waiting for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax(logits):
    return np.exp(log_softmax(logits))


def entropies(logits, labels):
    """Return each sample's cross entropy."""
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def divergences(teacher, student):
    """Return each sample's Kullback-Leibler divergence from its teacher's answer."""
    return (softmax(teacher) * (log_softmax(teacher) - log_softmax(student))).sum(axis=1)


def one_hot(labels, count):
    return np.eye(count)[labels]


def finite_differences(function, at, step=1e-6):
    gradient = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        moved = np.zeros_like(at)
        moved[place] = step
        gradient[place] = (function(at + moved) - function(at - moved)) / (2 * step)
    return gradient


def rows_of_logits(rows, labels, largest=8):
    return npst.arrays(np.float32, (rows, labels), elements=st.floats(-largest, largest, width=32))


@st.composite
def samples(draw, largest=8):
    """Draw the logits and the labels of a batch."""
    rows, count = draw(st.integers(1, 12)), draw(st.integers(2, 12))
    labels = draw(npst.arrays(np.int64, rows, elements=st.integers(0, count - 1)))
    return draw(rows_of_logits(rows, count, largest)), labels


@st.composite
def lessons(draw, largest=8):
    """Draw a student's logits, those of each teacher for every row, and what is forgotten."""
    rows, count = draw(st.integers(1, 10)), draw(st.integers(2, 10))
    forgotten = draw(npst.arrays(np.bool_, rows))
    student, original, incompetent = (draw(rows_of_logits(rows, count, largest)) for _ in range(3))
    return student, {"original": original, "incompetent": incompetent}, forgotten


def batch_of(labels, num_labels, forgotten=None):
    rows = len(labels)
    mask = np.zeros(rows, bool) if forgotten is None else forgotten
    return Batch(
        np.arange(rows) * 7, torch.from_numpy(labels), torch.from_numpy(mask.copy()), num_labels
    )


def never_asked(name, rows):
    raise AssertionError(f"{name} was asked")


def loss_and_gradient(objective, logits, targets):
    leaf = torch.from_numpy(logits.copy()).requires_grad_()
    loss = objective.loss(leaf, targets)
    assert loss.shape == ()
    loss.backward()
    return float(loss.detach()), leaf.grad.numpy()


class Classroom:
    """Teachers with known answers, who remember what they were asked."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def __call__(self, name, rows):
        self.asked.append((name, rows.numpy().copy()))
        return torch.from_numpy(self.answers[name])[rows]


def distilled(student, answers, forgotten, alpha):
    """Return an objective's targets, its loss and its gradient, and who was asked what."""
    objective, classroom = Distillation(alpha), Classroom(answers)
    labels = np.zeros(len(forgotten), np.int64)
    targets = objective.targets(batch_of(labels, student.shape[1], forgotten), classroom)
    return targets, *loss_and_gradient(objective, student, targets), classroom.asked


# Cross entropy.


@QUICK
@given(samples())
def test_cross_entropy_is_the_mean_over_the_batch_and_its_gradient_the_error(drawn):
    logits, labels = drawn
    targets = CrossEntropy().targets(batch_of(labels, logits.shape[1]), never_asked)
    loss, gradient = loss_and_gradient(CrossEntropy(), logits, targets)
    exact = logits.astype(np.float64)
    assert loss == pytest.approx(entropies(exact, labels).mean(), abs=2e-5)
    error = (softmax(exact) - one_hot(labels, logits.shape[1])) / len(labels)
    np.testing.assert_allclose(gradient, error, **CLOSE)


@pytest.mark.parametrize("objective", [CrossEntropy(), BoundedAscent(1.0)])
def test_an_objective_of_labels_sends_the_labels_and_asks_nobody(objective):
    labels = np.array([3, 0, 3])
    targets = objective.targets(batch_of(labels, 4), never_asked)
    assert targets.keys() == objective.sends == {"labels"}
    assert targets["labels"].tolist() == [3, 0, 3]
    assert objective.teachers == ()


def test_an_objective_without_a_loss_is_none():
    with pytest.raises(TypeError, match="loss"):
        type("Half", (Objective,), {})()


# Bounded ascent.


@QUICK
@given(samples(), st.floats(0.05, 3))
def test_ascent_is_the_negative_mean_of_each_sample_s_loss_capped_at_the_bound(drawn, bound):
    logits, labels = drawn
    count = logits.shape[1]
    limit = bound * math.log(count)
    each = entropies(logits.astype(np.float64), labels)
    assume((abs(each - limit) > 1e-4).all())
    loss, gradient = loss_and_gradient(
        BoundedAscent(bound), logits, {"labels": torch.from_numpy(labels)}
    )
    assert loss == pytest.approx(-np.minimum(each, limit).mean(), abs=2e-5)
    climbing = (each < limit)[:, None]
    error = softmax(logits.astype(np.float64)) - one_hot(labels, count)
    np.testing.assert_allclose(gradient, -(climbing * error) / len(labels), **CLOSE)
    # Not merely small: a sample at the bound is left alone.
    assert (gradient[each > limit] == 0).all()


@QUICK
@given(samples(largest=3), st.floats(0.3, 2))
def test_ascent_s_gradient_is_that_of_finite_differences(drawn, bound):
    logits, labels = drawn[0].astype(np.float64), drawn[1]
    limit = bound * math.log(logits.shape[1])
    assume((abs(entropies(logits, labels) - limit) > 1e-4).all())
    _, gradient = loss_and_gradient(
        BoundedAscent(bound), logits, {"labels": torch.from_numpy(labels)}
    )
    expected = finite_differences(
        lambda moved: -np.minimum(entropies(moved, labels), limit).mean(), logits
    )
    np.testing.assert_allclose(gradient, expected, atol=1e-7)


@pytest.mark.parametrize("count", [2, 3, 7, 10, 100])
def test_who_guesses_is_at_the_bound_of_one_and_has_no_gradient(count):
    logits = np.zeros((4, count), np.float32)
    labels = torch.arange(4) % count
    loss, gradient = loss_and_gradient(BoundedAscent(1.0), logits, {"labels": labels})
    assert loss == pytest.approx(-math.log(count))
    assert (gradient == 0).all()


def test_a_sample_whose_loss_is_the_bound_to_the_last_bit_has_no_gradient():
    logits = np.array([[0.3, -1.0, 2.0], [0.3, -1.0, 2.0]])
    labels = torch.tensor([0, 2])
    loss = float(-torch.from_numpy(logits).log_softmax(dim=1)[0, 0])
    bound = loss / math.log(3)
    assert bound * math.log(3) == loss
    _, gradient = loss_and_gradient(BoundedAscent(bound), logits, {"labels": labels})
    assert (gradient[0] == 0).all()
    assert (gradient[1] != 0).all()


@QUICK
@given(samples(largest=4), st.floats(0.5, 2), st.floats(0.5, 20))
def test_ascent_climbs_and_never_moves_a_sample_that_has_come_to_the_bound(drawn, bound, rate):
    logits, labels = torch.from_numpy(drawn[0].astype(np.float64)), torch.from_numpy(drawn[1])
    limit = bound * math.log(logits.shape[1])
    for _ in range(12):
        before = entropies(logits.numpy(), drawn[1])
        loss, gradient = loss_and_gradient(BoundedAscent(bound), logits.numpy(), {"labels": labels})
        assert loss >= -limit - 1e-12
        moved = logits - rate * torch.from_numpy(gradient)
        arrived = torch.from_numpy(before > limit)
        assert torch.equal(moved[arrived], logits[arrived])
        assert (entropies(moved.numpy(), drawn[1]) >= before - 1e-12).all()
        # A step of gradients no longer than √2 / n: the last one goes past the bound by no more
        # than it is long, the slope of a cross entropy being √2 at most.
        reached = entropies(moved.numpy(), drawn[1])
        longest = 2 * rate / len(labels)
        assert (reached <= np.maximum(before, limit + longest) + 1e-9).all()
        logits = moved


# Distillation.


@QUICK
@given(lessons(), st.floats(0, 1))
def test_distillation_weighs_the_mean_divergences_of_forgotten_and_retained_rows(drawn, alpha):
    student, answers, forgotten = drawn
    _, loss, gradient, _ = distilled(student, answers, forgotten, alpha)
    exact = student.astype(np.float64)
    expected, slope = 0.0, np.zeros_like(exact)
    halves = (("incompetent", forgotten, alpha), ("original", ~forgotten, 1 - alpha))
    for name, rows, weight in halves:
        if rows.any():
            teacher = answers[name].astype(np.float64)[rows]
            expected += weight * divergences(teacher, exact[rows]).mean()
            slope[rows] = weight * (softmax(exact[rows]) - softmax(teacher)) / rows.sum()
    assert loss == pytest.approx(expected, abs=3e-5, rel=1e-4)
    np.testing.assert_allclose(gradient, slope, **CLOSE)


@QUICK
@given(lessons(largest=3), st.floats(0, 1))
def test_distillation_s_gradient_is_that_of_finite_differences(drawn, alpha):
    student, answers, forgotten = drawn
    _, _, gradient, _ = distilled(student, answers, forgotten, alpha)

    def loss(logits):
        parts = (("incompetent", forgotten, alpha), ("original", ~forgotten, 1 - alpha))
        return sum(
            weight * divergences(answers[name][rows].astype(np.float64), logits[rows]).mean()
            for name, rows, weight in parts
            if rows.any()
        )

    expected = finite_differences(loss, student.astype(np.float64))
    np.testing.assert_allclose(gradient, expected, **CLOSE)


@QUICK
@given(lessons(), st.floats(0, 1))
def test_each_teacher_is_asked_for_its_own_rows_and_for_no_other(drawn, alpha):
    student, answers, forgotten = drawn
    *_, asked = distilled(student, answers, forgotten, alpha)
    rows = {"incompetent": forgotten, "original": ~forgotten}
    assert sorted(name for name, _ in asked) == sorted(who for who in rows if rows[who].any())
    for name, mask in asked:
        assert mask.dtype == bool
        assert (mask == rows[name]).all()


@QUICK
@given(lessons(), st.floats(0, 1))
def test_targets_are_each_row_s_teacher_and_weight_and_nothing_else_crosses(drawn, alpha):
    student, answers, forgotten = drawn
    targets, *_ = distilled(student, answers, forgotten, alpha)
    assert targets.keys() == Distillation.sends == {"teacher", "weights"}
    assert {tensor.dtype for tensor in targets.values()} == {torch.float32}
    teacher = np.where(forgotten[:, None], answers["incompetent"], answers["original"])
    expected = softmax(teacher.astype(np.float64))
    np.testing.assert_allclose(targets["teacher"].numpy(), expected, atol=1e-6)
    weights = targets["weights"].numpy()
    assert weights.shape == (len(forgotten),)
    for rows, weight in ((forgotten, alpha), (~forgotten, 1 - alpha)):
        assert len(set(weights[rows].tolist())) <= 1
        assert weights[rows].sum() == pytest.approx(weight if rows.any() else 0, abs=1e-6)


@pytest.mark.parametrize("forgotten", [True, False])
def test_a_batch_of_one_kind_has_one_teacher_and_half_of_the_loss(forgotten):
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(size=(5, 4)).astype(np.float32) for _ in range(2))
    mask = np.full(5, forgotten)
    own, weight = ("incompetent", 0.3) if forgotten else ("original", 0.7)
    answers = {own: teacher}  # asking the other would be a KeyError
    targets, loss, _, asked = distilled(student, answers, mask, 0.3)
    assert [name for name, _ in asked] == [own]
    assert targets["weights"].tolist() == pytest.approx([weight / 5] * 5)
    mean = divergences(teacher.astype(np.float64), student.astype(np.float64)).mean()
    assert loss == pytest.approx(weight * mean, rel=1e-5)


@QUICK
@given(lessons(), st.sampled_from([0.0, 1.0]))
def test_at_either_end_of_alpha_one_kind_of_row_has_no_say(drawn, alpha):
    student, answers, forgotten = drawn
    mute = ~forgotten if alpha == 1 else forgotten
    _, loss, gradient, _ = distilled(student, answers, forgotten, alpha)
    assert (gradient[mute] == 0).all()
    other = student.copy()
    other[mute] = other[mute][:, ::-1] + 1
    again = distilled(other, answers, forgotten, alpha)
    assert again[1] == loss
    assert (again[2][~mute] == gradient[~mute]).all()


@QUICK
@given(lessons(), st.floats(0, 1))
def test_who_answers_like_its_teachers_has_no_loss_and_no_gradient(drawn, alpha):
    _, answers, forgotten = drawn
    student = np.where(forgotten[:, None], answers["incompetent"], answers["original"])
    _, loss, gradient, _ = distilled(student, answers, forgotten, alpha)
    assert loss == pytest.approx(0, abs=3e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    # Probabilities know no offset.
    _, shifted, _, _ = distilled(student + 2, answers, forgotten, alpha)
    assert shifted == pytest.approx(0, abs=3e-6)


@QUICK
@given(lessons(largest=1000), st.floats(0, 1))
def test_distillation_of_a_very_sure_teacher_stays_finite(drawn, alpha):
    student, answers, forgotten = drawn
    _, loss, gradient, _ = distilled(student, answers, forgotten, alpha)
    assert math.isfinite(loss)
    assert loss >= -1e-6
    assert np.isfinite(gradient).all()


@QUICK
@given(lessons(), st.floats(0, 1))
def test_distillation_uses_no_label(drawn, alpha):
    student, answers, forgotten = drawn
    found = []
    for label in (0, 1):
        labels = np.full(len(forgotten), label)
        batch = batch_of(labels, student.shape[1], forgotten)
        found.append(Distillation(alpha).targets(batch, Classroom(answers)))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_distillation_asks_every_teacher_there_is():
    assert set(Distillation.teachers) == set(TEACHERS) == {"original", "incompetent"}
