"""Marks of tests that Windows cannot run."""

import os

import pytest

SIGNALS = pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without a signal that it could answer")
LINKS = pytest.mark.skipif(os.name == "nt", reason="Windows lets only some users make links")
BASH = pytest.mark.skipif(os.name == "nt", reason="bash on Windows may be that of another system")
