"""Tokens as bytes, text and .npy."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neucodec_streaming.errors import TokenError
from neucodec_streaming.tokens import (
    TokenText,
    check_tokens,
    tokens_from_bytes,
    tokens_from_npy,
    tokens_from_text,
    tokens_to_bytes,
    tokens_to_npy,
    tokens_to_text,
)

EVERY = np.arange(65_536).astype(np.uint16)


def npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_every_token_survives_every_form():
    assert np.array_equal(tokens_from_bytes(tokens_to_bytes(EVERY)), EVERY)
    assert np.array_equal(tokens_from_npy(tokens_to_npy(EVERY)), EVERY)
    assert np.array_equal(tokens_from_text(tokens_to_text(EVERY)), EVERY)


def test_the_wire_is_little_endian():
    assert tokens_to_bytes(np.array([0x1234, 1])) == b"\x34\x12\x01\x00"


def test_the_text_form_is_that_of_neutts():
    assert tokens_to_text(np.array([12345, 7])) == "<|speech_12345|><|speech_7|>"


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.uint8, ">i4"])
@pytest.mark.parametrize("shape", [(4,), (1, 4), (1, 1, 4)])
def test_any_integer_type_and_the_shapes_of_one_sequence_are_taken(dtype, shape):
    tokens = check_tokens(np.array([0, 1, 2, 255]).astype(dtype).reshape(shape))
    assert tokens.dtype == np.uint16
    assert tokens.tolist() == [0, 1, 2, 255]


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (np.array([0, 65_536]), "token 1 of 2 is 65536"),
        (np.array([-1]), "token 0 of 1 is -1"),
        (np.array([2**40]), str(2**40)),
        (np.array([1.0]), "float64"),
        (np.array([True]), "bool"),
        (np.array(5), r"\(\)"),
        (np.zeros((2, 3), int), r"\(2, 3\)"),
        (["1"], "list"),
        ([1.5], "float64"),
        ([2**70], "type object"),
    ],
)
def test_what_is_no_token_is_named(tokens, says):
    with pytest.raises(TokenError, match=says):
        check_tokens(tokens)


def test_an_odd_number_of_bytes_is_named():
    with pytest.raises(TokenError, match="3 bytes"):
        tokens_from_bytes(b"abc")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        npy(np.array([1.5])),
        npy(np.array([{}], object), allow_pickle=True),
        npy(EVERY)[:-1],
        npy(EVERY).replace(b"(65536,), ", b"(9999999999999,), "),
    ],
    ids=["empty", "nonsense", "floats", "pickled objects", "cut", "far fewer than it says"],
)
def test_an_npy_file_of_anything_else_is_refused(payload):
    with pytest.raises(TokenError):
        tokens_from_npy(payload)


def test_text_around_the_tokens_is_skipped():
    text = "<|SPEECH_GENERATION_START|><|speech_1|> \n<|speech_22|>, <|speech_|><|speech_333|><|SPEECH_GENERATION_END|>"
    assert tokens_from_text(text).tolist() == [1, 22, 333]


@pytest.mark.parametrize("text", ["hello", "<|speech_x|>"])
def test_text_without_a_token_is_refused_but_empty_text_is_not(text):
    with pytest.raises(TokenError, match="no <"):
        tokens_from_text(text)
    assert tokens_from_text(" \n").size == 0


@pytest.mark.parametrize("number", ["65536", "-3", "99999999999999999"])
def test_a_number_that_is_no_token_is_named(number):
    with pytest.raises(TokenError, match=number):
        tokens_from_text(f"<|speech_{number}|>")


@settings(max_examples=50, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 400), max_size=20), seed=st.integers(0, 5))
def test_text_cut_anywhere_gives_the_same_tokens(cuts, seed):
    tokens = np.random.default_rng(seed).integers(0, 65_536, 20).astype(np.uint16)
    text = tokens_to_text(tokens).replace("|><", "|> < <|other|><", 3)
    reader, edges = TokenText(), sorted(min(cut, len(text)) for cut in cuts)
    pieces = [text[a:b] for a, b in zip([0, *edges], [*edges, len(text)], strict=True)]
    assert np.array_equal(np.concatenate([reader.feed(piece) for piece in pieces]), tokens)


def test_endless_text_without_tokens_takes_no_memory():
    reader = TokenText()
    for _ in range(100):
        reader.feed("<" * 1000)
    assert len(reader._rest) <= 64
