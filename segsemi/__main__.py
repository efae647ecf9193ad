"""python -m segsemi"""

import sys

from segsemi.commands.cli import main

sys.exit(main())
