"""Numbers rounded on their way: how far, what is left alone, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from split_unlearning.models.training import FLOAT_CODECS
from split_unlearning.transport.floats import pack, pack_arrays, unpack, unpack_arrays
from split_unlearning.transport.frame import decode, encode
from split_unlearning.transport.ledger import Ledger
from split_unlearning.transport.link import LinkError
from tests.transport.loopback import LoopbackLink

ROUNDED = [codec for codec in FLOAT_CODECS if codec != "float32"]
ROWS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=4),
    # The very largest may be rounded up to infinity.
    elements=st.floats(-(2.0**127), 2.0**127, width=32),
)


def there(array, codec):
    """The array as it arrives in a frame."""
    frame = encode(pack({"a": torch.from_numpy(array)}, codec))
    return unpack(decode(bytes(frame)).tensors)["a"].numpy()


@given(array=ROWS)
def test_in_float32_nothing_changes(array):
    assert there(array, "float32").tobytes() == array.tobytes()
    assert pack_arrays({"a": array}, "float32")["a"] is array


@given(array=ROWS)
def test_bfloat16_is_off_by_a_256th_of_each_number(array):
    off = np.abs(there(array, "bfloat16").astype(np.float64) - array)
    # Below the last of normal numbers there is less to round to.
    ordinary = np.abs(array) >= 2.0**-126
    assert np.all(off[ordinary] <= np.abs(array[ordinary]) * 2.0**-8)


@given(array=ROWS)
def test_float16_is_off_by_a_2048th_of_each_number_or_less_of_its_rows_largest(array):
    off = np.abs(there(array, "float16").astype(np.float64) - array)
    rows = np.abs(array.reshape(len(array), int(np.prod(array.shape[1:]))).astype(np.float64))
    largest = rows.max(axis=1, initial=0).reshape(-1, *[1] * (array.ndim - 1))
    # Numbers much smaller than their row's largest, and those of rows below all normal numbers,
    # have a last digit that does not shrink with them.
    bound = np.maximum(np.abs(array) * 2.0**-11, np.maximum(largest * 2.0**-24, 2.0**-149))
    assert np.all(off <= bound)


@pytest.mark.parametrize("codec", ROUNDED)
@given(array=ROWS, cut=st.integers(0, 4))
def test_a_row_is_the_same_whatever_comes_with_it(codec, array, cut):
    apart = [there(part, codec) for part in (array[:cut], array[cut:])]
    assert np.concatenate(apart).tobytes() == there(array, codec).tobytes()


@pytest.mark.parametrize("codec", FLOAT_CODECS)
@given(array=ROWS)
def test_a_message_carries_what_a_frame_does(codec, array):
    labels = np.arange(3)
    arrived = unpack_arrays(pack_arrays({"a": array, "labels": labels}, codec))
    assert arrived["a"].tobytes() == there(array, codec).tobytes()
    assert arrived["a"].shape == array.shape
    assert arrived["labels"].tobytes() == labels.tobytes()


@pytest.mark.parametrize("codec", ROUNDED)
def test_it_takes_half_the_bytes(codec):
    array = np.ones((64, 8, 16, 16), np.float32)
    sent = pack_arrays({"a": array}, codec)
    assert sum(part.nbytes for part in sent.values()) <= array.nbytes / 2 + len(array)


@pytest.mark.parametrize("codec", ROUNDED)
def test_numbers_at_the_borders_of_float32_arrive(codec):
    array = np.array([[3e38, -1e38], [0.0, 0.0], [1e-38, -1e-38], [70000.0, 1e-9]], np.float32)
    assert there(array, codec) == pytest.approx(array, rel=2.0**-8, abs=70000 * 2.0**-24)


@pytest.mark.parametrize("codec", ROUNDED)
def test_what_is_not_finite_stays_so(codec):
    array = np.array([[np.inf, 1], [np.nan, 1], [-np.inf, 0]], np.float32)
    assert np.array_equal(np.isfinite(there(array, codec)), np.isfinite(array))


@pytest.mark.parametrize("codec", ROUNDED)
def test_only_rows_of_float32_are_rounded(codec):
    tensors = {"labels": torch.arange(4), "one": torch.rand(3), "fine": torch.rand(2, 2).double()}
    packed = pack(tensors, codec)
    assert packed.keys() == tensors.keys()
    assert all(packed[name] is tensors[name] for name in tensors)


@pytest.mark.parametrize("codec", FLOAT_CODECS)
def test_a_link_rounds_both_ways_and_the_handler_sees_float32(codec):
    seen = []

    def handler(caller, tensors, fields):
        seen.append((tensors, fields))
        return {"gradient": tensors["smashed"] / 3}, {"said": "so"}

    smashed = torch.rand(4, 5) * 1e-7
    ledger = Ledger()
    with LoopbackLink(handler, ledger, client=0, phase="learn", codec=codec) as link:
        reply, fields = link.exchange({"smashed": smashed}, {"step": "1"})
    ((tensors, asked),) = seen
    assert asked == {"step": "1"}
    assert fields == {"said": "so"}
    assert tensors["smashed"].dtype == reply["gradient"].dtype == torch.float32
    assert np.array_equal(tensors["smashed"].numpy(), there(smashed.numpy(), codec))
    assert np.array_equal(reply["gradient"].numpy(), there((tensors["smashed"] / 3).numpy(), codec))


WRONG = {
    "another type": {"a/bfloat16": torch.zeros(2, 2)},
    "half, of another type": {"a/float16": torch.zeros(2, 2), "a/exponents": torch.zeros(2).char()},
    "no exponents": {"a/float16": torch.zeros(2, 2).half()},
    "too few": {"a/float16": torch.zeros(2, 2).half(), "a/exponents": torch.zeros(1).char()},
    "no integers": {"a/float16": torch.zeros(2, 2).half(), "a/exponents": torch.zeros(2)},
    "out of range": {
        "a/float16": torch.zeros(1, 2).half(),
        "a/exponents": torch.tensor([-128], dtype=torch.int8),
    },
}


@pytest.mark.parametrize("tensors", WRONG.values(), ids=WRONG)
def test_what_does_not_fit_blames_who_sent_it(tensors):
    with pytest.raises(ValueError, match=r"^tensor 'a/"):
        unpack(tensors)
    link = LoopbackLink(lambda *_: ({}, {}), Ledger(), client=0, phase="learn")
    with link, pytest.raises(LinkError, match="the server refused: tensor 'a/"):
        link.exchange(tensors)


def test_a_codec_that_there_is_not_blames_who_named_it():
    link = LoopbackLink(lambda *_: ({}, {}), Ledger(), client=0, phase="learn")
    with link, pytest.raises(LinkError, match="rounded-to='int4' is not possible; allowed: float"):
        link.exchange({}, {"rounded-to": "int4"})
