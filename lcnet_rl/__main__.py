"""``python -m lcnet_rl``, the same as ``lcnet-rl``."""

import sys

from lcnet_rl.commands import main

sys.exit(main())
