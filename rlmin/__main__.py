"""`python -m rlmin`: the command line."""

from rlmin.cli import main

if __name__ == "__main__":
    main()
