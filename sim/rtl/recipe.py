"""Everything a build depends on, and how it is made."""

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from phonolith.sim.rtl.cache import BuildCache, content_key
from phonolith.sim.rtl.compile import (
    PREFIX,
    RUNTIME,
    Build,
    CompileOptions,
    Program,
    children_cpu_seconds,
    common_flags,
    compile_model,
    compile_runtime,
    runtime_sources,
)
from phonolith.sim.rtl.toolchain import Toolchain

FACTS = "build.json"
CODE = b"".join((Path(__file__).parent / name).read_bytes() for name in ("compile.py", "recipe.py"))
VERILATOR_FLAGS = (
    "--cc", "--make", "json", "--prefix", PREFIX, "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-timing",
    "-fno-table",   # looking a small function up takes longer than what clock enables leave of it
    "-Wno-fatal", "-Wno-lint", "-Wno-style", "--Mdir", ".")


@dataclass(frozen=True)
class Recipe:
    """One build.

    Parameters
    ----------
    inputs : dict of str to str
        Text of every file that goes into the build folder, by name.
    verilator_arguments : tuple of str
        Flags and input files for Verilator, besides those of every build.
    program : Program
        What to make of the model.
    tools : Toolchain
        Verilator and the C++ compiler.
    options : CompileOptions
        Optimization.
    """

    inputs: dict[str, str]
    verilator_arguments: tuple[str, ...]
    program: Program
    tools: Toolchain
    options: CompileOptions

    @property
    def key(self) -> str:
        """Content hash of all of it, and of the code that makes it."""
        inputs = (part for item in sorted(self.inputs.items()) for part in item)
        program = json.dumps(asdict(self.program))
        return content_key(*inputs, *self.verilator_arguments, program, *self.tools.identity(),
                           *self.options.identity(), CODE)

    def build(self, store: BuildCache) -> Path:
        """Return the folder with the result and ``build.json``, made now unless ``store`` has it."""
        key = self.key
        return store.get(key, lambda part: self.make(part, store.folder / f"{key}.log", store))

    def make(self, part: Path, log: Path, store: BuildCache) -> None:
        """Fill a cache entry; the log of a failed build stays at ``log``."""
        cpu, wall = children_cpu_seconds(), time.monotonic()
        work = part / "work"
        work.mkdir()
        log.unlink(missing_ok=True)
        self.compile(Build(work, log), store)
        (work / self.program.output).rename(part / self.program.output)
        shutil.rmtree(work)
        log.unlink(missing_ok=True)
        facts = {"cpu_seconds": children_cpu_seconds() - cpu, "seconds": time.monotonic() - wall,
                 "options": asdict(self.options), "tools": self.tools.identity()}
        (part / FACTS).write_text(json.dumps(facts, indent=1))

    def compile(self, job: Build, store: BuildCache) -> None:
        """Make the program in the job's folder."""
        for name, text in self.inputs.items():
            (job.folder / name).write_text(text)
        job.run([self.tools.verilator, *VERILATOR_FLAGS, *self.verilator_arguments], self.tools.environment)
        compile_model(job, self.tools, self.options, self.program, self.runtime(job, store))

    def runtime(self, job: Build, store: BuildCache) -> list[Path]:
        """Return Verilator's library as object files, compiled once for all models."""
        sources = runtime_sources(job.folder)
        key = content_key("runtime", *map(str, sources), *common_flags(job.folder, self.tools),
                          *self.program.compile_flags, *self.options.flags(RUNTIME), *self.tools.identity(), CODE)
        entry = store.get(key, lambda part: compile_runtime(
            Build(part, job.log), job.folder, self.tools, self.options, self.program))
        return [entry / f"{source.stem}.o" for source in sources]
