"""What is typed and what is printed: click around `uvmerge.api`, a command per call."""
