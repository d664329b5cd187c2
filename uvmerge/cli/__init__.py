"""The command line: click around `uvmerge.api`, with a command for each of its functions."""
