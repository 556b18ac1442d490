"""The error tree of the project.

    StreamingError                       code "internal"       WebSocket close 1011
    |-- InputError                       code "bad_input"      1007  unusable input
    |   |-- AudioError                   code "bad_audio"      1007  NaN, wrong dtype or shape, partial samples
    |   `-- TokenError                   code "bad_token"      1007  out of range, wrong dtype, partial tokens
    |-- ConfigError                      code "bad_config"     1008  an invalid setting, query or field
    |   `-- PathError                    code "bad_path"       1008  a path that is unknown or not served
    |-- AuthError                        code "unauthorized"   1008  a missing or unknown API key
    |   `-- OriginError                  code "forbidden"      1008  a web page that may not use the server
    |-- ModelError                       code "bad_model"      1011  a corrupt or incomplete model folder
    |-- SnapshotError                    code "bad_snapshot"   1008  bytes of another version, model or configuration
    |-- ProtocolError                    code "bad_message"    1002  a message that `neucodec.v1` does not allow
    |   |-- LocalProtocolError           code "misuse"         1002  a local call that the session does not allow
    |   `-- MessageTooLarge              code "too_large"      1009
    |-- CapacityError                    code "full"           1013  no free slot
    |   `-- LimitError                   code "too_many"       1013  too many sessions or attempts of one key or address
    |-- TimeLimitError                   code "time_limit"     1008  a session that lasts or idles too long
    |-- DeviceError                      code "device"         1011  a worker failed or is stuck
    |   `-- LostDeviceError              code "device"         1011  every later call fails too
    `-- SpeechLMError                    code "speech_lm"      1011  an unusable language-model server

client/errors.py adds errors that only a client meets.

`code` is sent over the wire; `close_code` is the WebSocket status that follows it (RFC 6455, section 7.4). A message
says what is wrong, with the value, and what to do.
"""


class StreamingError(Exception):
    """Base of every error that this project raises on purpose."""

    code = "internal"
    close_code = 1011


class InputError(StreamingError):
    """Unusable audio or tokens; the stream is unchanged by the call."""

    code = "bad_input"
    close_code = 1007


class AudioError(InputError):
    """Audio that is not finite float32 mono, or bytes with a partial sample."""

    code = "bad_audio"


class TokenError(InputError):
    """Tokens outside 0..65535, of a wrong type, or bytes with a partial token."""

    code = "bad_token"


class ConfigError(StreamingError):
    """A configuration field or query parameter with an invalid value."""

    code = "bad_config"
    close_code = 1008


class PathError(ConfigError):
    """An unknown path, or a kind of session that is not served."""

    code = "bad_path"


class AuthError(StreamingError):
    """The API key is missing or unknown."""

    code = "unauthorized"
    close_code = 1008


class OriginError(AuthError):
    """The request comes from a web page that may not use the server."""

    code = "forbidden"


class ModelError(StreamingError):
    """A model that cannot be loaded: missing, corrupt or incomplete."""

    code = "bad_model"


class SnapshotError(StreamingError):
    """Snapshot bytes that do not fit this stream: other version, model or configuration, or damaged."""

    code = "bad_snapshot"
    close_code = 1008


class ProtocolError(StreamingError):
    """A message that the wire protocol does not allow in this state."""

    code = "bad_message"
    close_code = 1002


class LocalProtocolError(ProtocolError):
    """A local call that the session does not allow in this state, such as sending after `end`; nothing was sent."""

    code = "misuse"


class MessageTooLarge(ProtocolError):
    """A message longer than the agreed limit."""

    code = "too_large"
    close_code = 1009


class CapacityError(StreamingError):
    """No slot is free; try later or another server."""

    code = "full"
    close_code = 1013


class LimitError(CapacityError):
    """One key or address has too many sessions or attempts; retry after `after_s`."""

    code = "too_many"

    def __init__(self, message: str, after_s: int = 1) -> None:
        super().__init__(message)
        self.after_s = after_s


class TimeLimitError(StreamingError):
    """A session that lasts longer than the server allows, or idles."""

    code = "time_limit"
    close_code = 1008


class DeviceError(StreamingError):
    """A worker failed or does not respond."""

    code = "device"


class LostDeviceError(DeviceError):
    """A device that failed permanently, as CUDA does after most errors: restart the process."""


class SpeechLMError(StreamingError):
    """A language-model server that is unreachable, refuses, or answers without speech."""

    code = "speech_lm"


def reason_of(error: BaseException) -> str:
    """The system's reason for a failed call, without number and path; never empty."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def error_of(code: str, message: str) -> StreamingError:
    """The error for a server's `error` message; a StreamingError that names the code if it is unknown."""
    pending: list[type[StreamingError]] = [StreamingError]
    while pending:
        kind = pending.pop()
        if kind.code == code:
            return kind(message)
        pending.extend(kind.__subclasses__())
    return StreamingError(f"{message} ({code})")
