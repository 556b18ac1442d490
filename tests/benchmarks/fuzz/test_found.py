"""Regression tests: bytes that once broke a target."""

import pytest

from benchmarks.fuzz.targets import SEEDS, TARGETS

FOUND = {
    "a WAV whose chunk ends before it begins": (
        "mqtt_control",
        b"RIFF\x00\x00\x00\x01WAVE\x00\x00\x00\x00\x00\x00\x00\x01",
    ),
    "a status at an endless position": (
        "mqtt_control",
        SEEDS["mqtt_control"][2].replace(b'"input":1,', b'"input":1e999,'),
    ),
    "a target that cannot be split": ("mqtt_control", b'{"type":"open","target":"//["}'),
}


@pytest.mark.parametrize("what", FOUND)
def test_inputs_found_by_fuzzing_are_refused(what: str) -> None:
    name, data = FOUND[what]
    TARGETS[name](data)
