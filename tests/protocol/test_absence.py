"""A client that does not answer: named, or skipped for the epoch; never waited for without end."""

from collections import Counter
from unittest.mock import patch

import pytest

from split_unlearning.clients.vanilla import VanillaClient
from split_unlearning.strategies.heard import ClientFailureError
from split_unlearning.unlearning.exactness import digest
from tests.local_grid import LocalRun
from tests.protocol.test_vanilla import same_bits

SHORT = {"pretrain_epochs": 1, "server_epochs": 3, "distribution": "iid", "forget": ""}


def late_in_epoch(number, late=1):
    """The answer of one client to its turn in that epoch never comes."""
    return lambda client, fields: client == late and fields.get("epoch") == number


@pytest.mark.parametrize("strategy", ["vanilla", "u-shaped", "splitfed"])
def test_a_late_answer_ends_the_run_with_the_client_and_the_phase(strategy):
    with pytest.raises(
        ClientFailureError,
        match=r"^client 1 failed in phase learn at 'train': no answer within 0.2 seconds \(round-",
    ):
        LocalRun(3, silent=late_in_epoch(1), strategy=strategy, round_timeout=0.2, **SHORT)


def test_every_protocol_names_who_does_not_answer_its_first_question():
    for strategy, action in (("splitwiper", "pretrain"), ("vanilla", "start")):
        with pytest.raises(ClientFailureError, match=f"client 2 .*phase learn at '{action}': no a"):
            LocalRun(
                3, silent=lambda client, _: client == 2, strategy=strategy, round_timeout=0.2,
                **SHORT,
            )  # fmt: skip


@pytest.mark.parametrize("client_sync", ["none", "handoff"])
@pytest.mark.parametrize("strategy", ["vanilla", "u-shaped"])
def test_who_is_late_is_skipped_for_the_epoch_if_the_user_says_so(strategy, client_sync):
    run = LocalRun(
        3, silent=late_in_epoch(1), strategy=strategy, round_timeout=0.2, skip_absent=True,
        client_sync=client_sync, **SHORT,
    )  # fmt: skip
    (learn,) = run.phases
    (line,) = learn["absent"]
    assert line.startswith("client 1 failed in phase learn at 'train'")
    turns = Counter(client for client, action in run.instructions("learn") if action == "train")
    # What was sent to the late client is not among what was answered.
    assert turns == {0: 3, 1: 2, 2: 3}
    assert all(share is not None for share in learn["accuracy"]["per_client"].values())


def test_who_raises_is_skipped_and_keeps_its_segment_as_it_was_before_its_turn():
    honest = VanillaClient.step
    taken = Counter()

    def breaks_in_the_second_epoch(client, *arguments):
        taken[client.client] += 1
        # 480 or 481 samples each, in batches of 32: 15 batches an epoch.
        if client.client == 0 and taken[0] == 20:
            raise RuntimeError("out of memory")
        honest(client, *arguments)

    with patch.object(VanillaClient, "step", breaks_in_the_second_epoch):
        run = LocalRun(3, strategy="vanilla", skip_absent=True, **{**SHORT, "server_epochs": 2})
    (line,) = run.phases[0]["absent"]
    assert "out of memory" in line
    alone = LocalRun(3, strategy="vanilla", **{**SHORT, "server_epochs": 1})
    assert same_bits(run.client_state(0), alone.client_state(0))
    # What it holds is not claimed to be known; what the others hold is.
    assert run.digests["clients"] == {str(k): digest(run.client_state(k)) for k in (1, 2)}


def test_a_frame_that_comes_after_its_turn_is_refused():
    endpoints = []

    class Spy(VanillaClient):
        def train(self, message):
            endpoints.append(message.fields["link-target"])
            return super().train(message)

        train.is_action = True

    with patch("split_unlearning.simulations.client_app.load_client", lambda _: Spy):
        LocalRun(
            3, silent=late_in_epoch(0), strategy="vanilla", round_timeout=0.2, skip_absent=True,
            **SHORT,
        )  # fmt: skip
    before, *_, after = endpoints
    assert before != after
    # One for all turns until the late one, another for all that follow.
    assert len(set(endpoints)) == 2


def test_who_is_gone_for_good_is_not_scored():
    run = LocalRun(
        3, silent=lambda client, fields: client == 1 and fields["action"] != "start",
        strategy="vanilla", round_timeout=0.2, skip_absent=True, **SHORT,
    )  # fmt: skip
    (learn,) = run.phases
    # Three turns and the upload of its test activations.
    assert len(learn["absent"]) == 4
    assert learn["accuracy"]["per_client"]["1"] is None
    assert learn["accuracy"]["per_client"]["0"] > 0.3
    assert "1" not in learn["digests"]["clients"]


def test_a_request_of_an_absent_client_ends_the_run_even_if_epochs_may_skip():
    with pytest.raises(ClientFailureError, match="client 0 failed in phase unlearn at 'leave-out'"):
        LocalRun(
            3, silent=lambda client, fields: fields["phase"] == "unlearn", strategy="vanilla",
            round_timeout=0.2, skip_absent=True, **{**SHORT, "forget": "class:2"},
        )  # fmt: skip


@pytest.mark.parametrize("unlearning", ["gradient-ascent", "distillation"])
def test_a_request_does_not_pass_as_done_without_who_holds_the_forgotten_samples(unlearning):
    def late(client, fields):
        return client == 0 and fields["phase"] == "unlearn" and fields["action"] == "train"

    with pytest.raises(ClientFailureError, match="client 0 failed in phase unlearn at 'train'"):
        LocalRun(
            3, silent=late, strategy="vanilla", unlearning=unlearning, round_timeout=0.2,
            skip_absent=True, **{**SHORT, "forget": "class:2"},
        )  # fmt: skip


def test_who_changed_unheard_uploads_its_test_activations_each_time_until_it_is_heard():
    def late(client, fields):
        return client == 1 and fields["action"] == "train" and fields["epoch"] == 2

    run = LocalRun(
        3, silent=late, strategy="vanilla", round_timeout=0.2, skip_absent=True,
        **{**SHORT, "forget": "class:2"},
    )  # fmt: skip
    uploads = [client for client, action in run.instructions("evaluate") if action == "upload"]
    assert sorted(uploads) == [0, 0, 1, 1, 2, 2]
    # It worked all the same, and what is scored is what it holds.
    told = LocalRun(3, strategy="vanilla", **{**SHORT, "forget": "class:2"})
    assert same_bits(run.client_state(1), told.client_state(1))
    assert run.phases[-1]["accuracy"] == told.phases[-1]["accuracy"]


def test_who_could_not_upload_is_not_scored_by_what_it_uploaded_before():
    def late(client, fields):
        if client != 1 or fields["phase"] != "evaluate" or fields["action"] != "upload":
            return False
        asked.append(fields)
        return len(asked) == 2

    asked = []
    run = LocalRun(
        3, silent=late, strategy="vanilla", round_timeout=0.2, skip_absent=True,
        **{**SHORT, "forget": "class:2"},
    )  # fmt: skip
    learn, unlearn = run.phases
    assert learn["accuracy"]["per_client"]["1"] is not None
    assert unlearn["accuracy"]["per_client"]["1"] is None
    # Its segment is known all the same.
    assert unlearn["digests"]["clients"]["1"] == digest(run.client_state(1))


def test_handoff_goes_on_without_who_does_not_take_the_last_segment():
    run = LocalRun(
        3, silent=lambda client, fields: client == 1 and fields["action"] == "take",
        strategy="vanilla", client_sync="handoff", round_timeout=0.2, skip_absent=True, **SHORT,
    )  # fmt: skip
    (line,) = run.phases[0]["absent"]
    assert "client 1 failed in phase learn at 'take'" in line
