"""The tutorial's code runs as it stands, and does what the text says."""

import re

import pytest

pytest.importorskip("torch").set_num_threads(1)


def test_own_model(repository, capfd):
    blocks = re.findall(r"```python\n(.*?)```", (repository / "docs" / "tutorial-own-model.md").read_text(), re.DOTALL)
    names: dict = {"__name__": "tutorial"}
    exec("\n".join(blocks), names)
    assert names["right"] > 0.9 and names["alike"] > 0.97
    assert names["differences"] == [None, None]
    assert "33 frames: " in capfd.readouterr().out
