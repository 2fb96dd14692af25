"""The process that runs a suspect's ONNX model, so that whatever the model does happens to this process alone.

Started as a script by `onnx_process`; it needs onnxruntime and numpy and nothing else of this package. Before it reads
a model it gives up what a model has no use for: memory beyond an allowance, files, core dumps. Requests come over
standard input and answers leave over standard output, each as two lengths, a JSON header and raw bytes. When standard
input ends (its parent closed it, or died), so does this process, in the middle of a question too.

On Windows there are no such limits: the model is still stopped when its time is over.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

if sys.platform != "win32":
    import resource

Read: TypeAlias = Callable[[int], bytes]
Write: TypeAlias = Callable[[bytes], object]
Frame: TypeAlias = tuple[dict[str, Any], bytes]

LENGTHS = struct.Struct("!IQ")
MAX_HEADER_BYTES = 2**16
# Scores of a hundred thousand classes in double precision.
MAX_ANSWER_BYTES = 2**20
OUT_OF_MEMORY_STATUS = 71
_FATAL_ONLY = 4
# A protobuf message, and so a model without external files, cannot be larger.
MAX_MODEL_BYTES = 2**31 - 1
_SHOWN_CHARACTERS = 200
_SHOWN_INPUTS = 4
# numpy has at most 64 axes, a classifier's answer two.
MAX_AXES = 16
_INPUT_TYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
# What C++ and onnxruntime's allocator say when there is no memory left.
_MEMORY_WORDS = ("bad_alloc", "bad allocation", "Failed to allocate", "vector::_M_", "length_error")


def confine(memory_bytes: int) -> None:
    """Give up, for good, memory beyond *memory_bytes* more than is in use now, new files, and core dumps.

    onnxruntime must have been imported. Limits that the operating system does not know are left out.
    """
    if sys.platform == "win32":
        return
    for name, limit in (
        ("RLIMIT_CORE", 0),
        ("RLIMIT_FSIZE", 0),
        # No file can be opened any more: a model that points to one does not get it, whatever onnxruntime would allow.
        ("RLIMIT_NOFILE", 0),
        ("RLIMIT_AS", memory_bytes + _address_space_bytes()),
    ):
        try:
            resource.setrlimit(getattr(resource, name), (limit, limit))
        except (AttributeError, ValueError, OSError):  # macOS refuses some of them
            continue


def serve(read: Read, write: Write) -> None:
    """Answer requests until *read* comes to its end.

    A request ``{"do": "load", "cpu_s": …}`` brings a model, ``{"do": "run", "cpu_s": …, "shape": […]}`` an input as
    float32. Call `confine` first, in a process of its own.

    Args:
        read: Returns as many bytes as it is asked for, fewer only at the end.
        write: Takes bytes.
    """
    _answer_all(lambda: receive(read, limit_bytes=MAX_MODEL_BYTES), write)


def _answer_all(next_frame: Callable[[], Frame | None], write: Write) -> None:
    session: Any = None
    while (frame := next_frame()) is not None:
        header, body = frame
        del frame
        _allow_cpu(float(header["cpu_s"]))
        payload = b""
        try:
            if header["do"] == "load":
                session = _load(body)
                answer = _describe(session)
            else:
                answer, payload = _run(session, body, header["shape"])
        # onnxruntime's exceptions share no base class but Exception.
        except Exception as error:
            text = (str(error).strip().splitlines() or [type(error).__name__])[0][:_SHOWN_CHARACTERS]
            short = isinstance(error, MemoryError) or any(word in str(error) for word in _MEMORY_WORDS)
            answer = {"out_of_memory": text} if short else {"error": text}
        del body
        send(write, answer, payload)


def receive(read: Read, *, limit_bytes: int) -> Frame | None:
    """Read one frame; None at the end.

    Raises:
        ValueError: It is larger than *limit_bytes*, or its header is not a JSON object.
        EOFError: It is cut short.
    """
    lengths = read(LENGTHS.size)
    if not lengths:
        return None
    if len(lengths) < LENGTHS.size:
        raise EOFError("cut short")
    header_bytes, body_bytes = LENGTHS.unpack(lengths)
    if header_bytes > MAX_HEADER_BYTES or body_bytes > limit_bytes:
        raise ValueError(f"answered with {header_bytes} and {body_bytes} bytes")
    text, body = read(header_bytes), read(body_bytes)
    if len(text) < header_bytes or len(body) < body_bytes:
        raise EOFError("cut short")
    try:
        header = json.loads(text)
    except RecursionError as error:
        raise ValueError("header is nested too deep") from error
    if not isinstance(header, dict):
        raise ValueError("header is not an object")
    return header, body


def send(write: Write, header: dict[str, Any], body: bytes = b"") -> None:
    """Write one frame."""
    text = json.dumps(header).encode()
    write(LENGTHS.pack(len(text), len(body)) + text)
    if body:
        write(body)


def _load(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # An arena grows in powers of two and would run into the memory limit early.
    options.enable_cpu_mem_arena = False
    # Optimising would run parts of the graph before it is asked anything.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # External tensors are looked up in the working folder otherwise; it is empty as well.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(Path.cwd()))
    # Its fallback is to try the same again.
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _describe(session: Any) -> dict[str, Any]:
    inputs = session.get_inputs()
    described = [
        {
            "type": str(value.type)[:100],
            # onnxruntime gives an unknown shape as an empty one.
            "shape": [size if isinstance(size, int) else None for size in value.shape[:MAX_AXES]] or None,
        }
        for value in inputs[:_SHOWN_INPUTS]
    ]
    return {"inputs": described, "count": len(inputs)}


def _run(session: Any, body: bytes, shape: list[int]) -> tuple[dict[str, Any], bytes]:
    import numpy as np
    import onnxruntime

    declared = session.get_inputs()[0]
    inputs = np.frombuffer(body, dtype=np.float32).reshape(shape).astype(_INPUT_TYPES[declared.type])
    options = onnxruntime.RunOptions()
    options.log_severity_level = _FATAL_ONLY
    answer = session.run([session.get_outputs()[0].name], {declared.name: inputs}, options)[0]
    if not isinstance(answer, np.ndarray):
        return {"kind": type(answer).__name__}, b""
    header = {"dtype": answer.dtype.name, "shape": list(answer.shape[:MAX_AXES])}
    # What is larger than any classifier's scores is reported by its shape alone; text is not sent at all.
    wanted = answer.dtype.kind in "fiub" and answer.nbytes <= MAX_ANSWER_BYTES and answer.ndim <= MAX_AXES
    return header, answer.tobytes() if wanted else b""


def _allow_cpu(seconds: float) -> None:
    if sys.platform == "win32":
        return
    # The parent ends this process when its time is over; this limit holds where the parent cannot.
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = int(used + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if most < 0 else min(wanted, most), most))


def _address_space_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # not Linux: what the libraries take is not known, and small beside the allowance
        return 2**29
    return pages * resource.getpagesize()


def _pump(read: Read, frames: queue.SimpleQueue[Frame | None]) -> None:
    """Read requests beside the work, so that the end of standard input is seen in the middle of a question."""
    status = 0
    try:
        while (frame := receive(read, limit_bytes=MAX_MODEL_BYTES)) is not None:
            frames.put(frame)
            del frame
    except MemoryError:
        status = OUT_OF_MEMORY_STATUS
    finally:
        os._exit(status)


def main(memory_bytes: int) -> None:
    """Serve standard input and output under limits until they end."""
    # What native code prints must not be read as an answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def write(content: bytes) -> None:
        answers.write(content)
        answers.flush()

    try:
        import numpy  # noqa: F401  # Imported while files can still be opened.
        import onnxruntime
    except ImportError as error:
        send(write, {"missing": error.name or "onnxruntime"})
        return
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    confine(memory_bytes)
    frames: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
    try:
        threading.Thread(target=_pump, args=(sys.stdin.buffer.read, frames), daemon=True).start()
        _answer_all(frames.get, write)
    except (MemoryError, RuntimeError):  # the latter where there is no memory for a thread's stack
        os._exit(OUT_OF_MEMORY_STATUS)


if __name__ == "__main__":
    main(int(sys.argv[1]))
