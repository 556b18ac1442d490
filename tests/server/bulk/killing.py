"""A coder that kills its job half way through."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

from neucodec_streaming.server.bulk.coding import BulkCoder
from neucodec_streaming.server.bulk.jobs import encode_files


class KillingCoder(BulkCoder):
    def encode(self, recordings):
        if recordings[0].id == "b/5.wav":
            os.kill(os.getppid(), signal.SIGKILL)
        return super().encode(recordings)


if __name__ == "__main__":
    model, source, out = sys.argv[1:]
    from tests.server.bulk.killing import KillingCoder as Importable

    encode_files(Path(source), Path(out), partial(Importable, model), workers=2, save_every_s=0.0)
