"""`python -m cbs` is `cbs`."""

import sys

from cbs.cli import main

sys.exit(main())
