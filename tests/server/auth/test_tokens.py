"""Short-lived tokens: signing, expiry, and issuing them from other languages."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from neucodec_streaming.errors import AuthError, ConfigError
from neucodec_streaming.server.auth.__main__ import main
from neucodec_streaming.server.auth.keys import Keys, key_line, new_key
from neucodec_streaming.server.auth.tokens import MAX_MINUTES, new_token

NOW_S = 1_800_000_000.5
DOCS = Path(__file__).parents[3] / "docs" / "security.md"


def keys_at(now_s: float, *entries: str, plain: tuple[str, ...] = (), path: Path) -> Keys:
    path.write_text("".join(line + "\n" for line in entries))
    return Keys(path, plain, lambda: 0.0, lambda: now_s)


def test_a_token_grants_access_under_the_name_of_its_signing_key(tmp_path):
    alice, plain = new_key(), new_key()
    keys = keys_at(NOW_S, key_line("bob", new_key()), key_line("alice", alice), plain=(plain,), path=tmp_path / "keys")
    assert keys.name_of(new_token(alice, NOW_S)) == "alice"
    assert keys.name_of(new_token(plain, NOW_S)) == "plain-1"


@pytest.mark.parametrize(("age_s", "opens"), [(0, True), (299, True), (300, False), (3600, False)])
def test_a_token_is_valid_until_it_expires(tmp_path, age_s, opens):
    alice = new_key()
    token = new_token(alice, NOW_S)
    keys = keys_at(NOW_S + age_s, key_line("alice", alice), path=tmp_path / "keys")
    if opens:
        assert keys.name_of(token) == "alice"
        return
    with pytest.raises(AuthError, match="expired"):
        keys.name_of(token)


def test_altered_and_forged_tokens_are_refused(tmp_path):
    alice = new_key()
    line = key_line("alice", alice)
    keys = keys_at(NOW_S, line, path=tmp_path / "keys")
    token = new_token(alice, NOW_S)
    until = token.split("_")[1]
    later = token.replace(until, str(int(until) + 60))
    for wrong in (
        later,
        token[:-1],
        token + "0",
        token.upper(),
        new_token(new_key(), NOW_S),
        "nct_",
        f"nct_{until}_",
        line,
    ):
        with pytest.raises(AuthError) as caught:
            keys.name_of(wrong)
        assert wrong not in str(caught.value)


def test_tokens_longer_than_an_hour_are_neither_issued_nor_accepted(tmp_path):
    alice = new_key()
    with pytest.raises(ConfigError, match="at most 60"):
        new_token(alice, NOW_S, MAX_MINUTES + 1)
    early = keys_at(NOW_S - 7200, key_line("alice", alice), path=tmp_path / "keys")
    with pytest.raises(AuthError, match="valid for more than 60 minutes"):
        early.name_of(new_token(alice, NOW_S, MAX_MINUTES))


def test_the_command_prints_a_token_signed_with_the_key_in_the_environment(tmp_path, monkeypatch, capsys):
    alice = new_key()
    monkeypatch.setenv("NEUCODEC_API_KEY", alice)
    assert main(["token", "--minutes", "2"]) == 0
    (tmp_path / "keys").write_text(key_line("alice", alice) + "\n")
    assert Keys(tmp_path / "keys", (), lambda: 0.0).name_of(capsys.readouterr().out.strip()) == "alice"
    monkeypatch.delenv("NEUCODEC_API_KEY")
    assert main(["token"]) == 2
    assert "NEUCODEC_API_KEY" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed (Debian's nodejs)")
def test_the_documented_backend_makes_the_same_token():
    found = re.search(r"```js\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    script = f"{found[1]}\nDate.now = () => {NOW_S * 1000};\nconsole.log(JSON.stringify(newToken('a key', 5)));"
    node = shutil.which("node")
    assert node is not None
    said = subprocess.run(
        [node, "--input-type=module"], input=script, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(said) == new_token("a key", NOW_S, 5)
