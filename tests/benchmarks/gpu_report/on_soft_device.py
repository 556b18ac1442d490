"""`python -m` for the stages of the dry run that start processes: give a module and its arguments.

The load benchmark gets its server in its own process, since the software device exists only there.
"""

import os
import runpy
import sys
from typing import Self
from unittest.mock import patch

from benchmarks.load import __main__ as load
from neucodec_streaming.server.app import App
from neucodec_streaming.server.cli import _parser
from neucodec_streaming.server.settings.sources import resolve
from tests.soft_cuda import installed


class ServerHere:
    """Replaces `ServerProcess`."""

    pid = None

    def __init__(self, *arguments: object) -> None:
        flags = vars(_parser().parse_args(["--port", "0", "--max-load", "1e9", *map(str, arguments)]))
        self._app = App(resolve(flags, os.environ).settings)

    async def __aenter__(self) -> Self:
        await self._app.start()
        await self._app.loaded()
        self.url = self._app.url
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._app.stop()


if __name__ == "__main__":
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    if module == "pytest":
        os.environ["NEUCODEC_TEST_DEVICE"] = "cpu"  # its fixture installs the device
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    with installed(), patch.object(load, "patient_server", ServerHere):
        if module == "benchmarks.load":
            sys.exit(load.main())
        runpy.run_module(module, run_name="__main__", alter_sys=True)
