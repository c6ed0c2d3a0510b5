"""`python -m hf_winopt`, and so `accelerate launch -m hf_winopt`, is `hf-winopt`."""

import sys

from hf_winopt.cli import main

sys.exit(main())
