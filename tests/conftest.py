"""Where tests find data that is not in the repository."""

import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fsdd", type=Path, default=DATA / "fsdd" / "recordings", metavar="DIR",
                     help="Free Spoken Digit Dataset recordings, {digit}_{speaker}_{take}.wav")
    parser.addoption("--liberty", type=Path, default=DATA / "liberty", metavar="DIR",
                     help="folder of standard-cell libraries, *.lib or *.lib.gz")
    parser.addoption("--update-golden", action="store_true", help="write what tests measure instead of comparing it")


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Let processes that tests start be interrupted: a background job, and so its children, ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout these tests belong to."""
    return ROOT


@pytest.fixture(scope="session")
def project_files(repository: Path) -> list[str]:
    """The files that belong to the project (tracked, or new and not ignored), relative to the checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    return [name for name in listed.stdout.split("\0") if name and (repository / name).is_file()]


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether to write expectations anew."""
    return request.config.getoption("--update-golden")


@pytest.fixture(scope="session")
def fsdd(request: pytest.FixtureRequest) -> Path:
    """Folder of recordings; skips without it."""
    return folder(request, "--fsdd", "recordings")


@pytest.fixture(scope="session")
def liberty(request: pytest.FixtureRequest) -> Path:
    """Folder of standard-cell libraries; skips without it."""
    return folder(request, "--liberty", "standard-cell libraries")


def folder(request: pytest.FixtureRequest, option: str, content: str) -> Path:
    """Return the folder an option names; skip the test, saying why, when it does not exist."""
    path = request.config.getoption(option)
    if not path.is_dir():
        pytest.skip(f"no {content} in {path}; pass {option}=DIR")
    return path
