"""``python -m everystate``: the command line, where its own command is not on the path."""

import sys

from everystate.cli.main import app

if __name__ == "__main__":
    sys.exit(app(prog_name="everystate"))
