"""Tokens as bytes and as text: the wire form, and the file forms that speech language models use. No torch, no I/O.

One token is one 16-bit code, 0..65535, 50 a second. Inside the project tokens are np.uint16 (n,). The forms are:

    raw    little-endian uint16, nothing else: the wire, and `.tok` files
    npy    numpy's own, one integer array (`allow_pickle` is never on)
    pt     torch's zip of one integer tensor, as NeuTTS ships voices (read only: neucodec_streaming.torch_file)
    text   `<|speech_12345|>`, as NeuTTS models print

What cannot be used raises TokenError with the offending value.
"""

import io
import re
from typing import Any

import numpy as np

from neucodec_streaming.audio import as_array
from neucodec_streaming.config import CODEBOOK_SIZE
from neucodec_streaming.errors import TokenError

_WIRE = np.dtype("<u2")
_SPEECH = re.compile(r"<\|speech_(-?\d{1,18})\|>")
_MAX_TAG_LENGTH = 64


def check_tokens(tokens: Any) -> np.ndarray:
    """Tokens as uint16 (n,), in place if they are that; integers in an array (n,), (1, n) or (1, 1, n), a torch tensor
    or a list are converted. Raises TokenError with the offending value.
    """
    tokens = as_array(tokens, "tokens are a", TokenError)
    if tokens.dtype.kind not in "iu":
        raise TokenError(f"tokens are of type {tokens.dtype}: give integers from 0 to {CODEBOOK_SIZE - 1}")
    if tokens.ndim == 0 or any(size != 1 for size in tokens.shape[:-1]):
        raise TokenError(f"tokens have shape {tokens.shape}: give one sequence of shape (n,)")
    tokens = tokens.reshape(-1)
    if tokens.dtype == np.uint16:
        return tokens
    outside = np.flatnonzero((tokens < 0) | (tokens >= CODEBOOK_SIZE))
    if outside.size:
        where = outside[0]
        raise TokenError(f"token {where} of {tokens.size} is {tokens[where]}: a token is from 0 to {CODEBOOK_SIZE - 1}")
    return tokens.astype(np.uint16)


def tokens_from_bytes(payload: bytes | bytearray | memoryview) -> np.ndarray:
    """Little-endian uint16 -> uint16 (n,), a copy. Raises TokenError on an odd number of bytes."""
    if len(payload) % _WIRE.itemsize:
        raise TokenError(f"{len(payload)} bytes are no whole number of tokens of 2 bytes: cut packets between tokens")
    return np.frombuffer(payload, _WIRE).astype(np.uint16)


def tokens_to_bytes(tokens: np.ndarray) -> bytes:
    """Tokens (n,) -> 2 n bytes, little-endian uint16."""
    return check_tokens(tokens).astype(_WIRE).tobytes()


def tokens_from_npy(payload: bytes) -> np.ndarray:
    """The bytes of a `.npy` file with one integer array -> uint16 (n,); pickled objects are refused."""
    try:
        array = np.load(io.BytesIO(payload), allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError, OverflowError) as error:
        raise TokenError(f"this is no .npy file of numbers ({error}): save one with numpy.save(path, tokens)") from None
    return check_tokens(array)


def tokens_to_npy(tokens: np.ndarray) -> bytes:
    """Tokens (n,) -> the bytes of a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, check_tokens(tokens), allow_pickle=False)
    return buffer.getvalue()


def tokens_to_text(tokens: np.ndarray) -> str:
    """Tokens (n,) -> `<|speech_N|>` for each, on one line."""
    return "".join(f"<|speech_{token}|>" for token in check_tokens(tokens).tolist())


class TokenText:
    """Tokens out of text that arrives in pieces, as a language model prints it: feed(text) -> uint16 (n,).

    Whatever is no `<|speech_N|>` is skipped, since models print other tags around them; a number that is no token
    raises TokenError.
    """

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, text: str) -> np.ndarray:
        """The tokens that are complete now; the start of an incomplete one waits for the next piece."""
        text = self._rest + text
        numbers, end = [], 0
        for match in _SPEECH.finditer(text):
            numbers.append(int(match[1]))
            end = match.end()
        opening = text.rfind("<", max(end, len(text) - _MAX_TAG_LENGTH))
        self._rest = text[opening:] if opening >= 0 else ""
        return check_tokens(np.array(numbers, np.int64))


def tokens_from_text(text: str) -> np.ndarray:
    """All tokens of a text -> uint16 (n,). Raises TokenError when it is not empty and holds none."""
    tokens = TokenText().feed(text)
    if not tokens.size and text.strip():
        raise TokenError(f"no <|speech_N|> in the text that starts with {text.strip()[:40]!r}")
    return tokens
