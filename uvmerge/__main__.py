"""`python -m uvmerge` is the command line.

Python looks for modules in the current folder first, which may be a checkpoint with Python files.
"""

import os
import sys

if __name__ == "__main__":
    first = sys.path[0] or os.curdir
    if os.path.isdir(first) and os.path.samefile(first, os.curdir):
        del sys.path[0]
    from .cli.main import program

    program()
