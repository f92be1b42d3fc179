"""A client's whole model, before and after forgetting, as one module of raw samples."""

import pickle

import numpy as np
import pytest
import torch

import split_unlearning as su
from split_unlearning.unlearning.exactness import digest
from tests.refusals import refusal
from tests.state.bench import few_digits

SHORT = {"server_epochs": 2, "pretrain_epochs": 2, "clients": 3}

RUNS = {
    "splitwiper": {},
    "splitwiper-plus": {"expansion": "1-3"},
    "noise": {"strategy": "splitwiper-plus", "epsilon": 50.0},
    "u-shaped": {},
    "vanilla": {"unlearning": "fine-tune"},
    "splitfed": {},
    "gradient-projection": {},
    "two tasks": {
        "strategy": "splitwiper",
        "distribution": "different-tasks",
        "forget": "client:0",
    },
}


@pytest.fixture(scope="module", params=RUNS)
def run(request, tmp_path_factory):
    more = {"strategy": request.param, **SHORT, **RUNS[request.param]}
    if request.param == "two tasks":
        more |= {"dataset": f"digits+{wide_digits(tmp_path_factory.mktemp('wide'))}", "clients": 4}
    return su.run(**more)


def wide_digits(folder):
    """Write other digits of 12x10 pixels as a data set; return its name."""
    name = few_digits(folder / "few.npz")
    arrays = dict(np.load(name.removeprefix("npz:")))
    for split in ("x_train", "x_test"):
        arrays[split] = np.pad(arrays[split], [(0, 0), (2, 2), (1, 1)])
    np.savez(folder / "wide.npz", **arrays)
    return f"npz:{folder / 'wide.npz'}"


def test_it_predicts_what_the_run_scored(run):
    for place, phase in enumerate(run.phases):
        for client, accuracy in phase.accuracy.per_client.items():
            x, y = run.samples(client)
            with torch.no_grad():
                outputs = run.model(client, place)(torch.from_numpy(x))
            assert outputs.shape == (len(y), len(phase.accuracy.per_label))
            hits = (outputs.argmax(dim=1).numpy() == y).sum()
            # A label that is as probable as another to the last bit may go either way.
            assert abs(hits - accuracy * len(y)) <= 1


def test_its_parts_are_the_segments_of_that_phase(run):
    for place, phase in enumerate(run.phases):
        network = run.model(0, place)
        assert isinstance(network, torch.nn.Module)
        assert not network.training
        assert digest(network.server.state_dict()) == phase.digests.server
    assert run.phases[0].digests.server != run.phases[1].digests.server


def test_it_is_saved_with_the_run(run, tmp_path):
    run.save(tmp_path / "saved")
    x, _ = run.samples(0, "train")
    before, after = (
        one.model(0, 0)(torch.from_numpy(x[:9])) for one in (run, su.load(tmp_path / "saved"))
    )
    assert torch.equal(before, after)
    assert pickle.loads(pickle.dumps(run.model(0)))(torch.from_numpy(x[:9])).shape == before.shape


def test_a_client_segment_is_the_one_that_the_client_kept():
    run = su.run(**SHORT)
    for client, kept in run.phases[1].digests.clients.items():
        assert digest(run.model(client).client.state_dict()) == kept


def test_texts_go_in_as_token_ids(tmp_path):
    lines = [
        f"{label},title {label},words about {label} and {n}" for n in range(9) for label in "12"
    ]
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    run = su.run(
        **SHORT | {"clients": 2},
        dataset="agnews",
        data_dir=tmp_path,
        model="bert",
        distribution="iid",
        forget="",
        text_length=8,
    )
    x, _ = run.samples(1)
    assert x.shape[1:] == (8,)
    assert run.model(1)(torch.from_numpy(x)).shape[0] == len(x)


def test_keeping_models_costs_nothing_that_is_measured():
    kept, other = (su.run(**SHORT, keep_models=keep) for keep in (True, False))
    sizes = ["bytes_up", "bytes_down", "messages"]
    sizes += [f"evaluation_{name}" for name in sizes]
    assert kept.to_frame()[sizes].equals(other.to_frame()[sizes])
    questions = [{*one.phases[1].timing.questions} for one in (kept, other)]
    assert questions[0] == questions[1]
    said = refusal(other.model, 0, error=su.UserError)
    assert "holds no models; allowed: a run with keep_models=True" in said


class Own(su.SplitWiperClient):
    """Predicts in a way of its own."""

    def predicted(self, message):
        return super().predicted(message)


class WithOwn(su.SplitWiper):
    """SplitWiper with such a client."""

    client = f"{__name__}:Own"


def test_a_client_that_predicts_in_a_way_of_its_own_says_how():
    run = su.run(**SHORT, strategy=WithOwn, forget="")
    assert "Own defines predicted and not joined" in refusal(run.model, 0, error=su.UserError)


@pytest.fixture(scope="module")
def learned():
    return su.run(**SHORT, forget="")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run: run.model(3), "client=3 is not possible; allowed: a client from 0 to 2"),
        (lambda run: run.model(-1), "client=-1 is not possible"),
        (lambda run: run.model(0, 1), "phase=1 is not possible; allowed: from 0 to 0"),
        (lambda run: run.samples(0, "tests"), "split='tests' is not possible"),
        (lambda run: run.samples("0"), "client='0' is not possible"),
    ],
)
def test_what_there_is_not_is_refused(learned, call, said):
    assert said in refusal(call, learned, error=su.UserError)


def test_a_state_dir_gives_no_models_away(tmp_path):
    said = refusal(su.run, state_dir=tmp_path / "kept", keep_models=True, error=su.UserError)
    assert said.startswith("keep-models=True is not possible; allowed: false (with state-dir")


def test_a_run_is_drawn_phase_by_phase(learned):
    run = su.run(**SHORT, forget=["class:2", "client:1"])
    accuracy, seconds, traffic = run.plot().axes
    assert [text.get_text() for text in accuracy.get_xticklabels()] == [
        "learn",
        "forget\nclass:2",
        "forget\nclient:1",
    ]
    shares = [bar.get_height() for bar in accuracy.containers[1]]
    assert shares == pytest.approx((100 * run.accuracy["retained"]).tolist())
    asked = [bar.get_height() for bar in traffic.containers[0]]
    cost = run.cost.query("task == 1 and requested")
    assert asked[1] == pytest.approx((cost["bytes_up"] + cost["bytes_down"]).item() / 1e6)
    assert len(seconds.patches) == 6
    assert learned.plot()._repr_png_().startswith(b"\x89PNG")
