"""`python -m trainer`, which `torchrun -m trainer` starts once per GPU."""

import sys

from trainer.cli import main

sys.exit(main())
