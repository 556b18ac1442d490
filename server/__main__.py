"""`python -m server` is `neucodec-server`."""

import sys

from server.cli import main

sys.exit(main())
