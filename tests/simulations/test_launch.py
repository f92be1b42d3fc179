from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from hypothesis import strategies as st

import split_unlearning
from split_unlearning.simulations.console import FAILURE, PROGRESS
from split_unlearning.simulations.launching import launch, processes
from split_unlearning.simulations.launching.launch import Outcome, run_app, stage_app

MARK = "SPLIT_UNLEARNING_TEST"

DESCRIPTION = """
[project]
name = "tiny"
version = "0.1.0"
[tool.flwr.app]
publisher = "nobody"
[tool.flwr.app.components]
serverapp = "tiny.server:app"
clientapp = "tiny.client:app"
[tool.flwr.app.config]
ending = ""
text = ""
"""

SERVER = f"""
import sys, time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()

@app.main()
def main(grid, context):
    ending = context.run_config["ending"]
    print("{PROGRESS}starts", flush=True)
    print(repr(context.run_config["text"]), flush=True)
    while len(list(grid.get_node_ids())) < 2:
        time.sleep(0.05)
    content = RecordDict({{"config": ConfigRecord({{"ending": ending}})}})
    nodes = sorted(grid.get_node_ids())
    messages = [Message(content=content, dst_node_id=n, message_type="query") for n in nodes]
    for reply in grid.send_and_receive(messages):
        if reply.has_error():
            raise RuntimeError("a client failed")
        print("worker", reply.content["config"]["pid"], flush=True)
    if ending == "attacked":
        import os, subprocess
        import ray
        strangers = {{key: os.environ[key] for key in os.environ if not key.startswith("RAY_")}}
        attack = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)"
        address = ray.get_runtime_context().gcs_address
        own = {{key: os.environ.get(key, "") for key in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}}
        for token in ({{}}, {{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}}, own):
            done = subprocess.run(
                [sys.executable, "-c", attack, address], env={{**strangers, **token}},
                capture_output=True, text=True, timeout=90,
            )
            print("joined" if done.returncode == 0 else "refused", flush=True)
    if ending == "told":
        print("{FAILURE}told by the app", flush=True)
        sys.exit(1)
    if ending == "never":
        print("{PROGRESS}waits", flush=True)
        time.sleep(600)
"""

CLIENT = """
import os
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()

@app.query()
def query(message, context):
    if message.content["config"]["ending"] == "client":
        raise ValueError("the client broke")
    content = RecordDict({"config": ConfigRecord({"pid": os.getpid()})})
    return Message(content=content, reply_to=message)
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Return a Flower app whose server asks two clients once."""
    package = tmp_path / "app" / "tiny"
    package.mkdir(parents=True)
    (package.parent / "pyproject.toml").write_text(DESCRIPTION)
    for name, text in {"__init__": "", "server": SERVER, "client": CLIENT}.items():
        (package / f"{name}.py").write_text(text)
    return package.parent


@pytest.fixture
def left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test if anything that it started still runs, or a folder of it is still there."""
    monkeypatch.setenv(MARK, str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # Its own, for other tests run beside it; short, for the sockets in it.
    with tempfile.TemporaryDirectory(prefix="own-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield
        assert _marked(str(tmp_path)) == {}
        assert list(Path(folder).iterdir()) == []


def _marked(value: str) -> dict[int, str]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={value}".encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_text()
        except OSError:
            continue
    return found


def _run(tiny: Path, ending: str = "", text: str = "") -> tuple[Outcome, list[str]]:
    lines: list[str] = []
    outcome = run_app({"ending": ending, "text": text}, 2, on_line=lines.append, app=tiny)
    for line in lines:
        if line.startswith("worker "):
            assert not Path("/proc", line.split()[1]).exists()
    return outcome, lines


def test_stage_app_is_a_flower_app(tmp_path: Path) -> None:
    app = stage_app(tmp_path)
    root = Path(split_unlearning.__file__).parents[1]
    description = tomllib.loads((root / "pyproject.toml").read_text())
    bundled = description["tool"]["flwr"]["app"]["fab-include"]
    expected = {path.relative_to(root) for pattern in bundled for path in root.glob(pattern)}
    package = app / "split_unlearning"
    staged = {path.relative_to(package) for path in package.rglob("*") if path.is_file()}
    door = {path for path in expected if path.parts[0] == package.name}
    assert staged == (expected - door) | {path.relative_to(package.name) for path in door}
    # A bare folder `models` here would hide one of the user's.
    assert {path.name for path in app.iterdir()} == {"split_unlearning", "pyproject.toml"}
    assert len(build_fab_from_disk(app)) > 10_000


def test_stage_app_from_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = stage_app(tmp_path / "from-checkout")
    package = site / "split_unlearning"
    (site / "pyproject.toml").rename(package / "pyproject.toml")
    monkeypatch.setattr(split_unlearning, "__file__", str(package / "__init__.py"))
    app = stage_app(tmp_path / "from-package")
    assert build_fab_from_disk(app)
    assert not (app / "split_unlearning" / "pyproject.toml").exists()
    assert (app / "split_unlearning" / "strategies" / "splitwiper.py").exists()


# Lone surrogates are no text: neither TOML nor a file can hold them.
texts = st.text(st.characters(exclude_categories=["Cs"]))


def test_a_superlink_that_does_not_start_is_tried_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_behind: None
) -> None:
    attempts = tmp_path / "attempts"
    program = tmp_path / "flower-superlink"
    program.write_text(f"#!/bin/sh\necho once >> {attempts}\necho address already in use\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(
        "split_unlearning.simulations.launching.superlink._search_path", lambda: str(tmp_path)
    )
    (tmp_path / "flwr").symlink_to(program)
    outcome, lines = _run(tiny)
    assert not outcome.succeeded
    assert outcome.error == "Flower's SuperLink does not start: address already in use"
    assert "address already in use" in outcome.log
    assert attempts.read_text().count("once") == 2
    assert lines == []


@pytest.mark.parametrize(
    ("printed", "status", "error"),
    [
        ([f"(ClientAppActor pid=7) {FAILURE}a", f"{FAILURE}b", "ValueError: c"], "", "a"),
        (["ValueError: cause", "", "x.y.RuntimeError: effect", "INFO :"], "", "ValueError: cause"),
        (["  raise KeyError", "KeyError", "Exit Code: 700"], "finished:failed", "KeyError"),
        (["╭─ Error ─╮", "│ in two    │", "│ lines     │", "╰───────╯"], "", "in two lines"),
        (["\x1b[92mINFO \x1b[0m: the last"], "", "INFO : the last"),
        ([], "", "Flower said nothing"),
    ],
)
def test_error_is_the_line_that_says_most(printed: list[str], status: str, error: str) -> None:
    assert launch._error(printed, status) == error


def test_error_names_the_status_when_a_process_was_killed() -> None:
    assert "finished:failed" in launch._error(["learning", "epoch 1"], "finished:failed")


@pytest.mark.slow
@pytest.mark.flower
def test_run_that_succeeds(tiny: Path, left_behind: None) -> None:
    text = 'it\'s "a"; b = c\\d'
    outcome, lines = _run(tiny, text=text)
    assert outcome == Outcome(True, "", outcome.log)
    assert f"{PROGRESS}starts" in lines
    assert repr(text) in lines
    assert sum(line.startswith("worker ") for line in lines) == 2
    assert all(line in outcome.log for line in lines)


@pytest.mark.flower
@pytest.mark.parametrize(
    ("ending", "error"),
    [
        pytest.param("told", "told by the app", marks=pytest.mark.slow),
        pytest.param("client", "ValueError: the client broke", marks=pytest.mark.slow),
    ],
)
def test_run_that_fails(tiny: Path, left_behind: None, ending: str, error: str) -> None:
    outcome, _ = _run(tiny, ending)
    assert not outcome.succeeded
    assert outcome.error == error
    assert error in outcome.log


@pytest.mark.flower
def test_run_that_flower_refuses(tiny: Path, left_behind: None) -> None:
    outcome = run_app({"unknown": 1}, 2, on_line=lambda _: None, app=tiny)
    assert not outcome.succeeded
    assert "Invalid run configuration" in outcome.error
    assert "│" not in outcome.error


def lives(pid: str) -> bool:
    """Whether a process runs; one that has ended may wait to be reaped by its new parent."""
    try:
        stat = Path("/proc", pid, "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_process_without_the_mark_ends_after_its_parent(tmp_path: Path) -> None:
    child = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(1, flush=True); time.sleep(99)"
    )
    parent = (
        "import subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], env={{}}, stdout=-1); "
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(99)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent],
        env={"FLWR_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pid = process.stdout.readline().strip()
    assert lives(pid)
    processes.end_processes(tmp_path)
    assert not lives(pid)
    assert process.wait() == -signal.SIGTERM


@pytest.mark.flower
@pytest.mark.slow
def test_another_user_of_the_machine_cannot_join_the_ray_of_a_run(
    tiny: Path, left_behind: None
) -> None:
    outcome, lines = _run(tiny, "attacked")
    assert outcome.succeeded, outcome.error
    # Without a token, with another one, and with that of the run.
    assert [one for one in lines if one in ("joined", "refused")] == ["refused"] * 2 + ["joined"]


@pytest.mark.flower
@pytest.mark.parametrize(
    "end", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_interrupted_run_leaves_nothing(
    tiny: Path, tmp_path: Path, left_behind: None, end: signal.Signals
) -> None:
    code = (
        "import signal, sys; from pathlib import Path; "
        # A background shell starts its programs with Ctrl-C ignored, and children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from split_unlearning.simulations.launching.launch import run_app; "
        "run_app({'ending': 'never'}, 2, on_line=print, app=Path(sys.argv[1]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(tiny)],
        cwd=Path(split_unlearning.__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    workers = []
    for line in process.stdout:
        if line.startswith("worker "):
            workers.append(line.split()[1])
        if line.startswith(f"{PROGRESS}waits"):
            break
    start = time.monotonic()
    process.send_signal(end)
    # Whoever presses Ctrl-C presses it twice.
    time.sleep(0.3)
    process.send_signal(end)
    process.stdout.read()
    process.wait()
    watchdog.cancel()
    # One that is killed cannot end what it started: its guard does, a little later.
    while end == signal.SIGKILL and _marked(str(tmp_path)) and time.monotonic() - start < 15:
        time.sleep(0.1)
    assert time.monotonic() - start < 15
    assert len(workers) == 2
    assert not any(map(lives, workers))
