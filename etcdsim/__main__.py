"""`python -m etcdsim`."""

import sys

from etcdsim.cli import main

sys.exit(main())
