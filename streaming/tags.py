"""Patterns of tokens in the text of a speech language model: tags with `{}` for the number."""

import re
from collections.abc import Sequence

from neucodec_streaming.errors import ConfigError

TAGS = ("<|speech_{}|>", "<|s_{}|>")
"""NeuTTS's, and that of other models."""
_MAX_DIGITS = 18


def whole_tag(tags: Sequence[str], others: Sequence[str] = ()) -> re.Pattern[str]:
    """Matches any of the tags, each number in its own group, or other texts. Raises ConfigError."""
    ends = [check_tag(tag) for tag in tags]
    numbered = [rf"{re.escape(left)}(-?\d{{1,{_MAX_DIGITS}}}){re.escape(right)}" for left, right in ends]
    return re.compile("|".join([*numbered, *map(re.escape, others)]))


def begun_tag(tags: Sequence[str], others: Sequence[str] = ()) -> re.Pattern[str]:
    """Matches a proper prefix of any tag at the end of a text. Raises ConfigError."""
    ends = [check_tag(tag) for tag in tags]
    begun = [_begun(left, rf"-?\d{{0,{_MAX_DIGITS}}}", right) for left, right in ends]
    return re.compile(f"(?:{'|'.join([*begun, *(_begun(other) for other in others)])})\\Z")


def check_tag(tag: str) -> tuple[str, str]:
    """The text before and after the number in a tag such as `<|speech_{}|>`. Raises ConfigError."""
    left, number, right = tag.partition("{}")
    if not number or not left or not right or "{}" in right or left[-1] in "-0123456789" or right[0].isdecimal():
        raise ConfigError(
            f"tag {tag!r} is invalid: use one like {TAGS[0]}, with {{}} for the number and text on both sides"
        )
    return left, right


def _begun(left: str, middle: str = "", right: str = "") -> str:
    """A pattern for every proper, non-empty prefix of a tag."""
    units = [*map(re.escape, left), *([middle] if middle else []), *map(re.escape, right)][:-1]
    pattern = ""
    for unit in reversed(units[1:]):
        pattern = f"(?:{unit}{pattern})?"
    return units[0] + pattern
