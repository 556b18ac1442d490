"""Token text and server-sent events in any partition; requests to a language-model server."""

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neucodec_streaming.errors import ConfigError, SpeechLMError, TokenError
from neucodec_streaming.protocol.speech_lm import (
    MAX_EVENT_BYTES,
    AnswerParser,
    EventParser,
    SpeechLMSpec,
    TagScanner,
    delta_of,
    error_text,
)

URL = "http://127.0.0.1:8000/v1"
END = None
any_cuts = settings(max_examples=100, deadline=None, derandomize=True)
units = st.lists(
    st.one_of(
        st.integers(0, 65_535),
        st.just(END),
        st.sampled_from(["hello ", "<", "<|", "<|speech_", "<|speech_x|>", "<|s_-|>", "7|", "\n", "ü", "<|other|>"]),
    ),
    max_size=30,
)


def pieces_of(whole, cuts):
    edges = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    return [whole[a:b] for a, b in pairwise(edges)] or [whole[:0]]


def flat(pieces):
    """Tokens, with END after each utterance."""
    return [unit for piece in pieces for unit in [*piece.tokens, *([END] if piece.is_end else [])]]


def text_of(units, tag="<|speech_{}|>"):
    return "".join(
        unit if isinstance(unit, str) else "<|SPEECH_GENERATION_END|>" if unit is END else tag.replace("{}", str(unit))
        for unit in units
    )


def spoken(units):
    """Returns units without text and without empty utterances."""
    kept = []
    for unit in units:
        if isinstance(unit, int) or (unit is END and kept and kept[-1] is not END):
            kept.append(unit)
    return kept


def scanned(scanner, pieces):
    return flat(piece for text in pieces for piece in scanner.feed(text))


@any_cuts
@given(
    units=units, cuts=st.lists(st.integers(0, 1000), max_size=20), tag=st.sampled_from(["<|speech_{}|>", "<|s_{}|>"])
)
def test_text_cut_anywhere_gives_the_same_tokens_and_utterances(units, cuts, tag):
    assert scanned(TagScanner(), pieces_of(text_of(units, tag), cuts)) == spoken(units)


@any_cuts
@given(units=units, cuts=st.lists(st.integers(0, 1000), max_size=20))
def test_only_the_configured_tag_is_recognised(units, cuts):
    tag = "[a{}]b"
    assert scanned(TagScanner([tag]), pieces_of(text_of(units, tag), cuts)) == spoken(units)
    assert not [unit for unit in scanned(TagScanner([tag]), [text_of(units)]) if unit is not END]


@pytest.mark.parametrize("number", [65_536, -1, 10**17])
def test_tokens_before_a_bad_one_are_kept_and_its_position_is_named(number):
    scanner, kept = TagScanner(), []
    kept += flat(scanner.feed("<|speech_1|><|speech_2|>"))
    with pytest.raises(TokenError, match=f"token 3 .* is {number}"):
        for piece in scanner.feed(f"<|speech_3|><|speech_{number}|><|speech_4|>"):
            kept += piece.tokens
    assert kept == [1, 2, 3]


def test_endless_text_without_a_tag_needs_no_memory():
    scanner = TagScanner()
    for piece in ("<", "<|speech_", "1", "<|speech_123456"):
        for _ in range(50):
            assert not list(scanner.feed(piece * 1000))
            assert len(scanner._rest) < 64


@pytest.mark.parametrize("tag", ["", "<|speech|>", "{}", "<{}", "{}>", "<{}{}>", "a1{}>", "<{}7"])
def test_a_tag_without_an_unambiguous_number_is_refused(tag):
    with pytest.raises(ConfigError, match="tag"):
        TagScanner([tag])


@any_cuts
@given(
    events=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=8),
    cuts=st.lists(st.integers(0, 1000), max_size=20),
    seed=st.integers(0, 99),
)
def test_events_cut_anywhere_with_any_line_ends_are_the_same(events, cuts, seed):
    rng = random.Random(seed)
    written = "\ufeff" if seed % 2 else ""
    for event in events:
        end = rng.choice(["\n", "\r\n", "\r"])
        noise = rng.choice([f": comment{end}", f"event: chunk{end}id: 7{end}", f"retry: 5{end}{end}", ""])
        written += f"{noise}data:{rng.choice(['', ' ']) if event[:1] != ' ' else ' '}{event}{end}{end}"
    parser = EventParser()
    found = [event for piece in pieces_of(written.encode(), cuts) for event in parser.feed(piece)]
    assert found == events


def test_lines_of_one_event_are_joined_and_an_unfinished_event_is_dropped():
    assert list(EventParser().feed(b"data: a\ndata: b\n\ndata: c\n")) == ["a\nb"]


def test_an_endless_event_is_refused_and_endless_comments_are_not():
    parser = EventParser()
    for _ in range(3):
        assert not list(parser.feed(b": still here\n" * (MAX_EVENT_BYTES // 20)))
    with pytest.raises(SpeechLMError, match="longer than"):
        for _ in range(20):
            list(parser.feed(b"x" * (MAX_EVENT_BYTES // 10)))


def completion(text, reason=None):
    return {"choices": [{"index": 0, "text": text, "finish_reason": reason}]}


def chat(text, reason=None):
    return {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": reason}]}


def streamed(*chunks, done=True):
    events = [json.dumps(chunk) for chunk in chunks] + ["[DONE]"] * done
    return "".join(f"data: {event}\n\n" for event in events).encode()


@any_cuts
@given(
    units=units.filter(lambda units: any(isinstance(unit, int) for unit in units)),
    text_cuts=st.lists(st.integers(0, 1000), max_size=20),
    byte_cuts=st.lists(st.integers(0, 10_000), max_size=20),
    shape=st.sampled_from([completion, chat]),
)
def test_an_answer_cut_anywhere_gives_the_same_speech(units, text_cuts, byte_cuts, shape):
    written = streamed(*map(shape, pieces_of(text_of(units), text_cuts)), shape("", "stop"))
    parser = AnswerParser()
    found = [piece for part in pieces_of(written, byte_cuts) for piece in parser.feed(part)]
    parser.finish()
    assert flat(found) == spoken(units)
    assert (parser.is_done, parser.reason) == (True, "stop")


def test_an_answer_that_breaks_off_gives_its_tokens_and_then_an_error():
    parser = AnswerParser()
    pieces = list(parser.feed(streamed(completion("<|speech_5|>"), done=False)))
    with pytest.raises(SpeechLMError, match=r"was interrupted \(tokens so far: 1\)"):
        parser.finish()
    assert flat(pieces) == [5] and not parser.is_done


def test_an_answer_of_text_alone_is_shown_in_the_error():
    parser = AnswerParser()
    assert not list(parser.feed(streamed(chat("Hello! I am a"), chat(None, "stop"))))
    with pytest.raises(SpeechLMError, match=r"Hello! I am a.*skip_special_tokens"):
        parser.finish()


@pytest.mark.parametrize("chunk", ['{"error": {"message": "too long"}}', '{"error": "too long"}'])
def test_an_error_within_the_stream_is_raised(chunk):
    with pytest.raises(SpeechLMError, match="too long"):
        delta_of(chunk)


@pytest.mark.parametrize("chunk", ["", "nonsense", "[]", "7", "{}", '{"choices": 3}', "[" * 100_000])
def test_anything_but_a_chunk_is_an_error(chunk):
    with pytest.raises(SpeechLMError, match="not a completion chunk"):
        delta_of(chunk)


@pytest.mark.parametrize("choices", [[], [3], [{"index": 1, "text": "a"}], [{"delta": None}], [{"text": 3}]])
def test_chunks_without_text_give_empty_text(choices):
    assert delta_of(json.dumps({"choices": choices})).text == ""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "no such model", "code": 404}}', "no such model"),
        ('{"detail": "no such model"}', "no such model"),
        ('{"object": "error", "message": "no such model"}', "no such model"),
        ("no such model\n", "no such model"),
        ('{"detail": [{"loc": ["body"]}]}', '{"detail": [{"loc": ["body"]}]}'),
        ("[" * 100_000, "[" * 300),
    ],
)
def test_server_error_messages_are_extracted(body, message):
    assert error_text(body) == message


def test_the_text_is_the_prompt_unless_a_template_says_otherwise():
    spec = SpeechLMSpec(URL)
    assert spec.target == f"{URL}/completions"
    assert spec.body("Hi") == {"prompt": "Hi", "max_tokens": 2048, "stream": True}
    spec = SpeechLMSpec(URL + "/", api="chat")
    assert spec.target == f"{URL}/chat/completions"
    assert spec.body("Hi", model="m")["messages"] == [{"role": "user", "content": "Hi"}]


def test_text_that_utf_8_cannot_encode_is_refused():
    with pytest.raises(ConfigError, match="not Unicode"):
        SpeechLMSpec(URL).body("half a pair: \ud83d")


def test_a_template_gets_text_codes_and_transcript_and_text_is_never_expanded():
    spec = SpeechLMSpec(URL, template="say {reference_text} {text}: {codes}", tags=("[{}]",))
    prompt = spec.body("{codes}{other}", codes=[1, 2], reference_text="once")["prompt"]
    assert prompt == "say once {codes}{other}: [1][2]"
    with pytest.raises(ConfigError, match="voice"):
        spec.body("Hi")


def test_a_json_template_is_the_whole_request():
    template = (
        '{"messages": [{"role": "user", "content": "say {text}"}], "max_tokens": 9, "stop": ["x"], "stream": false}'
    )
    spec = SpeechLMSpec(URL, api="chat", template=template, is_json=True)
    assert spec.body('a "b"', model="m") == {
        "messages": [{"role": "user", "content": 'say a "b"'}],
        "max_tokens": 9,
        "stop": ["x"],
        "model": "m",
        "stream": True,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "127.0.0.1:8000/v1"},
        {"url": "http://127.0.0.1:8000"},
        {"url": "http://h:x/v1"},
        {"url": "http://user:key@h/v1"},
        {"api": "responses"},
        {"template": "no place"},
        {"template": "{text}", "is_json": True},
        {"template": '["{text}"]', "is_json": True},
        {"tags": ("x",)},
    ],
)
def test_an_invalid_spec_is_refused_on_construction(wrong):
    with pytest.raises(ConfigError):
        SpeechLMSpec(**{"url": URL} | wrong)
