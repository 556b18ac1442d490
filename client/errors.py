"""Errors of the client's side; a branch of the tree in streaming/errors.py.

    StreamingError
    `-- ClientError              code "client"
        |-- Unreachable          code "unreachable"   no server answers, or something else does
        |-- Disconnected         code "disconnected"  the connection broke before `done`
        |-- DeadlineExceeded     code "deadline"      the server took or sent nothing in time
        |-- FileError            code "bad_file"      a file that cannot be read or written
        `-- SoundDeviceError     code "sound_device"  no such microphone or speaker, or it was unplugged

An error that the server reports becomes the class of the tree with its code (`error_of`).
"""

from neucodec_streaming.errors import StreamingError
from neucodec_streaming.errors import error_of as error_of


class ClientError(StreamingError):
    """Base of the errors that only a client meets."""

    code = "client"


class Unreachable(ClientError):
    """No server answers, or the answer is not `neucodec.v1`."""

    code = "unreachable"


class Disconnected(ClientError):
    """The connection broke before the session was over."""

    code = "disconnected"


class DeadlineExceeded(ClientError):
    """The server took or sent nothing for longer than the deadline."""

    code = "deadline"


class FileError(ClientError):
    """A file that cannot be read, written or parsed."""

    code = "bad_file"


class SoundDeviceError(ClientError):
    """A microphone or speaker that is missing, cannot be opened or was removed."""

    code = "sound_device"
