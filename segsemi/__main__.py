"""python -m segsemi"""

import sys

from segsemi.cli import main

sys.exit(main())
