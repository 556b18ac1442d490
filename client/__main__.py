"""`python -m client`: the command `neucodec`."""

import sys

from client.cli import main

sys.exit(main())
