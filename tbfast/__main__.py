"""``python -m tbfast``: the command line of the tree, installed or not."""

import sys

from tbfast.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
