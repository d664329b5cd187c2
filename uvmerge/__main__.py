"""`python -m uvmerge` is the command line.

Python looks for modules in the current folder first, which may be a checkpoint with Python files.
"""

import sys

if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    from .cli.main import program

    program()
