"""Frames survive the round trip, bit for bit; malformed ones get no further than FrameError."""

import contextlib
import io
import json
import warnings

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.transport.frame import FrameError, decode, encode, read

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
DTYPES = [*FLOATS, *INTEGERS, torch.bool]

names = st.text(st.characters(codec="utf-8"), max_size=12).filter(lambda n: n != "__metadata__")
texts = st.text(st.characters(codec="utf-8"), max_size=20)


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    if dtype in FLOATS:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2 if dtype is torch.bool else 127, shape, generator=generator).to(dtype)


def same(left, right):
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and torch.equal(left.view(-1).view(torch.uint8), right.view(-1).view(torch.uint8))
    )


def all_same(left, right):
    return set(left) == set(right) and all(same(left[name], right[name]) for name in left)


def sent(tensors, fields=None):
    return bytes(encode(tensors, fields))


def frame(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


SAMPLE = sent(
    {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([True, False]), "": torch.tensor(7)},
    {"turn": "3", "é": "ü"},
)


@given(st.dictionaries(names, tensors(), max_size=5), st.dictionaries(names, texts, max_size=5))
def test_round_trip_keeps_tensors_and_fields(tensors, fields):
    received = decode(sent(tensors, fields))
    assert all_same(received.tensors, tensors)
    assert received.fields == fields


@given(st.dictionaries(names, tensors(), max_size=4), st.dictionaries(names, texts, max_size=3))
def test_safetensors_package_reads_our_frames(tensors, fields):
    assert all_same(safetensors.torch.load(sent(tensors, fields)), tensors)


@given(st.dictionaries(names, tensors(), max_size=4), st.dictionaries(names, texts, max_size=3))
def test_we_read_the_safetensors_packages_frames(tensors, fields):
    # Given empty fields instead of none, the package can write a header that is not JSON.
    received = decode(safetensors.torch.save(tensors, fields or None))
    assert all_same(received.tensors, tensors)
    assert received.fields == fields


@given(st.dictionaries(names, tensors(), max_size=4), st.dictionaries(names, texts, max_size=1))
def test_our_frames_are_the_packages_bytes(tensors, fields):
    # Of several fields the package writes one or another first.
    assert sent(tensors, fields) == safetensors.torch.save(tensors, fields or None)


@given(st.lists(st.dictionaries(names, tensors(), max_size=3), max_size=4))
def test_frames_are_read_from_a_stream_one_after_the_other(several):
    frames = [sent(tensors, {"turn": str(turn)}) for turn, tensors in enumerate(several)]
    stream = io.BytesIO(b"".join(frames))
    for turn, tensors in enumerate(several):
        received = read(stream)
        assert all_same(received.tensors, tensors)
        assert received.fields == {"turn": str(turn)}
        assert received.size == len(frames[turn]) == len(encode(tensors, received.fields))
    with pytest.raises(EOFError):
        read(stream)


def test_what_is_larger_than_the_limit_is_not_read():
    stream = io.BytesIO(frame({"x": entry(shape=(2**40,), offsets=(0, 2**42))}))
    with pytest.raises(FrameError, match=r"larger than the limit of 1000$"):
        read(stream, max_bytes=1000)
    with pytest.raises(FrameError, match=r"header has 18446744073709551615 bytes"):
        read(io.BytesIO(b"\xff" * 100))


def test_special_values_survive_bit_for_bit():
    bits = torch.tensor([0x7FC00001, -1, 0, -(2**31), 1], dtype=torch.int32)
    received = decode(sent({"x": bits.view(torch.float32)})).tensors
    assert torch.equal(received["x"].view(torch.int32), bits)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.t(),
        lambda x: x[::2, 1:],
        lambda x: x[:1].expand(3, 6),
        lambda x: x.flip(0),
        lambda x: torch.complex(x, x).conj().imag,
        lambda x: x.requires_grad_(),
        torch.nn.Parameter,
    ],
)
def test_any_dense_view_is_sent_by_value(view):
    whole = view(torch.arange(24.0).reshape(4, 6))
    received = decode(sent({"x": whole})).tensors
    assert torch.equal(received["x"], whole)
    assert not received["x"].requires_grad


def test_received_tensors_are_aligned_writable_and_their_own():
    tensors = {"a": torch.zeros(3, dtype=torch.int8), "b": torch.zeros(5), "c": torch.zeros(7)}
    data = sent(tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        received = decode(data).tensors
    assert all(tensor.data_ptr() % 64 == 0 for tensor in received.values())
    received["b"].fill_(1.0)
    assert all_same(decode(data).tensors, tensors)
    assert torch.equal(received["c"], tensors["c"])


def test_what_is_read_of_one_frame_does_not_change_with_what_is_read_of_another():
    data = sent({}, {"turn": "3"})
    decode(data).fields.clear()
    assert decode(data).fields == {"turn": "3"}


def test_tensors_that_share_memory_are_sent_by_value():
    whole = torch.arange(6.0)
    tensors = {"a": whole, "b": whole, "c": whole[2:], "d": whole.view(2, 3)}
    received = decode(sent(tensors)).tensors
    received["a"].zero_()
    assert all(torch.equal(received[name], tensors[name]) for name in "bcd")


@pytest.mark.parametrize(
    ("tensors", "fields"),
    [
        ({"x": torch.zeros(1, device="meta")}, None),
        ({"x": torch.zeros(2, 2).to_sparse()}, None),
        ({"x": torch.zeros(1, dtype=torch.complex128)}, None),
        ({"x": [1.0]}, None),
        ({1: torch.zeros(1)}, None),
        ({"__metadata__": torch.zeros(1)}, None),
        ({"\ud800": torch.zeros(1)}, None),
        ({}, {"turn": 3}),
        ({}, {3: "turn"}),
        ({}, {"turn": "\ud800"}),
        ({}, {"turn": "3" * 2**20}),
        ({"x" * 2**20: torch.zeros(1)}, None),
    ],
)
def test_what_no_frame_holds_is_refused(tensors, fields):
    with pytest.raises(FrameError) as refused:
        encode(tensors, fields)
    assert "\n" not in str(refused.value)


def test_limit_is_inclusive_and_names_both_sizes():
    decode(SAMPLE, max_bytes=len(SAMPLE))
    with pytest.raises(FrameError, match=rf"{len(SAMPLE)} bytes .* {len(SAMPLE) - 1}$"):
        decode(SAMPLE, max_bytes=len(SAMPLE) - 1)


@pytest.mark.parametrize(
    "data",
    [
        # Refused by the package's reader, too.
        b"",
        b"\xff" * 8,
        frame(b"["),
        frame({}, b"left over"),
        frame({"a": entry(dtype="F99\n")}, bytes(4)),
        frame({"a": entry(), "b": entry()}, bytes(4)),
        frame({"__metadata__": {"x": 1}}),
        frame({"__metadata__": ["x"]}),
        frame({"a": 4}, bytes(4)),
        frame({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
        frame({"a": entry(shape=(-1,))}, bytes(4)),
        frame({"a": entry(shape=(1.0,))}, bytes(4)),
        frame({"a": entry(shape=(True,))}, bytes(4)),
        frame({"a": entry(offsets=(0, 4, 8))}, bytes(4)),
        frame({"a": entry(offsets=(4, 8))}, bytes(8)),
        frame({"a": entry(), "b": entry(offsets=(2, 6))}, bytes(6)),
        frame({"a": entry(shape=(2,))}, bytes(8)),
        frame(b"\xff{}"),
        # Which it may let pass.
        frame({"a": {**entry(), "more": 1}}, bytes(4)),
        frame(b'{"__metadata__":{"x":"1","x":"2"}}'),
        # Known to the format but not to torch.
        frame({"a": entry(dtype="F8_E8M0", shape=(4,))}, bytes(4)),
        frame({"a": entry(dtype="F4", shape=(2,), offsets=(0, 1))}, bytes(1)),
        frame({"a": entry(shape=(0, 2**62, 2**62), offsets=(0, 0))}),
        frame({"a": entry(shape=(0, 2**63), offsets=(0, 0))}),
        # Known to both, and yet nothing that a kernel expects.
        frame({"a": entry(dtype="BOOL", offsets=(0, 1))}, b"\x02"),
        frame({"a": entry(dtype="BOOL", shape=(999,), offsets=(0, 999))}, bytes(998) + b"\xff"),
    ],
)
def test_malformed_frames_are_refused_in_one_line(data):
    with pytest.raises(FrameError) as refused:
        decode(data)
    assert str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("header", [b"{}", b' {"__metadata__":null} ', b'{"__metadata__":{}}'])
def test_no_fields_are_an_empty_dict(header):
    received = decode(frame(header))
    assert (received.tensors, received.fields) == ({}, {})


@pytest.mark.parametrize("extra", [b'"\\ud800"', b"9" * 5000, b"[" * 5000 + b"]" * 5000, b"NaN"])
def test_what_the_two_json_readers_judge_differently_is_no_other_error(extra):
    text = json.dumps({"a": entry()}).encode()
    with contextlib.suppress(FrameError):
        decode(frame(text[:-2] + b',"extra":' + extra + b"}}", bytes(4)))


def test_more_dimensions_than_torch_computes_with_are_no_other_error():
    for start in range(64):  # whichever addresses these get, some are copied
        with contextlib.suppress(FrameError):
            decode(frame({"a": entry(shape=(1,) * (65 + start))}, bytes(4)))


@given(st.integers(0, len(SAMPLE) - 1))
def test_every_truncation_is_refused(length):
    with pytest.raises(FrameError):
        decode(SAMPLE[:length])


def require_refused_or_as_the_package_reads_it(data):
    try:
        received = decode(data)
    except FrameError:
        return
    assert all_same(received.tensors, safetensors.torch.load(data))
    again = decode(sent(received.tensors, received.fields))
    assert all_same(again.tensors, received.tensors)
    assert again.fields == received.fields


@settings(max_examples=1000)
@given(
    st.lists(
        st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=4
    )
)
def test_mutated_frames_are_refused_or_well_formed(changes):
    data = bytearray(SAMPLE)
    for position, value in changes:
        data[position] = value
    require_refused_or_as_the_package_reads_it(bytes(data))


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_well_formed(data):
    require_refused_or_as_the_package_reads_it(data)
