"""Tokens as bytes, text and .npy."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neucodec_streaming.errors import ConfigError, TokenError
from neucodec_streaming.tokens import (
    TokenLists,
    TokenText,
    check_tokens,
    tokens_from_bytes,
    tokens_from_json,
    tokens_from_npy,
    tokens_from_text,
    tokens_to_bytes,
    tokens_to_json,
    tokens_to_npy,
    tokens_to_text,
)

EVERY = np.arange(65_536).astype(np.uint16)


def npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_every_token_survives_a_round_trip_in_every_format():
    assert np.array_equal(tokens_from_bytes(tokens_to_bytes(EVERY)), EVERY)
    assert np.array_equal(tokens_from_npy(tokens_to_npy(EVERY)), EVERY)
    assert np.array_equal(tokens_from_text(tokens_to_text(EVERY)), EVERY)


def test_the_wire_is_little_endian():
    assert tokens_to_bytes(np.array([0x1234, 1])) == b"\x34\x12\x01\x00"


def test_the_text_format_is_that_of_neutts():
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
def test_an_invalid_token_is_named(tokens, says):
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
        npy(EVERY).replace(b"{'descr'", b"\xe7'descr'"),
    ],
    ids=["empty", "nonsense", "floats", "pickled objects", "cut", "far fewer than it says", "header"],
)
def test_an_npy_file_of_anything_else_is_refused(payload):
    with pytest.raises(TokenError):
        tokens_from_npy(payload)


def test_text_around_the_tokens_is_skipped():
    text = "<|SPEECH_GENERATION_START|><|speech_1|> \n<|speech_22|>, <|speech_|><|speech_333|><|SPEECH_GENERATION_END|>"
    assert tokens_from_text(text).tolist() == [1, 22, 333]


@pytest.mark.parametrize("text", ["hello", "<|speech_x|>"])
def test_text_without_a_token_is_refused_but_empty_text_is_not(text):
    with pytest.raises(TokenError, match="no token"):
        tokens_from_text(text)
    assert tokens_from_text(" \n").size == 0


@pytest.mark.parametrize("number", ["65536", "-3", "99999999999999999"])
def test_an_invalid_token_number_is_named(number):
    with pytest.raises(TokenError, match=number):
        tokens_from_text(f"<|speech_{number}|>")


def test_tokens_before_a_bad_one_are_kept_and_positions_count_from_the_start_of_the_stream():
    reader = TokenText()
    assert reader.feed("<|speech_1|><|speech_2|>").tolist() == [1, 2]
    assert reader.feed("<|speech_3|><|speech_65536|><|speech_4|>").tolist() == [3]
    for call in (lambda: reader.feed("<|speech_5|>"), reader.finish):
        with pytest.raises(TokenError, match="token 3 is 65536"):
            call()


def test_text_that_ends_inside_a_token_is_refused():
    reader = TokenText()
    assert reader.feed("<|speech_1|><|speech_12").tolist() == [1]
    with pytest.raises(TokenError, match=r"in the middle of token 1: '<.speech_12'"):
        reader.finish()


def test_tags_of_other_models_are_read():
    assert tokens_from_text("a<|s_7|> <|s_65535|>b").tolist() == [7, 65535]
    assert tokens_from_text("[c7][c8]", ["[c{}]"]).tolist() == [7, 8]
    for tag in ("<|s_|>", "{}", "<{}"):
        with pytest.raises(ConfigError, match="tag"):
            TokenText([tag])


def test_utf_16_is_named():
    with pytest.raises(TokenError, match="is it UTF-16"):
        tokens_from_text("<|speech_1|>".encode("utf-16-le").decode("ascii"))


@pytest.mark.parametrize("text", ["[1, 2, 3]", "[1]\n[2,3]\n", "[[[1, 2, 3]]]", "[1], [2], [],\n[3]\f"])
def test_json_lists_hold_tokens(text):
    assert tokens_from_json(text).tolist() == [1, 2, 3]
    reader = TokenLists()
    assert np.concatenate([*map(reader.feed, text), reader.finish()]).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2.5]", "token 1 is 2.5"),
        ("[1] [true]", "token 1 is True"),
        ("[1] [2, 70000]", "token 2 is 70000"),
        ('["7x"]', "token 0 is 7x"),
        ("[1, 2", r"got '\[1, 2'"),
        ("{}", "got '{}'"),
        ("[1 2]", r"got '\[1 2\]'"),
        ("]", "got ']'"),
        ("[1],", "got ','"),
        ("[[1, 2], [3]]", r"token 0 is \[1, 2\]"),
    ],
)
def test_json_other_than_a_token_list_is_refused_with_its_position(text, says):
    with pytest.raises(TokenError, match=says):
        tokens_from_json(text)


def test_text_that_is_no_list_is_refused_at_once():
    reader = TokenLists()
    assert reader.feed("[1],\n").tolist() == [1]
    with pytest.raises(TokenError, match="got '<html>'"):
        reader.feed("<html>")


def test_json_lists_are_read_back():
    assert np.array_equal(tokens_from_json(tokens_to_json(EVERY)), EVERY)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 400), max_size=20), seed=st.integers(0, 5))
def test_text_cut_anywhere_gives_the_same_tokens(cuts, seed):
    tokens = np.random.default_rng(seed).integers(0, 65_536, 20).astype(np.uint16)
    text = tokens_to_text(tokens).replace("|><", "|> < <|other|><", 3)
    reader, edges = TokenText(), sorted(min(cut, len(text)) for cut in cuts)
    pieces = [text[a:b] for a, b in zip([0, *edges], [*edges, len(text)], strict=True)]
    assert np.array_equal(np.concatenate([*map(reader.feed, pieces), reader.finish()]), tokens)


def test_endless_text_without_tokens_needs_no_memory():
    reader = TokenText()
    for _ in range(100):
        reader.feed("<" * 1000)
    assert len(reader._rest) <= 64
