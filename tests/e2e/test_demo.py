"""What a newcomer does first: a clip on the simulated accelerator, at the command line."""

import json
from pathlib import Path

import pytest

from phonolith.cli.main import run

CLIPS = Path(__file__).parents[2] / "models" / "clips"
CLIP = CLIPS / "seven_three_one.wav"


@pytest.fixture
def command(capfd):
    """Run a command line with --json: (exit code, its one object)."""
    def call(*arguments: object) -> tuple[int, dict]:
        code = run([*map(str, arguments), "--json"])
        return code, json.loads(capfd.readouterr().out)

    return call


@pytest.fixture
def small(command):
    return lambda *arguments: command("simulate", *arguments, "--array", "8x8")


def test_the_default_machine_hears_the_demo_clip(command):
    code, found = command("simulate", CLIP, "--explain")
    assert code == 0
    assert found["predicted_cycles"] == sum(each["predicted_cycles"] for each in found["operators"]) == found["cycles"]
    assert found["transcript"] == found["reference"] == "seven three one"
    assert found["bit_exact"] is True
    assert found["tensors_compared"] > 40
    assert 0.5 < found["utilisation"] < 1
    for engine in found["engines"].values():
        assert engine["busy"] + engine["idle"] + sum(engine["stalled"].values()) == found["cycles"]
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]
    assert all(0 < layer["start"] <= layer["end"] <= found["cycles"] for layer in found["layers"])
    assert found["energy_uj"] == pytest.approx(sum(value for name, value in found["energy_parts_uj"].items()
                                                   if name != "total"))
    assert found["area_um2"] > 1e6
    assert set(found["dram_bytes"]) == {"read", "written"}


def test_every_clip_is_heard_and_exact(small):
    for clip in sorted(CLIPS.glob("*.wav")):
        code, found = small(clip)
        assert (code, found["transcript"], found["bit_exact"]) == (0, clip.stem.replace("_", " "), True)


def test_a_compiled_program_runs_only_where_it_belongs(small, command, tmp_path):
    program = tmp_path / "clip.program"
    code, direct = small(CLIP)
    assert code == 0
    command("compile", "encoder-ctc-w8", "--frames", direct["frames"], "--array", "8x8", "-o", program)
    assert small(CLIP, "--program", program)[1]["cycles"] == direct["cycles"]
    for arguments, kind in (((CLIP, "--program", program), "wrong-configuration"),
                            ((CLIP, "--program", tmp_path / "none"), "unknown-program"),
                            ((CLIP, "--program", CLIP), "not-a-program")):
        code, found = command("simulate", *arguments)
        assert (code, found["error"]["kind"]) == (1, kind)
    code, found = small(CLIPS / "two_zero_four_nine.wav", "--program", program)
    assert (code, found["error"]["kind"]) == (1, "input-too-long")
    command("compile", "encoder-ctc-w8", "--frames", 300, "--array", "8x8", "-o", program)
    code, found = small(CLIP, "--program", program)
    assert code == 0 and found["bit_exact"] and found["transcript"] == direct["transcript"]
    assert direct["cycles"] < found["cycles"] < 1.3 * direct["cycles"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["encoder-ctc-w8", "conformer-ctc-w8", "conformer-ctc-stream-w8"])
def test_whole_utterances_of_real_speakers_are_exact(command, fsdd, model):
    code, found = command("verify", "--data", fsdd, "--strings", 20, "--model", model)
    assert (code, found["checked"], found["failed"], found["first_difference"]) == (0, 20, 0, None)


@pytest.mark.slow
def test_the_integer_model_is_as_accurate_as_its_card_says(command, fsdd):
    code, found = command("evaluate", "--data", fsdd, "--strings", 500)
    assert code == 0
    assert found["wer"] < 0.04
