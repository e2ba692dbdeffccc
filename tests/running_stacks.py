"""Whole stacks in homes of their own, and programs that run on them."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
from waiting import wait_until

from tidemill import Client
from tidemill._stack import PartInfo, StackInfo

RUN_TIMEOUT = 100.0  # seconds
DEATHS = 3  # of one part in a row, after which the supervisor waits longer than another start takes


def clean_environment(home: Path) -> dict[str, str]:
    """Return an environment in which nothing leads to a stack of the user's.

    `TIDEMILL_TEST_RUNTIME` is the runtime of all stacks in it.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "MODAL_"))}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    runtime = os.environ.get("TIDEMILL_TEST_RUNTIME", "auto")
    return {
        **kept,
        "TIDEMILL_HOME": str(home),
        **({} if runtime == "auto" else {"TIDEMILL_RUNTIME": runtime}),
    }


@dataclass
class RunningStack:
    """A stack that was started by `up` in a home of its own."""

    home: Path
    environment: dict[str, str] = field(init=False)
    deaths: "Counter[str]" = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        self.environment = clean_environment(self.home)

    @property
    def info(self) -> StackInfo:
        """What the stack tells about itself now."""
        return StackInfo.from_json((self.home / "stack.json").read_bytes())

    def client(self) -> Client:
        """Return a client with the stack's token."""
        info = self.info
        return Client.from_credentials(info.token_id, info.token_secret, server_url=info.server_url)

    def part(self, name: str) -> PartInfo:
        """Return one part, as it is now."""
        return next(part for part in self.info.parts if part.name == name)

    def kill(self, name: str) -> int:
        """Kill a part; return the pid that it had."""
        pid = self.part(name).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.deaths[name] += 1
        return pid

    def wait_restarted(self, name: str, old: int) -> PartInfo:
        """Return a part once it serves again, in another process than `old`."""

        def restarted() -> PartInfo | None:
            part = self.part(name)
            return part if part.state == "serving" and part.pid != old else None

        part: PartInfo = wait_until(restarted, what=f"for {name} to be restarted")
        return part

    def serves(self) -> bool:
        """Return whether all parts are alive and serve."""
        parts = self.info.parts
        return all(part.state == "serving" and part.pid and not is_gone(part.pid) for part in parts)

    def cli(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run the command line on this stack."""
        return run_cli(*arguments, environment=self.environment, **options)

    def start_cli(
        self, *arguments: str, environment: Mapping[str, str] = MappingProxyType({}), **options: Any
    ) -> "subprocess.Popen[str]":
        """Start the command line on this stack, with more in its environment, and leave it running."""
        command = [sys.executable, "-m", "tidemill.cli", *arguments]
        return start(command, {**self.environment, **environment}, **options)

    def logs(self) -> str:
        """Return the ends of all logs, for the message of a test that failed."""
        files = sorted((self.home / "logs").glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text()[-2000:]}" for file in files)


def start(command: list[str], environment: dict[str, str], **options: Any) -> "subprocess.Popen[str]":
    """Start a program, in a session of its own, as a terminal does."""
    settings: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "start_new_session": True,
    }
    return subprocess.Popen(command, env=environment, **(settings | options))


def run_cli(
    *arguments: str, environment: dict[str, str], **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Run the command line to its end."""
    return run([sys.executable, "-m", "tidemill.cli", *arguments], environment, **options)


def run(
    command: list[str], environment: dict[str, str], **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end."""
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": RUN_TIMEOUT, "check": False}
    return subprocess.run(command, env=environment, **(settings | options))


def up(home: "Path | RunningStack") -> RunningStack:
    """Start a stack that stays."""
    stack = RunningStack(home) if isinstance(home, Path) else home
    done = stack.cli("up")
    assert done.returncode == 0, done.stderr
    return stack


def down(stack: RunningStack) -> None:
    """End a stack, of which nothing may be left."""
    done = stack.cli("down")
    assert done.returncode == 0, done.stderr
    assert not processes_of(stack.home), "the stack left processes behind"


class MortalStack:
    """A stack whose parts tests kill. It is started again where the supervisor would be slow to do it."""

    def __init__(self, home: Path) -> None:
        self._stack = RunningStack(home)
        self._is_up = False

    def get(self) -> RunningStack:
        """Return the stack, all parts of which serve."""
        if not self._is_up:
            self._stack, self._is_up = up(self._stack.home), True
        wait_until(self._stack.serves, what="for all parts to serve")
        return self._stack

    def rest(self) -> None:
        """End it if a part has died too often for another test, or a test left it ended."""
        ended = not (self._stack.home / "stack.json").exists()
        if ended or max(self._stack.deaths.values(), default=0) >= DEATHS:
            self.end()

    def end(self) -> None:
        if self._is_up:
            self._is_up = False
            down(self._stack)


def is_gone(pid: int) -> bool:
    """Return whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def processes_of(home: Path) -> list[str]:
    """Return the command lines of processes that belong to the stack in `home` or use files in it."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            mine = process.environ().get("TIDEMILL_STACK", "").startswith(str(home)) or f"{home}/" in words
        except psutil.Error:
            continue
        if mine and process.pid != os.getpid():
            found.append(f"{process.pid} {words}")
    return found
