"""Masked uploads: the same bits by any chunks, and a server that cannot take the noise off."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from split_unlearning.clients.label_privacy.copies import assign
from split_unlearning.clients.label_privacy.label_map import Expansion, LabelMap
from split_unlearning.clients.label_privacy.masking import mask
from split_unlearning.clients.label_privacy.mechanism import Mechanism
from split_unlearning.clients.label_privacy.secrets import uniforms
from split_unlearning.foundations.errors import UserError
from split_unlearning.foundations.seeds import derive_seed

SEED = 7
SHARED, SECRET = bytes(range(1, 33)), bytes(range(32))
MAP = LabelMap.drawn((0, 1), Expansion(3, 3), SHARED)
LAPLACE = Mechanism("laplace", 0.5, 1e-5, 3.0, "record")
GAUSSIAN = Mechanism("gaussian", 0.5, 1e-5, 3.0, "element")
COPIES = ("replicate", "partition", "modes")
rng = np.random.default_rng(0)
IDS = rng.permutation(10**6)[:600]
SMASHED = rng.normal(size=(600, 2, 3, 4)).astype(np.float32)
LABELS = rng.integers(0, 2, 600)


def upload(mechanism, assignment, generation=0, smashed=SMASHED, secret=SECRET):
    return mask(smashed, assignment, mechanism, secret, generation, 0, len(assignment.rows))


def assigned(copies="partition", generation=0, among=slice(None)):
    return assign(copies, SMASHED[among], LABELS[among], IDS[among], MAP, SECRET, generation)


@pytest.mark.parametrize("mechanism", [None, LAPLACE, GAUSSIAN])
@given(st.lists(st.integers(0, 1800), max_size=6), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_chunks_hold_the_bits_of_the_whole(mechanism, borders, generation):
    of_all = assigned("replicate", generation)
    whole = upload(mechanism, of_all, generation)
    assert whole.shape == (1800, 2, 3, 4)
    assert whole.dtype == np.float32
    for start, stop in pairwise([0, *sorted(borders), 1800]):
        chunk = mask(SMASHED, of_all, mechanism, SECRET, generation, start, stop)
        assert (chunk == whole[start:stop]).all()
        assert chunk.shape == (stop - start, 2, 3, 4)


@pytest.mark.parametrize("kind", ["laplace", "gaussian"])
def test_a_row_alone_holds_the_bits_of_the_whole(kind):
    """Of records as long as those of an image, whose norms are sums of thousands."""
    smashed = np.random.default_rng(1).normal(size=(300, 2048)).astype(np.float32)
    ids, labels = np.arange(300), np.zeros(300, dtype=np.int64)
    of_all = assign("partition", None, labels, ids, MAP, SECRET, 0)
    mechanism = Mechanism(kind, 8.0, 1e-5, 20.0, "record")
    whole = upload(mechanism, of_all, smashed=smashed)
    for row in (0, 1, 255, 256, 299):
        alone = mask(smashed, of_all, mechanism, SECRET, 0, row, row + 1)
        assert (alone == whole[row]).all()


@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("mechanism", [LAPLACE, GAUSSIAN])
def test_no_record_has_a_say_in_anothers_noise(copies, mechanism):
    half = np.flatnonzero(IDS % 2)
    of_all, of_half = assigned(copies), assigned(copies, among=half)
    whole, part = upload(mechanism, of_all), upload(mechanism, of_half, smashed=SMASHED[half])
    keys = list(zip(of_all.ids.tolist(), of_all.copy.tolist(), strict=True))
    places = [keys.index(key) for key in zip(of_half.ids, of_half.copy, strict=True)]
    assert len(places) == len(half) * (3 if copies == "replicate" else 1)
    assert (part == whole[places]).all()


def test_without_a_mechanism_nothing_is_changed():
    of_all = assigned("replicate")
    assert (upload(None, of_all) == SMASHED[of_all.rows]).all()


@pytest.mark.parametrize("mechanism", [None, LAPLACE, GAUSSIAN])
def test_no_rows_are_an_array_of_none(mechanism):
    assert mask(SMASHED, assigned(), mechanism, SECRET, 0, 5, 5).shape == (0, 2, 3, 4)


def test_records_are_asked_for_a_few_at_a_time():
    class Computed:
        largest = 0

        def __getitem__(self, rows):
            self.largest = max(self.largest, len(rows))
            return SMASHED[rows]

    records, of_all = Computed(), assigned("replicate")
    assert (upload(LAPLACE, of_all, smashed=records) == upload(LAPLACE, of_all)).all()
    assert 0 < records.largest <= 256


@pytest.mark.parametrize(
    ("mechanism", "family"), [(LAPLACE, stats.laplace), (GAUSSIAN, stats.norm)]
)
@pytest.mark.parametrize("copies", COPIES)
def test_what_is_added_to_the_clipped_records_is_the_stated_noise(copies, mechanism, family):
    of_all = assigned(copies)
    added = upload(mechanism, of_all) - mechanism.clip_records(SMASHED)[of_all.rows]
    assert stats.kstest(added.ravel(), family(scale=mechanism.scale).cdf).pvalue > 0.01


# The server.


def test_each_copy_and_each_generation_has_noise_of_its_own():
    """Else copies of a record would pair up, and differences of uploads be free of noise."""
    clipped = LAPLACE.clip_records(SMASHED)
    noises = []
    for generation in (0, 1):
        of_all = assigned("replicate", generation)
        added = upload(LAPLACE, of_all, generation) - clipped[of_all.rows]
        order = np.lexsort((of_all.ids, of_all.copy))
        noises.extend(added[order].reshape(3, -1))
    correlations = np.corrcoef(noises)
    assert (abs(correlations - np.eye(6)) < 0.03).all()


def guesses(assignment, generation):
    """Yield what noise a server might compute that knows everything but the secret."""
    size = SMASHED[0].size
    numbers = [SEED, derive_seed(SEED, "noise"), derive_seed(SEED, "noise", 0, generation)]
    secrets = [number.to_bytes(32, order) for number in numbers for order in ("little", "big")]
    # Sample ids are public in a simulation, and pseudonyms always.
    for secret in [*secrets, bytes(32), bytes(16)]:
        for ids in (assignment.ids, assignment.pseudonyms):
            for purpose in (("noise", generation, 0), ("noise", generation), ("noise",)):
                drawn = uniforms(secret, ids, size, *purpose)
                yield LAPLACE.noise(drawn).reshape(-1, 2, 3, 4)
    for number in numbers:
        noise = np.random.default_rng(number).laplace(size=(len(assignment.rows), 2, 3, 4))
        yield noise * LAPLACE.scale


def test_a_server_that_knows_the_seed_cannot_subtract_the_noise():
    generation = 2
    of_all = assigned("partition", generation)
    received = upload(LAPLACE, of_all, generation)
    true = LAPLACE.clip_records(SMASHED)[of_all.rows]
    # The mean size of the noise. Who guesses wrong adds noise to noise.
    blind = abs(received - true).mean()
    assert blind == pytest.approx(LAPLACE.scale, rel=0.05)
    tried = 0
    for noise in guesses(of_all, generation):
        assert abs(received - noise - true).mean() > 1.3 * blind
        assert abs(np.corrcoef((received - true).ravel(), noise.ravel())[0, 1]) < 0.04
        tried += 1
    assert tried == 51
    # Who has the secret, and does the same.
    drawn = uniforms(SECRET, of_all.ids, SMASHED[0].size, "noise", generation, 0)
    recovered = received - LAPLACE.noise(drawn).reshape(received.shape)
    assert abs(recovered - true).max() <= LAPLACE.scale * 2.0**-16
    # But not with the secret of another client.
    other = uniforms(SHARED, of_all.ids, SMASHED[0].size, "noise", generation, 0)
    assert abs(received - LAPLACE.noise(other).reshape(received.shape) - true).mean() > blind


# What is refused.


def test_bad_input_is_refused():
    of_all = assigned()
    for start, stop in ((-1, 3), (4, 3), (0, 601)):
        with pytest.raises(ValueError, match=f"rows {start} to {stop} of 600"):
            mask(SMASHED, of_all, LAPLACE, SECRET, 0, start, stop)
    with pytest.raises(ValueError, match="generation -1"):
        mask(SMASHED, of_all, LAPLACE, SECRET, -1, 0, 1)
    with pytest.raises(UserError, match=r"^secret='5 bytes'"):
        mask(SMASHED, of_all, LAPLACE, b"short", 0, 0, 1)
    with pytest.raises(UserError, match=r"^smashed data hold numbers that are not finite"):
        mask(np.full_like(SMASHED, np.nan), of_all, LAPLACE, SECRET, 0, 0, 1)
