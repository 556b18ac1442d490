"""The voices of a server's folder, by name, for `voice=NAME` and the message `prime`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neucodec_streaming.errors import ConfigError, InputError, reason_of
from neucodec_streaming.protocol.messages import MAX_VOICE_TOKENS, Prime
from neucodec_streaming.token_files import FORMS, record_from_bytes
from neucodec_streaming.tokens import check_voice

ENDINGS = (".pt", ".npy", ".npz", ".json", ".tok")


@dataclass(frozen=True)
class Voices:
    """Names to tokens, uint16 (n,)."""

    tokens: Mapping[str, np.ndarray] = field(default_factory=dict)

    def named(self, name: str) -> np.ndarray:
        """The tokens of a voice. Raises ConfigError listing the known ones."""
        if name not in self.tokens:
            known = f"choose one of {', '.join(self.tokens)}" if self.tokens else "this server has none (--voices)"
            raise ConfigError(f"voice {name[:40]!r} is unknown: {known}")
        return self.tokens[name]

    def resolved(self, message: Prime) -> Prime:
        """The message with tokens in place of a name. Raises InputError listing the known ones."""
        if message.voice is None:
            return message
        try:
            return Prime(tokens=tuple(self.named(message.voice).tolist()))
        except ConfigError as error:
            raise InputError(str(error)) from None

    def fingerprint(self, name: str | None) -> str:
        """Hash of the name and tokens of a voice, or of all voices; "" without voices."""
        digest = hashlib.sha256()
        for known in sorted(self.tokens) if name is None else [name]:
            digest.update(f"{known} {len(self.tokens[known])} ".encode() + self.tokens[known].tobytes())
        return digest.hexdigest() if self.tokens else ""


def read_voices(folder: str) -> Voices:
    """All voices of a folder, named by their files without the ending; other files are left alone. Raises ConfigError
    naming the file and what is wrong with it."""
    found: dict[str, np.ndarray] = {}
    try:
        paths = sorted(path for path in Path(folder).iterdir() if path.suffix in ENDINGS)
    except OSError as error:
        raise ConfigError(f"voices {folder!r} cannot be read ({error.strerror}): specify a folder") from None
    for path in paths:
        if path.stem in found:
            raise ConfigError(f"two files in {folder} define voice {path.stem!r}: rename one")
        try:
            tokens = check_voice(record_from_bytes(path.read_bytes(), FORMS[path.suffix]).tokens)
        except (InputError, OSError) as error:
            raise ConfigError(f"{path} is not a voice: {reason_of(error)}") from None
        if len(tokens) > MAX_VOICE_TOKENS:
            raise ConfigError(f"{path} has {len(tokens)} tokens: shorten it to at most {MAX_VOICE_TOKENS}")
        found[path.stem] = tokens
    return Voices(found)
