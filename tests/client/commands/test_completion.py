"""Shell completion, tested in the shells themselves: bash always, zsh and fish where they are installed."""

import shutil
import subprocess

import pytest

from neucodec_streaming.client.cli import _parser
from neucodec_streaming.client.commands.completion import SHELLS, completion

COMMANDS = {"encode", "decode", "roundtrip", "mic", "play", "talk", "bench", "devices", "completion"}
COMMANDS |= {"mqtt-publish", "mqtt-listen"}
FORMS = {"raw", "npy", "npz", "text", "json", "parquet", "pt"}
ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_neucodec
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def scripts(tmp_path):
    for shell in SHELLS:
        (tmp_path / shell).write_text(completion(shell, _parser()))
    (tmp_path / "my speech.wav").touch()
    (tmp_path / "other.tok").touch()
    return tmp_path


def in_bash(scripts, *words: str) -> set[str]:
    command = ["bash", "--norc", "-c", ASK, "ask", str(scripts / "bash"), *words]
    done = subprocess.run(command, cwd=scripts, capture_output=True, text=True, check=True, timeout=10)
    return set(done.stdout.splitlines()) - {""}


def test_bash_completes_every_command(scripts):
    assert in_bash(scripts, "neucodec", "") >= COMMANDS
    assert in_bash(scripts, "neucodec", "de") == {"decode", "devices"}


def test_bash_completes_flags_and_their_choices(scripts):
    assert in_bash(scripts, "neucodec", "encode", "--f") == {"--form"}
    assert in_bash(scripts, "neucodec", "encode", "--form", "") == FORMS
    assert in_bash(scripts, "neucodec", "encode", "--server", "") == set()
    assert in_bash(scripts, "neucodec", "devices", "") == set()
    assert in_bash(scripts, "neucodec", "completion", "") == set(SHELLS)


def test_bash_completes_file_names_for_file_arguments(scripts):
    assert in_bash(scripts, "neucodec", "encode", "my") == {"my speech.wav"}
    assert in_bash(scripts, "neucodec", "play", "o") == {"other.tok"}
    assert in_bash(scripts, "neucodec", "bench", "--key-file", "o") == {"other.tok"}


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_every_installed_shell_parses_its_script(scripts, shell):
    done = subprocess.run([shell, "-n", str(scripts / shell)], capture_output=True, text=True, check=False, timeout=10)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_script_knows_every_command_and_flag(scripts, shell):
    script = (scripts / shell).read_text()
    assert all(name in script for name in COMMANDS | {"form", "key-file", "seconds", "microphone"})


def test_fish_completes_too_where_it_is_installed(scripts):
    if shutil.which("fish"):
        ask = f"source {scripts / 'fish'}; complete -C 'neucodec encode --form '"
        done = subprocess.run(["fish", "-N", "-c", ask], capture_output=True, text=True, check=True, timeout=10)
        assert {line.split("\t")[0] for line in done.stdout.splitlines()} == FORMS
