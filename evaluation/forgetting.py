"""A forgetting is judged beside a retraining, and by what shadow models teach an attack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from split_unlearning.evaluation.backdoor import success
from split_unlearning.evaluation.cohorts import (
    Rows,
    check_apart,
    forgotten_in,
    held_out_for,
    keys,
    retained_in,
)
from split_unlearning.evaluation.divergence import mean_divergence
from split_unlearning.evaluation.membership import (
    Features,
    MembershipAttack,
    features,
    pair_features,
)
from split_unlearning.evaluation.outputs import Outputs

# Members, and non-members, of some labels that an attack has to have to learn from them alone.
_ENOUGH = 20

ByTask = Mapping[int, Outputs]


class ForgettingJudge:
    """Measures each phase of one target; nothing is trained but the attacks.

    Outputs are given by task: of the target, of the same run with ``unlearning = "retrain"``, and
    of each of its shadow runs, of which there may be none. `planted` is the label that a backdoor
    stands for, if there is one: what is forgotten bears its trigger then, and no test sample is of
    that kind, so that membership is not measured.

    Raises
    ------
    ValueError
        If a shadow run saw a sample of the target.
    """

    def __init__(
        self,
        target: ByTask,
        reference: ByTask,
        shadows: Sequence[ByTask],
        planted: int | None = None,
    ) -> None:
        for number, shadow in enumerate(shadows, start=1):
            _check_unseen(target, shadow, number)
        self._target, self._reference = target, reference
        self._shadows = [] if planted is not None else shadows
        self._planted = planted
        self._tasks = sorted(target)
        self._last = target[self._tasks[-1]]
        self._attacks: dict[tuple[int, frozenset[int]], MembershipAttack | None] = {}

    def phase(self, task: int) -> dict[str, Any]:
        """Return the figures of one phase; of learning, about all that is forgotten later."""
        asked = {task} if task else set(self._tasks) - {0}
        before = self._before(task) if task else None
        by_kind = None
        if (reference := self._reference.get(task)) is not None:
            by_kind = self._divergence(task, reference, asked)
        return {
            "membership": self._attacked(self._target, task, asked),
            "membership_before": self._attacked(self._target, before, asked),
            "membership_reference": self._attacked(self._reference, task, asked),
            "membership_pair": self._pair_attacked(before, task),
            "divergence": by_kind,
            "backdoor": self._backdoor(before, task, asked),
        }

    def _backdoor(self, before: int | None, task: int, asked: set[int]) -> dict[str, Any] | None:
        if self._planted is None:
            return None
        holders = self._last.client[forgotten_in(self._last, self._last, asked)]
        clients, label = set(holders.tolist()), self._planted

        def of(model: ByTask, number: int | None) -> float | None:
            return (
                success(model[number], label, clients)
                if number is not None and number in model
                else None
            )

        return {
            "success": of(self._target, task),
            "success_before": of(self._target, before),
            "reference_success": of(self._reference, task),
        }

    def _before(self, task: int) -> int | None:
        """Return the task before another."""
        earlier = [one for one in self._tasks if one < task]
        return earlier[-1] if earlier else None

    def _attacked(self, model: ByTask, task: int | None, asked: set[int]) -> dict[str, Any] | None:
        """Ask the attack of a task's shadow models about what some tasks forget."""
        if task is None or task not in model:
            return None
        outputs = model[task]
        forgotten = outputs.labels[forgotten_in(self._last, outputs, asked)]
        labels = frozenset(forgotten.tolist())
        if (task, labels) not in self._attacks:
            self._attacks[task, labels] = self._trained(task, sorted(labels))
        attack = self._attacks[task, labels]
        return self._asked(attack, outputs, asked, lambda rows: _looked_at(outputs, rows))

    def _trained(self, task: int, labels: Sequence[int]) -> MembershipAttack | None:
        """Train an attack on what shadow models of a task were trained on, and on test samples.

        On samples of some labels, because what is a large loss of one is a small one of another; on
        all, where shadow runs have too few of these, as after all of a label is forgotten.
        """
        for few in (labels, None):
            members, non_members = [], []
            for shadow in self._shadows:
                if task in shadow:
                    outputs = shadow[task]
                    wanted = _every(outputs) if few is None else np.isin(outputs.labels, few)
                    learned, test = retained_in(outputs) & wanted, outputs.is_test & wanted
                    _check_apart(outputs, learned, test)
                    members.append(_looked_at(outputs, learned))
                    non_members.append(_looked_at(outputs, test))
            enough = min(sum(map(len, side)) for side in (members, non_members)) >= _ENOUGH
            if few is None or enough:
                return _attack(members, non_members)
        return None

    def _pair_attacked(self, before: int | None, task: int) -> dict[str, Any] | None:
        """Ask an attack that looks at a model before and after a request together."""
        if before is None:
            return None
        both = _paired(self._target[before], self._target[task])
        members, non_members = [], []
        for shadow in self._shadows:
            of_shadow = (
                _paired(shadow[before], shadow[task]) if {before, task} <= {*shadow} else None
            )
            if of_shadow is not None:
                outputs = shadow[task]
                forgotten = forgotten_in(outputs, outputs, {task})
                others, _ = held_out_for(outputs, forgotten)
                _check_apart(outputs, forgotten, others)
                members.append(of_shadow(forgotten))
                non_members.append(of_shadow(others))
        attack = None if both is None else _attack(members, non_members)
        return None if both is None else self._asked(attack, self._target[task], {task}, both)

    def _asked(
        self,
        attack: MembershipAttack | None,
        outputs: Outputs,
        asked: set[int],
        look: Callable[[Rows], Features],
    ) -> dict[str, Any] | None:
        """Judge an attack by what is forgotten, and by test samples of its kind."""
        forgotten = forgotten_in(self._last, outputs, asked)
        held_out, kind = held_out_for(outputs, forgotten)
        if attack is None or not forgotten.any() or not held_out.any():
            return None
        _check_apart(outputs, forgotten, held_out)
        found = attack.on(look(forgotten), look(held_out))
        return {**found.to_json(), "non_members_are": kind}

    def _divergence(
        self, task: int, reference: Outputs, asked: set[int]
    ) -> dict[str, float | None]:
        outputs = self._target[task]
        kinds = {
            "forgotten": forgotten_in(self._last, outputs, asked),
            "retained": retained_in(outputs) & ~forgotten_in(self._last, outputs, asked),
            "test": outputs.is_test,
        }
        return {
            kind: mean_divergence(outputs.where(rows), reference) for kind, rows in kinds.items()
        }


def _looked_at(outputs: Outputs, rows: Rows) -> Features:
    return features(outputs.probabilities[rows], outputs.labels[rows])


def _every(outputs: Outputs) -> Rows:
    return np.ones(len(outputs), dtype=bool)


def _paired(before: Outputs, after: Outputs) -> Callable[[Rows], Features] | None:
    """Return what looks at samples of `after` together with what they were before.

    None if the two are not about the same samples: a client did not answer one of the audits.
    """
    if not np.array_equal(keys(before), keys(after)):
        return None
    return lambda rows: pair_features(_looked_at(before, rows), _looked_at(after, rows))


def _attack(
    members: Sequence[Features], non_members: Sequence[Features]
) -> MembershipAttack | None:
    """Return an attack; None where there is nothing to learn from."""
    if not sum(map(len, members)) or not sum(map(len, non_members)):
        return None
    return MembershipAttack(np.concatenate(members), np.concatenate(non_members))


def _check_apart(outputs: Outputs, members: Rows, non_members: Rows) -> None:
    check_apart(outputs.where(members), outputs.where(non_members))


def _check_unseen(target: ByTask, shadow: ByTask, number: int) -> None:
    """Refuse a shadow run that saw what the target saw: its members would teach by heart."""
    seen, learned = (np.concatenate([keys(one[task]) for task in one]) for one in (target, shadow))
    both = len(np.intersect1d(seen, learned))
    if both:
        raise ValueError(f"shadow run {number} saw {both} of the target's samples")
