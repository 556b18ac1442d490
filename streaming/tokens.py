"""Tokens as bytes and text: the wire form, and the forms in files of speech language models. No torch, no I/O.

One token is one 16-bit code, 0..65535, 50 a second. Inside the project tokens are np.uint16 (n,). The forms are:

    raw    little-endian uint16, nothing else: the wire, and `.tok` files
    npy    numpy's own, one integer array (`allow_pickle` is never on)
    pt     torch's zip of one integer tensor, as NeuTTS ships voices (read only: neucodec_streaming.torch_file)
    text   `<|speech_12345|>`, as NeuTTS models print, or tags of other models
    json   `[1, 2, 3]`, or several such lists

Invalid input raises TokenError with the value.
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neucodec_streaming.audio import as_array
from neucodec_streaming.config import CODEBOOK_SIZE, MIN_VOICE_TOKENS, TOKENS_PER_SECOND
from neucodec_streaming.errors import InputError, TokenError
from neucodec_streaming.tags import TAGS, begun_tag, whole_tag

_WIRE = np.dtype("<u2")
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_SHOWN = 60
_BETWEEN_LISTS = " \t\r\n,"


def check_tokens(tokens: Any) -> np.ndarray:
    """Checks tokens and returns them as uint16 (n,), in place if possible; converts integers in an array (n,), (1, n)
    or (1, 1, n), a torch tensor or a list. Raises TokenError with the invalid value.
    """
    tokens = as_array(tokens, "tokens are a", TokenError)
    if tokens.dtype.kind not in "iu":
        raise TokenError(f"tokens have type {tokens.dtype}: pass integers from 0 to {CODEBOOK_SIZE - 1}")
    if tokens.ndim == 0 or any(size != 1 for size in tokens.shape[:-1]):
        raise TokenError(f"tokens have shape {tokens.shape}: pass one sequence of shape (n,)")
    tokens = tokens.reshape(-1)
    if tokens.dtype == np.uint16:
        return tokens
    outside = np.flatnonzero((tokens < 0) | (tokens >= CODEBOOK_SIZE))
    if outside.size:
        where = outside[0]
        raise TokenError(
            f"token {where} of {tokens.size} is {tokens[where]}: tokens range from 0 to {CODEBOOK_SIZE - 1}"
        )
    return tokens.astype(np.uint16)


@dataclass(frozen=True)
class TokenRecord:
    """Tokens of a recording, uint16 (n,), its duration, and the model of the tokens as `ready` names it
    (`Codec.token_model`); "" if unknown.
    """

    id: str
    tokens: np.ndarray
    seconds: float
    model: str


def record_of(tokens: np.ndarray, model: str = "", id: str = "") -> TokenRecord:
    """A record with the duration of its tokens."""
    tokens = check_tokens(tokens)
    return TokenRecord(id, tokens, len(tokens) / TOKENS_PER_SECOND, model)


def check_voice(tokens: Any) -> np.ndarray:
    """Checks tokens for priming and returns them as uint16 (n,). Raises TokenError, and InputError for too few."""
    tokens = check_tokens(tokens)
    if len(tokens) < MIN_VOICE_TOKENS:
        raise InputError(
            f"a voice of {len(tokens)} tokens is too short: use at least {MIN_VOICE_TOKENS}"
            f" ({MIN_VOICE_TOKENS // TOKENS_PER_SECOND} s), ideally five seconds of clean speech"
        )
    return tokens


def tokens_from_bytes(payload: bytes | bytearray | memoryview) -> np.ndarray:
    """Decodes little-endian uint16 to uint16 (n,), a copy. Raises TokenError for an odd number of bytes."""
    if len(payload) % _WIRE.itemsize:
        raise TokenError(f"{len(payload)} bytes are not a whole number of 2-byte tokens: split packets between tokens")
    return np.frombuffer(payload, _WIRE).astype(np.uint16)


def tokens_to_bytes(tokens: np.ndarray) -> bytes:
    """Encodes tokens (n,) as 2 n bytes, little-endian uint16."""
    return check_tokens(tokens).astype(_WIRE).tobytes()


def tokens_from_npy(payload: bytes) -> np.ndarray:
    """Decodes a `.npy` file with one integer array to uint16 (n,); refuses pickled objects."""
    try:
        array = np.load(io.BytesIO(payload), allow_pickle=False)
    except Exception:  # numpy parses the header as Python, which raises many kinds of errors
        raise TokenError(
            "not a .npy file of integers (damaged, or contains objects): save one with numpy.save(path, tokens)"
        ) from None
    return check_tokens(array)


def tokens_to_npy(tokens: np.ndarray) -> bytes:
    """Encodes tokens (n,) as a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, check_tokens(tokens), allow_pickle=False)
    return buffer.getvalue()


def tokens_to_text(tokens: np.ndarray) -> str:
    """Encodes tokens (n,) as `<|speech_N|>` for each, on one line."""
    return "".join(f"<|speech_{token}|>" for token in check_tokens(tokens).tolist())


class _PieceReader:
    """Extracts tokens from text that arrives in pieces: feed(text) -> uint16 (n,), finish().

    An invalid token raises TokenError with its position in the stream, in the call after the one that returned the
    tokens before it.
    """

    _count = 0
    _rest = ""
    _failure: TokenError | None = None

    def feed(self, text: str) -> np.ndarray:
        """The complete tokens; an incomplete one waits for the next piece."""
        if self._failure is not None:
            raise self._failure
        numbers: list[int] = []
        try:
            for value in self._values(self._rest + text):
                numbers.append(_number(value, self._count + len(numbers)))
        except TokenError as error:
            self._failure = error
            if not numbers:
                raise
        self._count += len(numbers)
        return np.array(numbers, np.uint16)

    def _values(self, text: str) -> Iterator[Any]:
        """The complete tokens of a text, unchecked; the rest of it goes into `_rest`."""
        raise NotImplementedError


class TokenText(_PieceReader):
    """Reads tokens as a language model prints them.

    `tags` are patterns of a token with `{}` for its number. Text between tags is skipped, since models print other tags
    too. Raises ConfigError for an invalid tag.
    """

    def __init__(self, tags: Sequence[str] = TAGS) -> None:
        self._tags = tags
        self._whole, self._begun = whole_tag(tags), begun_tag(tags)
        self._first = self._last = ""  # start and end of the text, for the message if it has no token

    def feed(self, text: str) -> np.ndarray:
        self._first = self._first or text.strip()[:_SHOWN]
        self._last = (self._last + text).rstrip()[-_SHOWN:]
        return super().feed(text)

    def _values(self, text: str) -> Iterator[str]:
        end = 0
        for match in self._whole.finditer(text):
            end = match.end()
            yield match[match.lastindex or 0]
        begun = self._begun.search(text, end)
        self._rest = "" if begun is None else begun[0]

    def finish(self) -> np.ndarray:
        """Ends the text. Raises TokenError if it had no token, or ends inside one."""
        tokens = self.feed("")
        if any(digit in self._rest for digit in "0123456789"):
            raise TokenError(f"the text ends in the middle of token {self._count}: {self._rest!r}")
        if not self._count and self._first:
            hint = " (is it UTF-16?)" if "\0" in self._first else ""
            hint = " (a JSON list? its form is json)" if self._first.startswith("[") else hint
            raise TokenError(
                f"no token such as {' or '.join(self._tags)} in the text that starts with {self._first!r} and ends with"
                f" {self._last!r}{hint}"
            )
        return tokens


class TokenLists(_PieceReader):
    """Reads tokens from JSON lists of integers.

    A list counts once it is closed; several may follow one another, as a program prints them line by line.
    """

    def _values(self, text: str) -> Iterator[Any]:
        *pieces, rest = text.split("]")
        pending = ""
        for piece in pieces:
            pending += piece + "]"
            if pending.count("[") <= pending.count("]"):
                yield from self._list(pending.lstrip(_BETWEEN_LISTS))
                pending = ""
        self._rest = (pending + rest).lstrip()
        begun = self._rest.lstrip(_BETWEEN_LISTS)
        if begun and begun[0] != "[":
            raise _no_list(begun)

    def finish(self) -> np.ndarray:
        """Ends the text. Raises TokenError if it ends inside a list."""
        tokens = self.feed("")
        if self._rest:
            raise _no_list(self._rest)
        return tokens

    def _list(self, text: str) -> list[Any]:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _no_list(text, f" ({error})") from None
        while isinstance(values, list) and len(values) == 1 and isinstance(values[0], list):
            values = values[0]
        return values if isinstance(values, list) else [values]


def _no_list(text: str, reason: str = "") -> TokenError:
    return TokenError(f"expected JSON lists of tokens such as [1, 2, 3], got {text.rstrip()[:_SHOWN]!r}{reason}")


def _number(value: Any, position: int) -> int:
    """Checks one token. Raises TokenError naming its position in the stream."""
    text = value if isinstance(value, str) else repr(value)
    is_integer = isinstance(value, str | int) and not isinstance(value, bool) and _INTEGER.fullmatch(text)
    if not is_integer or not 0 <= int(text) < CODEBOOK_SIZE:
        raise TokenError(f"token {position} is {text[:_SHOWN]}: tokens range from 0 to {CODEBOOK_SIZE - 1}")
    return int(text)


def tokens_from_text(text: str, tags: Sequence[str] = TAGS) -> np.ndarray:
    """All tokens of a text as uint16 (n,). Raises TokenError if it is not empty and has none."""
    return _all(TokenText(tags), text)


def tokens_from_json(text: str) -> np.ndarray:
    """Decodes one or several JSON lists of integers to uint16 (n,). Raises TokenError."""
    return _all(TokenLists(), text)


def _all(reader: TokenText | TokenLists, text: str) -> np.ndarray:
    return np.concatenate([reader.feed(text), reader.finish()])


def tokens_to_json(tokens: np.ndarray) -> str:
    """Encodes tokens (n,) as a JSON list on one line."""
    return json.dumps(check_tokens(tokens).tolist())
