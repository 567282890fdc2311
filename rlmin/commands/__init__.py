"""Commands: one file for each command, with its settings; the command line parses and calls them."""
