"""Unlearning methods by name, and the stages that they are made of."""

import sys
from types import ModuleType

import pytest
import torch

from split_unlearning.foundations.errors import UserError
from split_unlearning.unlearning.methods import (
    METHODS,
    DistillationUnlearning,
    FineTuning,
    GradientAscent,
    NoUnlearning,
    Retrain,
    StagedMethod,
    UnlearningMethod,
)
from split_unlearning.unlearning.objectives import (
    BoundedAscent,
    CrossEntropy,
    Distillation,
    Objective,
)
from split_unlearning.unlearning.stages import Stage, learning

SETTINGS = {
    "fine-tune-epochs": 2,
    "ascent-epochs": 3,
    "ascent-bound": 1.5,
    "distillation-epochs": 4,
    "distillation-alpha": 0.25,
    "pull": "3",
}
BUILT_IN = {
    "distillation": DistillationUnlearning,
    "fine-tune": FineTuning,
    "gradient-ascent": GradientAscent,
    "none": NoUnlearning,
    "retrain": Retrain,
}


@pytest.fixture
def stranger(monkeypatch):
    """Return a module named `stranger` that can be imported."""
    module = ModuleType("stranger")
    monkeypatch.setitem(sys.modules, "stranger", module)
    return module


def refusal(call, *arguments):
    """Return the one line with which a call is refused."""
    with pytest.raises(UserError) as refused:
        call(*arguments)
    message = str(refused.value)
    assert message
    assert "\n" not in message
    return message


def told(method):
    """Return what each of a method's stages is: name, epochs, samples, objective."""
    return [
        (stage.name, stage.epochs, stage.samples, stage.objective)
        for stage in method(SETTINGS).stages()
    ]


def test_every_built_in_method_goes_by_its_name():
    assert {name: METHODS.get(name) for name in BUILT_IN} == BUILT_IN
    assert set(BUILT_IN) <= set(METHODS.names())


def test_fine_tuning_is_one_stage_on_what_is_retained():
    ((name, epochs, samples, objective),) = told(FineTuning)
    assert (name, epochs, samples) == ("fine-tune", 2, "retained")
    assert type(objective) is CrossEntropy


def test_gradient_ascent_climbs_what_is_forgotten_and_then_fine_tunes():
    ascent, fine_tune = told(GradientAscent)
    assert ascent == ("ascent", 3, "forgotten", BoundedAscent(1.5))
    assert fine_tune[:3] == told(FineTuning)[0][:3]
    assert type(fine_tune[3]) is CrossEntropy


def test_distillation_is_one_stage_on_everything():
    assert told(DistillationUnlearning) == [("distillation", 4, "all", Distillation(0.25))]


def test_no_unlearning_has_no_stage():
    assert told(NoUnlearning) == []


def test_retraining_has_no_stages_at_all():
    assert not issubclass(Retrain, StagedMethod)
    assert not hasattr(Retrain, "stages")


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_method_reads_the_settings_that_it_declares(name):
    method = BUILT_IN[name]
    changes = {
        "fine-tune-epochs": 9,
        "ascent-epochs": 9,
        "ascent-bound": 9.0,
        "distillation-epochs": 9,
        "distillation-alpha": 0.9,
    }

    def seen(settings):
        if not issubclass(method, StagedMethod):
            return []
        return [
            (one.name, one.epochs, one.samples, repr(vars(one.objective)))
            for one in method(settings).stages()
        ]

    before = seen(SETTINGS)
    moved = {key for key, value in changes.items() if seen({**SETTINGS, key: value}) != before}
    assert moved == method.reads().keys()


def test_a_method_has_what_it_is_given_and_its_defaults():
    assert Retrain(SETTINGS).options["pull"] == "3"
    assert FineTuning({}).options == {"fine-tune-epochs": 6}


@pytest.mark.parametrize("method", [FineTuning, GradientAscent, DistillationUnlearning])
def test_a_stage_is_found_by_its_name(method):
    known = method(SETTINGS)
    for stage in known.stages():
        found = known.stage(stage.name)
        assert (found.name, found.epochs, found.samples) == (
            stage.name,
            stage.epochs,
            stage.samples,
        )
        assert type(found.objective) is type(stage.objective)


@pytest.mark.parametrize(
    ("method", "known"),
    [
        (FineTuning, r"\['fine-tune'\]"),
        (GradientAscent, r"\['ascent', 'fine-tune'\]"),
        (NoUnlearning, r"\[\]"),
    ],
)
@pytest.mark.parametrize("name", ["train", "distillation", ""])
def test_an_unknown_stage_is_refused_with_those_that_there_are(method, known, name):
    with pytest.raises(ValueError, match=f"^there is no stage '{name}'; there are {known}$"):
        method(SETTINGS).stage(name)


def test_a_stage_learns_the_labels_of_what_is_retained_unless_it_says_otherwise():
    stage = Stage("plain", 3)
    assert (stage.samples, type(stage.objective)) == ("retained", CrossEntropy)
    assert (learning(5).name, learning(5).epochs, learning(5).samples) == ("train", 5, "retained")
    assert type(learning(5).objective) is CrossEntropy


class Rumour(Objective):
    """Asks somebody who is no teacher."""

    teachers = ("original", "neighbour")

    def loss(self, logits, targets):
        return torch.zeros(())


def test_a_stage_whose_objective_asks_an_unknown_teacher_is_refused_with_those_there_are():
    assert refusal(Stage, "gossip", 1, "all", Rumour()) == (
        "stage 'gossip' asks the teacher 'neighbour'; allowed: original, incompetent"
    )


def test_a_method_of_a_stranger_is_accepted(stranger):
    class Own(StagedMethod):
        def stages(self):
            return (Stage("own", 1),)

    stranger.Own = Own
    assert METHODS.get("stranger:Own") is Own
    assert METHODS.get("stranger:Own")(SETTINGS).stage("own").epochs == 1


@pytest.mark.parametrize(
    "value",
    [
        3,
        "fine-tune",
        dict,
        Stage,
        CrossEntropy,
        FineTuning(SETTINGS),
        lambda settings: FineTuning(settings),
    ],
    ids=["number", "text", "dict", "stage", "objective", "instance", "function"],
)
def test_what_is_no_method_is_refused_in_one_line(stranger, value):
    stranger.Thing = value
    assert refusal(METHODS.get, "stranger:Thing") == (
        "unlearning='stranger:Thing' does not fit: an unlearning method is a subclass of "
        "split_unlearning.UnlearningMethod"
    )


def test_a_staged_method_without_stages_is_refused_in_one_line(stranger):
    stranger.Half = type("Half", (StagedMethod,), {})
    assert refusal(METHODS.get, "stranger:Half") == (
        "unlearning='stranger:Half' does not fit: it does not define stages"
    )


def test_an_unknown_name_is_refused_with_the_names_there_are():
    message = refusal(METHODS.get, "fine-tuning")
    assert message.startswith("unlearning='fine-tuning' is not possible; allowed: ")
    assert all(name in message for name in BUILT_IN)


def test_a_method_of_a_kind_of_its_own_is_a_method(stranger):
    stranger.Kind = type("Kind", (UnlearningMethod,), {})
    assert METHODS.get("stranger:Kind") is stranger.Kind
