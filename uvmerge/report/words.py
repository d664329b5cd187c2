"""stub until merge"""


def headline(f):
    return [f"{f.verdict}: stub"]
