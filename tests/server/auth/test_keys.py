"""API keys: the name of a key, refusals, and reloading of a changed file."""

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.datastructures import Headers

from neucodec_streaming.errors import AuthError, ConfigError
from neucodec_streaming.server.auth.__main__ import main
from neucodec_streaming.server.auth.file_watch import FileWatch
from neucodec_streaming.server.auth.keys import Keys, key_from, key_line, new_key


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def keys_file(path: Path, **keys: str) -> Path:
    path.write_text("# keys\n\n" + "".join(key_line(name, key) + "\n" for name, key in keys.items()))
    return path


def test_without_keys_every_request_is_admitted():
    keys = Keys(None, [], Clock())
    assert not keys.required
    assert keys.name_of(None) is None and keys.name_of("anything") is None


def test_only_the_exact_key_is_accepted_and_it_gives_its_name(tmp_path):
    alice, bob = new_key(), new_key()
    keys = Keys(keys_file(tmp_path / "keys", alice=alice, bob=bob), [], Clock())
    assert keys.required
    assert keys.name_of(alice) == "alice" and keys.name_of(bob) == "bob"
    alice_hash = key_line("alice", alice).partition(":")[2]
    for wrong in (
        None,
        "",
        alice[:-1],
        alice + "x",
        alice.upper(),
        alice_hash,
        new_key(),
        "\ud800",
        "schlüssel" * 1000,
    ):
        with pytest.raises(AuthError) as caught:
            keys.name_of(wrong)
        assert not wrong or wrong not in str(caught.value)


def test_an_empty_key_file_admits_no_request(tmp_path):
    with pytest.raises(AuthError):
        Keys(keys_file(tmp_path / "keys"), [], Clock()).name_of(new_key())


def test_a_name_may_have_two_keys_during_rotation(tmp_path):
    old, new = new_key(), new_key()
    path = tmp_path / "keys"
    path.write_text(f"{key_line('alice', old)}\n{key_line('alice', new)}\n")
    keys = Keys(path, [], Clock())
    assert keys.name_of(old) == keys.name_of(new) == "alice"


def test_plain_keys_and_file_keys_both_work_and_only_hashes_are_stored(tmp_path):
    plain, filed = new_key(), new_key()
    keys = Keys(keys_file(tmp_path / "keys", alice=filed), [new_key(), plain], Clock())
    assert keys.name_of(plain) == "plain-2" and keys.name_of(filed) == "alice"
    assert plain not in repr(vars(keys))


def test_a_weak_plain_key_is_refused_and_not_echoed():
    with pytest.raises(ConfigError, match="plain API key 2 has 7 characters") as caught:
        Keys(None, [new_key(), "hunter2"], Clock())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("line", ["nck_secret", "alice:nck_secret", "alice:", f":{'0' * 64}", f"al ice:{'0' * 64}"])
def test_an_invalid_line_is_reported_by_number_and_not_echoed(tmp_path, line):
    path = tmp_path / "keys"
    path.write_text(f"{key_line('bob', new_key())}\n{line}\n")
    with pytest.raises(ConfigError, match=r"line 2 of .*keys is not an API key") as caught:
        Keys(path, [], Clock())
    assert line not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_an_unreadable_file_is_an_error_at_startup(tmp_path, content):
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys(path, [], Clock())


def test_a_changed_file_takes_effect_after_at_most_a_second(tmp_path):
    clock, alice, bob = Clock(), new_key(), new_key()
    path = keys_file(tmp_path / "keys", alice=alice)
    keys = Keys(path, [], clock)
    keys_file(path, alice=alice, bob=bob)
    with pytest.raises(AuthError):
        keys.name_of(bob)
    clock.now_s += 1
    assert keys.name_of(bob) == "bob"
    keys_file(path, bob=bob)
    clock.now_s += 1
    with pytest.raises(AuthError):
        keys.name_of(alice)


@pytest.mark.parametrize("harm", ["broken", "removed"])
def test_an_invalid_change_is_logged_once_and_the_old_keys_stay_in_use(tmp_path, caplog, harm):
    clock, alice = Clock(), new_key()
    path = keys_file(tmp_path / "keys", alice=alice)
    keys = Keys(path, [], clock)
    path.write_text("alice:nck_plain_by_mistake\n") if harm == "broken" else path.unlink()
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            clock.now_s += 1
            assert keys.name_of(alice) == "alice"
    assert len(caplog.records) == 1 and "keeping the previous API keys" in caplog.text
    assert "plain_by_mistake" not in caplog.text and alice not in caplog.text


def test_a_change_of_mtime_size_or_inode_is_detected(tmp_path):
    clock = Clock()
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("one")
    watch = FileWatch([path, tmp_path / "missing"], clock)

    def changed() -> bool:
        clock.now_s += 1
        return watch.changed()

    assert not changed()
    before = path.stat()
    path.write_text("three")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed() and not changed()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert changed() and not changed()
    other.write_text("seven")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    other.rename(path)
    assert changed() and not changed()
    (tmp_path / "missing").touch()
    assert changed() and not changed()


@pytest.mark.parametrize(
    ("headers", "token", "key"),
    [
        ([], None, None),
        ([], "of-query", "of-query"),
        ([("Authorization", "Bearer of-header")], None, "of-header"),
        ([("authorization", "bearer  of-header ")], "of-query", "of-header"),
        ([("Authorization", "Basic dXNlcjp4")], "of-query", "of-query"),
        ([("Authorization", "Basic dXNlcjp4"), ("Authorization", "Bearer of-header")], None, "of-header"),
        ([("Authorization", "Bearer")], None, ""),
        ([("Authorization", "")], None, None),
    ],
)
def test_the_bearer_header_takes_precedence_over_the_query(headers, token, key):
    assert key_from(Headers(headers), token) == key


def test_the_command_prints_the_line_to_stdout_and_the_key_to_stderr(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "neucodec_streaming.server.auth", "alice"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    key = done.stderr.strip().rpartition(" ")[2]
    assert done.stdout == f"alice:{hashlib.sha256(key.encode()).hexdigest()}\n"
    path = tmp_path / "keys"
    path.write_text(done.stdout)
    assert Keys(path, [], Clock()).name_of(key) == "alice"


def test_the_command_refuses_names_that_the_file_format_cannot_hold(capsys):
    assert main(["al:ice"]) == 2
    assert "key name 'al:ice' is invalid" in capsys.readouterr().err


def test_generated_keys_are_long_and_unique():
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100 and all(len(key) == 47 for key in keys)
