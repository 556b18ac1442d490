"""Extracts speech from a language model's streamed answer: HTTP bytes to tokens and ends of utterances. Sans-I/O.

    bytes -> EventParser -> data of server-sent events -> delta_of -> text -> TagScanner -> tokens

AnswerParser combines the three; SpeechLMSpec describes the server and the request. An answer may be split anywhere:
within a tag, an event or a character. Text between tags is skipped, since models print other tags too.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from neucodec_streaming.config import CODEBOOK_SIZE
from neucodec_streaming.errors import ConfigError, SpeechLMError, TokenError
from neucodec_streaming.tags import TAGS, begun_tag, check_tag, whole_tag

APIS = {"completions": "/completions", "chat": "/chat/completions"}
"""API -> path after the base URL (OpenAI's API reference)."""
STOPS = ("<|SPEECH_GENERATION_END|>", "<|speech_end|>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "</s>")
"""Tags that end an utterance, if a server shows them."""
MAX_TOKENS = 2048
"""Limit of an answer unless the template sets another: 41 s of speech. Some servers default to 16 tokens."""
MAX_EVENT_BYTES = 1 << 20
_SHOWN_CHARACTERS = 60
_DONE = "[DONE]"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_PLACEHOLDER = re.compile(r"\{(text|codes|reference_text)\}")


@dataclass(frozen=True)
class SpeechPiece:
    """Consecutive tokens of an answer. `is_end`: the utterance ends after them (the last one ends with the answer)."""

    tokens: list[int]
    is_end: bool = False


class TagScanner:
    """Extracts tokens from text that arrives in pieces.

    `tags` are patterns of a token with `{}` for its number; `stops` end an utterance. Raises ConfigError for a tag
    without a number, or with nothing before or after it.
    """

    def __init__(self, tags: Sequence[str] = TAGS, stops: Sequence[str] = STOPS) -> None:
        self._whole = whole_tag(tags, stops)
        self._begun = begun_tag(tags, stops)
        self._rest = ""
        self._is_within = False
        self.tokens = 0
        """Number of tokens so far."""

    def feed(self, text: str) -> Iterator[SpeechPiece]:
        """The complete tokens; an incomplete tag waits for the next piece. Iterate to the end.

        Raises TokenError for a number outside the codebook, after the tokens before it.
        """
        text = self._rest + text
        tokens: list[int] = []
        end = 0
        for found in self._whole.finditer(text):
            end = found.end()
            if found.lastindex is None:
                if self._is_within:
                    self._is_within = False
                    yield SpeechPiece(tokens, is_end=True)
                    tokens = []
                continue
            number = int(found[found.lastindex])
            if not 0 <= number < CODEBOOK_SIZE:
                self._rest = text[end:]
                if tokens:
                    yield SpeechPiece(tokens)
                raise TokenError(
                    f"token {self.tokens} of the answer is {number}: tokens range from 0 to {CODEBOOK_SIZE - 1}"
                )
            tokens.append(number)
            self._is_within = True
            self.tokens += 1
        begun = self._begun.search(text, end)
        self._rest = text[begun.start() :] if begun is not None else ""
        if tokens:
            yield SpeechPiece(tokens)


class EventParser:
    """Extracts the data of server-sent events (WHATWG HTML, 9.2.6): feed(bytes) -> one text for each event."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[str] = []
        self._bytes = 0
        self._ends_in_return = False
        self._is_first = True

    def feed(self, payload: bytes) -> Iterator[str]:
        """The complete events; iterate to the end. Raises SpeechLMError for an oversized event."""
        if self._ends_in_return:
            payload = payload.removeprefix(b"\n")
        if payload:
            self._ends_in_return = payload.endswith(b"\r")
        *lines, rest = _LINE_END.split(payload)
        for line in lines:
            self._extend(line)
            whole, self._line = bytes(self._line), bytearray()
            if self._is_first:
                self._is_first, whole = False, whole.removeprefix(b"\xef\xbb\xbf")
            if whole:
                self._take(whole)
            elif self._data:
                data, self._data, self._bytes = "\n".join(self._data), [], 0
                yield data
        self._extend(rest)

    def _extend(self, part: bytes) -> None:
        self._line += part
        self._bytes += len(part)
        if self._bytes > MAX_EVENT_BYTES:
            raise SpeechLMError(f"the language model sent an event longer than {MAX_EVENT_BYTES} bytes")

    def _take(self, line: bytes) -> None:
        name, _, value = line.decode("utf-8", "replace").partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
        elif not self._data:
            self._bytes = 0  # comments keep a connection alive for any time


@dataclass(frozen=True)
class TextDelta:
    """The next text of an answer. `reason`: why it ends after this text ("stop", "length"); None while it continues."""

    text: str
    reason: str | None = None


def delta_of(data: str) -> TextDelta:
    """One chunk of a streamed completion, plain or chat; only its first choice.

    Raises SpeechLMError for an error that the server reports in it, and for anything else.
    """
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        chunk = None
    if isinstance(chunk, dict) and chunk.get("error"):
        raise SpeechLMError(f"the language model failed: {error_text(data)}")
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    if not isinstance(choices, list):
        raise SpeechLMError(f"the language model sent {data[:_SHOWN_CHARACTERS]!r}, which is not a completion chunk")
    for choice in choices:
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            delta = choice.get("delta")
            text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
            reason = choice.get("finish_reason")
            return TextDelta(text if isinstance(text, str) else "", reason if isinstance(reason, str) else None)
    return TextDelta("")


def error_text(body: str) -> str:
    """The message of a JSON error in the form of OpenAI, vLLM, FastAPI or llama.cpp; else the start of the body."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    for key in ("error", "detail", "message"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return (found if isinstance(found, str) else body).strip()[:300]


class AnswerParser:
    """Extracts speech from the bytes of one streamed answer; `is_done`: the answer has ended."""

    def __init__(self, tags: Sequence[str] = TAGS, stops: Sequence[str] = STOPS) -> None:
        self._events = EventParser()
        self._scanner = TagScanner(tags, stops)
        self._tags = tags
        self._shown = ""  # start of the answer's text
        self.reason: str | None = None
        """Why the answer ended, according to the server."""
        self.is_done = False

    @property
    def tokens(self) -> int:
        """Number of tokens so far."""
        return self._scanner.tokens

    def feed(self, payload: bytes) -> Iterator[SpeechPiece]:
        """The complete speech; iterate to the end. Raises SpeechLMError, TokenError."""
        for data in self._events.feed(payload):
            if data.strip() == _DONE:
                self.is_done = True
                return
            delta = delta_of(data)
            self.reason = delta.reason or self.reason
            self._shown += delta.text[: _SHOWN_CHARACTERS - len(self._shown)]
            yield from self._scanner.feed(delta.text)

    def finish(self) -> None:
        """Ends the answer and its last utterance. Raises SpeechLMError for an answer that was cut or has no token."""
        if not self.is_done and self.reason is None:
            raise SpeechLMError(
                f"the language model's answer was interrupted (tokens so far: {self.tokens}): try again"
            )
        if not self.tokens:
            raise SpeechLMError(
                f"the language model's answer {self._shown!r} contains no {' or '.join(self._tags)}: check the prompt"
                " template and the tag; servers that hide special tokens need skip_special_tokens: false (in a .json"
                " template)"
            )


@dataclass(frozen=True)
class SpeechLMSpec:
    """A language-model server with an OpenAI-compatible API, and the form of its requests.

    `url` is the base URL, ending in /v1. `template` turns a text into the prompt: `{text}` is the text, `{codes}` the
    tokens of the voice, `{reference_text}` the transcript of the voice. With `is_json` the template is the whole JSON
    request, with placeholders in its strings. Raises ConfigError.
    """

    url: str
    api: str = "completions"
    template: str = "{text}"
    is_json: bool = False
    tags: tuple[str, ...] = TAGS
    stops: tuple[str, ...] = STOPS

    def __post_init__(self) -> None:
        check_url(self.url)
        if self.api not in APIS:
            raise ConfigError(f"api {self.api!r} is unknown: choose one of {', '.join(APIS)}")
        for tag in self.tags:
            check_tag(tag)
        if not _PLACEHOLDER.search(self.template) or "{text}" not in self.template:
            raise ConfigError("the prompt template has no {text}: put it where the text to speak belongs")
        if self.is_json:
            _json_request(self.template)

    @property
    def target(self) -> str:
        """The URL of requests."""
        return self.url.rstrip("/") + APIS[self.api]

    def body(
        self, text: str, *, model: str | None = None, codes: Sequence[int] = (), reference_text: str = ""
    ) -> dict[str, Any]:
        """The JSON request for `text`. Raises ConfigError if the template needs something that is missing, and as
        `check_text`.
        """
        check_text("the text", text)
        if "{codes}" in self.template and not len(codes):
            raise ConfigError("the prompt template has {codes}, but no voice provides them: specify a voice")
        filled = {
            "text": text,
            "codes": "".join(self.tags[0].replace("{}", str(code)) for code in codes),
            "reference_text": reference_text,
        }
        if self.is_json:
            body = _filled(_json_request(self.template), filled)
        else:
            prompt = _filled(self.template, filled)
            body = {"messages": [{"role": "user", "content": prompt}]} if self.api == "chat" else {"prompt": prompt}
        body.setdefault("max_tokens", MAX_TOKENS)
        if model is not None:
            body["model"] = model
        return {**body, "stream": True}


def check_url(url: str) -> None:
    """Raises ConfigError unless `url` is the base of an OpenAI-compatible API."""
    try:
        split = urlsplit(url)
        _ = split.port  # raises ValueError if invalid
        fits = split.scheme in ("http", "https") and split.hostname and split.path.rstrip("/").endswith("/v1")
    except ValueError:
        fits = False
    if not fits or split.query or split.fragment or split.username:
        raise ConfigError(f"language model URL {url!r} is invalid: use one like http://127.0.0.1:8000/v1")


def check_text(name: str, text: str) -> None:
    """Raises ConfigError for a text that UTF-8 cannot encode: JSON and command lines may have half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} is {text[:40]!r}, which is not Unicode: send whole characters") from None


def _json_request(template: str) -> dict[str, Any]:
    try:
        request = json.loads(template)
    except ValueError as error:
        raise ConfigError(f"the prompt template is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise ConfigError("the prompt template is not a JSON object: write the fields of a request")
    return request


def _filled(value: Any, filled: dict[str, str]) -> Any:
    """Replaces placeholders in all strings of a value; replacements are not scanned again."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: filled[found[1]], value)
    if isinstance(value, list):
        return [_filled(item, filled) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, filled) for key, item in value.items()}
    return value


def refusal(url: str, status: int, body: bytes) -> SpeechLMError:
    """The error for an HTTP status other than 200 from the language model."""
    return SpeechLMError(
        f"the language model at {url} answered HTTP {status}: {error_text(body.decode('utf-8', 'replace'))}"
    )


def unreachable(url: str, error: Exception) -> SpeechLMError:
    """The error for a failed connection to the language model."""
    return SpeechLMError(
        f"the language model at {url} does not respond ({type(error).__name__}: {error}): is it running?"
    )
