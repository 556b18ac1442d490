"""`python -m neucodec_streaming.client`: the command `neucodec`."""

import sys

from neucodec_streaming.client.cli import main

sys.exit(main())
