"""The one error tree of the project.

    StreamingError                       code "internal"       WebSocket close 1011
    |-- InputError                       code "bad_input"      1007  what was sent cannot be used
    |   |-- AudioError                   code "bad_audio"      1007  NaN, wrong dtype or shape, odd byte count
    |   `-- TokenError                   code "bad_token"      1007  out of range, wrong dtype, odd byte count
    |-- ConfigError                      code "bad_config"     1008  a setting, a query or a field that cannot be
    |   `-- PathError                    code "bad_path"       1008  a path that is unknown or not served
    |-- AuthError                        code "unauthorized"   1008  no key, or an unknown one
    |   `-- OriginError                  code "forbidden"      1008  a web page that may not use the server
    |-- ModelError                       code "bad_model"      1011  a model folder that is corrupt or incomplete
    |-- SnapshotError                    code "bad_snapshot"   1008  bytes of another version, model or configuration
    |-- ProtocolError                    code "bad_message"    1002  a message that `neucodec.v1` does not allow
    |   |-- LocalProtocolError           code "misuse"         1002  a call of one's own that the session forbids
    |   `-- MessageTooLarge              code "too_large"      1009
    |-- CapacityError                    code "full"           1013  no slot is free now
    |   `-- LimitError                   code "too_many"       1013  too many sessions or attempts of one key or address
    |-- TimeLimitError                   code "time_limit"     1008  a session that lasts too long, or is idle
    |-- DeviceError                      code "device"         1011  a worker failed or is stuck
    |   `-- LostDeviceError              code "device"         1011  no later call can succeed either
    `-- SpeechLMError                    code "speech_lm"      1011  a language-model server that cannot be used

What only a client can run into is a branch of its own in client/errors.py.

`code` is what goes over the wire, `close_code` the WebSocket status that follows it (RFC 6455, section 7.4). A message
says what was wrong, with the offending value, and what to do.
"""


class StreamingError(Exception):
    """Base of everything that this project raises on purpose."""

    code = "internal"
    close_code = 1011


class InputError(StreamingError):
    """Audio or tokens that cannot be used; the stream is as it was before the call."""

    code = "bad_input"
    close_code = 1007


class AudioError(InputError):
    """Audio that is not finite float32 mono, or bytes that are no whole number of samples."""

    code = "bad_audio"


class TokenError(InputError):
    """Tokens outside 0..65535, of a wrong type, or bytes that are no whole number of tokens."""

    code = "bad_token"


class ConfigError(StreamingError):
    """A configuration field or query parameter with a value that cannot be."""

    code = "bad_config"
    close_code = 1008


class PathError(ConfigError):
    """A path that the server does not know, or a kind of session that it does not serve."""

    code = "bad_path"


class AuthError(StreamingError):
    """No key was given, or an unknown one."""

    code = "unauthorized"
    close_code = 1008


class OriginError(AuthError):
    """The request comes from a web page that may not use the server."""

    code = "forbidden"


class ModelError(StreamingError):
    """A model that cannot be loaded: missing, corrupt or incomplete."""

    code = "bad_model"


class SnapshotError(StreamingError):
    """Snapshot bytes that do not fit this stream: other version, model, configuration, or damaged."""

    code = "bad_snapshot"
    close_code = 1008


class ProtocolError(StreamingError):
    """A message that the wire protocol does not allow here."""

    code = "bad_message"
    close_code = 1002


class LocalProtocolError(ProtocolError):
    """A call of one's own side that the session does not allow now, such as sending after `end`; nothing was sent."""

    code = "misuse"


class MessageTooLarge(ProtocolError):
    """A message longer than the agreed limit."""

    code = "too_large"
    close_code = 1009


class CapacityError(StreamingError):
    """No slot is free: try again later or elsewhere."""

    code = "full"
    close_code = 1013


class LimitError(CapacityError):
    """One key or one address has too many sessions, or tries too often; another attempt makes sense `after_s` later."""

    code = "too_many"

    def __init__(self, message: str, after_s: int = 1) -> None:
        super().__init__(message)
        self.after_s = after_s


class TimeLimitError(StreamingError):
    """A session that lasts longer than the server allows, or in which nothing happens."""

    code = "time_limit"
    close_code = 1008


class DeviceError(StreamingError):
    """A worker failed or does not answer."""

    code = "device"


class LostDeviceError(DeviceError):
    """A device that fails for good, as CUDA does after most errors: the process has to start again."""


class SpeechLMError(StreamingError):
    """A language-model server that cannot be reached, refuses, or answers with what is no speech."""

    code = "speech_lm"


def reason_of(error: BaseException) -> str:
    """Why a call to the system failed, in its words, without number and path; never empty."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def error_of(code: str, message: str) -> StreamingError:
    """The error that a server's `error` message stands for; of an unknown code: StreamingError, with the code in it."""
    pending: list[type[StreamingError]] = [StreamingError]
    while pending:
        kind = pending.pop()
        if kind.code == code:
            return kind(message)
        pending.extend(kind.__subclasses__())
    return StreamingError(f"{message} ({code})")
