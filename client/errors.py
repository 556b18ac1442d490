"""What can go wrong on the client's side; a branch of the tree in streaming/errors.py.

    StreamingError
    `-- ClientError              code "client"
        |-- Unreachable          code "unreachable"   no server answers, or what answers is none
        |-- Disconnected         code "disconnected"  the connection broke before `done`
        |-- DeadlineExceeded     code "deadline"      the server took or gave nothing in time
        |-- FileError            code "bad_file"      a file that cannot be read or written
        `-- SoundDeviceError     code "sound_device"  no such microphone or speaker, or it was unplugged

What the server itself reports comes back as the class of the tree that has the code which it sent (`error_of`).
"""

from neucodec_streaming.errors import StreamingError
from neucodec_streaming.errors import error_of as error_of


class ClientError(StreamingError):
    """Base of what only a client can run into."""

    code = "client"


class Unreachable(ClientError):
    """No server answers there, or what answers does not speak `neucodec.v1`."""

    code = "unreachable"


class Disconnected(ClientError):
    """The connection broke before the session was over."""

    code = "disconnected"


class DeadlineExceeded(ClientError):
    """The server neither took nor gave anything for longer than the deadline."""

    code = "deadline"


class FileError(ClientError):
    """A file that cannot be read, written or understood."""

    code = "bad_file"


class SoundDeviceError(ClientError):
    """A microphone or speaker that is not there, cannot be opened or went away."""

    code = "sound_device"
