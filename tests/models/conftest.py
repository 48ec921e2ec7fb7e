"""What all tests of the float models need."""

import sys

import pytest


@pytest.fixture(autouse=True)
def one_thread():
    """Let torch use one thread: several that wait for each other on a busy machine are many times slower."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
