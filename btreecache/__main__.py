"""`python -m btreecache` is the `btreecache` command."""

import sys

from btreecache.cli import main

sys.exit(main())
