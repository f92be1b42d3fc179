"""Frames survive the round trip, bit for bit; malformed ones get no further than FrameError."""

import json
import warnings

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transport.codec import FrameError, decode, encode

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
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


def frame(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


SAMPLE = encode(
    {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([True, False]), "": torch.tensor(7)},
    {"turn": "3", "é": "ü"},
)


@given(st.dictionaries(names, tensors(), max_size=5), st.dictionaries(names, texts, max_size=5))
def test_round_trip_keeps_tensors_fields_and_order(sent, fields):
    received, read = decode(encode(sent, fields))
    assert list(received) == list(sent)
    assert all(same(received[name], sent[name]) for name in sent)
    assert list(read.items()) == list(fields.items())


@given(st.dictionaries(names, tensors(), max_size=4), st.dictionaries(names, texts, max_size=3))
def test_safetensors_package_reads_our_frames(sent, fields):
    received = safetensors.torch.load(encode(sent, fields))
    assert set(received) == set(sent)
    assert all(same(received[name], sent[name]) for name in sent)


@given(st.dictionaries(names, tensors(), max_size=4), st.dictionaries(names, texts, max_size=3))
def test_we_read_the_safetensors_packages_frames(sent, fields):
    # Given empty fields instead of none, the package can write a header that is not JSON.
    received, read = decode(safetensors.torch.save(sent, fields or None))
    assert set(received) == set(sent)
    assert all(same(received[name], sent[name]) for name in sent)
    assert read == fields


def test_special_values_survive_bit_for_bit():
    bits = torch.tensor([0x7FC00001, -1, 0, -(2**31), 1], dtype=torch.int32)
    received, _ = decode(encode({"x": bits.view(torch.float32)}))
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
    sent = view(torch.arange(24.0).reshape(4, 6))
    received, _ = decode(encode({"x": sent}))
    assert torch.equal(received["x"], sent)
    assert not received["x"].requires_grad


def test_received_tensors_are_aligned_writable_and_their_own():
    sent = {"a": torch.zeros(3, dtype=torch.int8), "b": torch.zeros(5), "c": torch.zeros(7)}
    data = encode(sent)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        received, _ = decode(data)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in received.values())
    received["b"].fill_(1.0)
    assert all(torch.equal(decode(data)[0][name], sent[name]) for name in sent)
    assert torch.equal(received["c"], sent["c"])


def test_every_tensor_lies_at_a_multiple_of_its_element_size():
    sent = {
        "a": torch.zeros(3, dtype=torch.int8),
        "b": torch.zeros(1),
        "c": torch.zeros(1).double(),
    }
    data = encode(sent)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    for name, tensor in sent.items():
        assert (start + header[name]["data_offsets"][0]) % tensor.element_size() == 0


@pytest.mark.parametrize(
    ("tensors", "fields"),
    [
        ({"x": torch.zeros(1, device="meta")}, None),
        ({"x": torch.zeros(2, 2).to_sparse()}, None),
        ({"x": torch.zeros(1, dtype=torch.complex64)}, None),
        ({"x": [1.0]}, None),
        ({1: torch.zeros(1)}, None),
        ({"__metadata__": torch.zeros(1)}, None),
        ({"\ud800": torch.zeros(1)}, None),
        ({}, {"turn": 3}),
        ({}, {3: "turn"}),
        ({}, {"turn": "\ud800"}),
    ],
)
def test_what_no_frame_holds_is_refused(tensors, fields):
    with pytest.raises(FrameError):
        encode(tensors, fields)


def test_limit_is_inclusive_and_names_both_sizes():
    decode(SAMPLE, max_bytes=len(SAMPLE))
    with pytest.raises(FrameError, match=rf"{len(SAMPLE)} bytes .* {len(SAMPLE) - 1}$"):
        decode(SAMPLE, max_bytes=len(SAMPLE) - 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        b"\xff" * 8,
        (2**40).to_bytes(8, "little") + b"{}",
        frame(b""),
        frame(b"\xff\xfe"),
        frame(b"["),
        frame(b"[" * 100_000),
        frame(b'{"a":' + b"9" * 5000 + b"}"),
        frame([]),
        frame({}, b"left over"),
        frame({"a": 1}),
        frame({"a": {}}),
        frame({"a": entry(dtype="F99")}, bytes(4)),
        frame({"a": entry(dtype=None)}, bytes(4)),
        frame({"a": entry(shape=(2,))}, bytes(4)),
        frame({"a": entry(shape=(-1,), offsets=(0, -4))}),
        frame({"a": entry(shape=(-1, -1))}, bytes(4)),
        frame({"a": entry(shape=(1.0,))}, bytes(4)),
        frame({"a": entry(shape=(True,))}, bytes(4)),
        frame({"a": entry(shape=(1,) * 65)}, bytes(4)),
        frame({"a": entry(shape=(0, 2**62, 2**62), offsets=(0, 0))}),
        frame({"a": entry(shape=(0, 2**64), offsets=(0, 0))}),
        frame({"a": entry(offsets=(0, 4, 8))}, bytes(4)),
        frame({"a": entry(offsets=(0.0, 4.0))}, bytes(4)),
        frame({"a": entry(offsets=(4, 8))}, bytes(8)),
        frame({"a": entry(offsets=(-4, 0))}, bytes(4)),
        frame({"a": entry()}, bytes(3)),
        frame({"a": entry(), "b": entry()}, bytes(4)),
        frame({"a": entry(), "b": entry(offsets=(5, 9))}, bytes(9)),
        frame({"a": entry(dtype="BOOL", offsets=(0, 1))}, b"\x02"),
        frame(b'{"__metadata__":{"x":"1","x":"2"}}'),
        frame(b'{"__metadata__":{"x":"\\ud800"}}'),
        frame({"__metadata__": {"x": 1}}),
        frame({"__metadata__": "x"}),
        frame({"__metadata__": None}),
    ],
)
def test_malformed_frames_are_refused_in_one_line(data):
    with pytest.raises(FrameError) as refused:
        decode(data)
    assert str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.integers(0, len(SAMPLE) - 1))
def test_every_truncation_is_refused(length):
    with pytest.raises(FrameError):
        decode(SAMPLE[:length])


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=4
    )
)
def test_mutated_frames_are_refused_or_well_formed(changes):
    data = bytearray(SAMPLE)
    for position, value in changes:
        data[position] = value
    try:
        tensors, fields = decode(bytes(data))
    except FrameError:
        return
    again, fields_again = decode(encode(tensors, fields))
    assert all(same(again[name], tensors[name]) for name in tensors)
    assert fields_again == fields


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_well_formed(data):
    try:
        tensors, fields = decode(data)
    except FrameError:
        return
    assert decode(encode(tensors, fields))[1] == fields
