"""`python -m attest.cli`: the command `pot` where its script is not on the path."""

from attest.cli.main import run

if __name__ == "__main__":
    run()
