"""The parent's side of `onnx_child`: start it, ask it, and end it when its time is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from ticketguard.predictors import onnx_child

# What an interpreter needs to start and to find its packages. A passphrase in the environment stays here.
_PASSED_ON = (
    "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONUSERBASE", "SYSTEMROOT", "TMPDIR",
    "VIRTUAL_ENV",
)  # fmt: skip


class ChildError(Exception):
    """The child gave no answer; the text says what it did instead, as in "crashed (SIGABRT)"."""


class OnnxProcess:
    """One running child. It answers one question at a time and is of no use after a `ChildError`.

    Args:
        memory_bytes: Memory it may take beyond what its libraries take.
    """

    def __init__(self, *, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        # Nothing lies in the child's working folder: neither modules to import nor tensors to read.
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        script = str(Path(onnx_child.__file__).resolve())
        try:
            # -P keeps the script's own folder off the import path, whose http.py and onnx.py are not the real ones.
            self._process = subprocess.Popen(  # noqa: S603  # Our own interpreter and script.
                [sys.executable, "-P", script, str(memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self._folder.name,
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            self._folder.cleanup()
            raise ChildError(f"cannot be started in a process of its own ({error.strerror})") from error

    def ask(self, header: dict[str, Any], body: bytes, *, seconds: float) -> onnx_child.Frame:
        """Send a request and return the answer's header and bytes; what the child sends is bounded, not checked.

        Raises:
            ChildError: There is no answer within *seconds*, or the child is out of memory, crashed, or sent nonsense.
        """
        late = threading.Event()

        def end() -> None:
            late.set()
            self._kill()

        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), end)
        timer.daemon = True
        timer.start()
        try:
            answer = self._exchange({**header, "cpu_s": seconds}, body)
        except (OSError, EOFError, ValueError) as error:
            self._kill()
            raise ChildError(self._end_of_child(late.is_set(), seconds, error)) from error
        finally:
            timer.cancel()
        if late.is_set():  # it answered, and was ended at the same moment
            raise ChildError(self._end_of_child(True, seconds, TimeoutError()))
        if "out_of_memory" in answer[0]:
            self.close()
            raise ChildError(f"needs more than {_megabytes(self._memory_bytes)} of memory")
        return answer

    def close(self) -> None:
        """End the child and wait for it; calling this again does nothing."""
        self._kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:  # what was not sent yet cannot be sent any more
                continue
        self._folder.cleanup()

    def _exchange(self, header: dict[str, Any], body: bytes) -> onnx_child.Frame:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            onnx_child.send(stdin.write, header, body)
            stdin.flush()
        except BrokenPipeError:  # it may have said why before it ended
            pass
        answer = onnx_child.receive(stdout.read, limit_bytes=onnx_child.MAX_ANSWER_BYTES)
        if answer is None:
            raise EOFError("ended without an answer")
        return answer

    def _kill(self) -> None:
        try:
            if hasattr(os, "killpg") and self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        except OSError:  # it ended by itself
            pass
        self._process.kill()

    def _end_of_child(self, late: bool, seconds: float, error: Exception) -> str:
        status = self._process.wait()
        self.close()
        if late or (hasattr(signal, "SIGXCPU") and status == -signal.SIGXCPU):
            return f"did not answer within {seconds:g} s"
        if status == onnx_child.OUT_OF_MEMORY_STATUS:
            return f"needs more than {_megabytes(self._memory_bytes)} of memory"
        if isinstance(error, ValueError):
            return f"sent an answer that is not in the child's protocol ({error})"
        if status < 0:
            return f"crashed ({signal.Signals(-status).name}) under its limit of {_megabytes(self._memory_bytes)}"
        return f"ended its process (status {status}) without an answer"


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # The child works in another folder, and an empty entry would mean that folder.
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if entries:
        passed["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in entries)
    # One thread and one heap: more of them reserve address space, which the child's limit is about.
    return passed | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


def _megabytes(count: int) -> str:
    return f"{count // 2**20} MiB"
