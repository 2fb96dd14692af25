"""Mutants: of small changes to what decides a verdict, drawn at random, 90% make a test fail.

The changes are those of cosmic-ray (the extra ``mutate``): operators, comparisons, numbers, conditions, loops,
decorators, exceptions. A place is drawn, then one of the changes that can be made there; annotations, which are never
run, are left out. Each mutant lies in a copy of the tree and is tested in a forked process by the tests that run its
line, the quick ones first. ``python -m benchmarks.mutants`` takes half an hour; survivors are argued in
``docs/decisions/0071-mutants-of-a-verdict.md``.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib
import itertools
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.shared.results import FOLDER, Bar, write_result

ROOT = Path(__file__).parents[1]
FOLDERS = ("ticketguard/verification", "ticketguard/credentials")
TESTS = ("tests/verification", "tests/credentials")
COPIED = ("ticketguard", "tests", "signatures", "docs", "benchmarks", "pyproject.toml", "README.md", "CHANGELOG.md")
SEED, DRAWN, LEAST_KILLED = 11, 330, 0.9
SUMS = (ast.BinOp, ast.AugAssign)
# These replace nothing, or need to be told what by what.
LEFT_OUT = ("NoOp", "VariableReplacer", "VariableInserter")
# A mutant that loops is dead: each test has this long, and several times what it takes without a mutant.
PATIENCE_SECONDS, TIMES_AS_LONG, BEGAN = 30.0, 6.0, "began.txt"
# Loaded once, before each mutant's process is forked; nothing of ours is.
WARM = (
    *("numpy", "scipy.stats", "scipy.fft", "scipy.optimize", "torch", "networkx", "safetensors.numpy", "onnx", "httpx"),
    *("securesystemslib.dsse", "securesystemslib.signer", "pyrage", "rfc8785", "jsonschema", "coverage", "pytest"),
    "hypothesis.extra.numpy",
)
# A mutant that asks for far more than any test needs is stopped, not the machine.
MOST_MEMORY, LARGEST_FILE = 16 * 2**30, 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change.

    Attributes:
        file: The file it is made in, relative to the tree.
        operator: cosmic-ray's name of the change.
        occurrence: Which of the places in the file where it can be made, from 0.
        line: First line that it changes.
        last_line: Last line that it changes.
    """

    file: str
    operator: str
    occurrence: int
    line: int
    last_line: int


USAGE_ERROR = 4  # pytest's exit code where it knows no test of a name
FIELDS = [field.name for field in dataclasses.fields(Mutant)]


def mutants_of(file: str) -> dict[tuple[Any, ...], list[Mutant]]:
    """Return every change that can be made in *file*, by place and kind of change."""
    import cosmic_ray.plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    source = (ROOT / file).read_text()
    tree, nodes = ast.parse(source), list(ast_nodes(get_ast(source)))
    never_run, sums = _annotations(tree), [_place(node) for node in ast.walk(tree) if isinstance(node, SUMS)]
    places: dict[tuple[Any, ...], list[Mutant]] = {}
    for name in sorted(cosmic_ray.plugins.operator_names()):
        if any(left_out in name for left_out in LEFT_OUT):
            continue
        operator, occurrence = cosmic_ray.plugins.get_operator(name)(), 0
        for node in nodes:
            for start, end in operator.mutation_positions(node):
                # A star among parameters is not a product.
                is_operator = "BinaryOperator" not in name or any(
                    first <= start and end <= last for first, last in sums
                )
                if is_operator and not any(first <= start and end <= last for first, last in never_run):
                    mutant = Mutant(file=file, operator=name, occurrence=occurrence, line=start[0], last_line=end[0])
                    places.setdefault((file, start, end, name.partition("_")[0]), []).append(mutant)
                occurrence += 1
    return places


def _annotations(tree: ast.Module) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    found: list[ast.expr | ast.stmt | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            found.append(node.returns)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            found.append(node)
    return [_place(node) for node in found if node is not None]


def _place(node: ast.expr | ast.stmt) -> tuple[tuple[int, int], tuple[int, int]]:
    return (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)


def draw(count: int, seed: int) -> list[Mutant]:
    """Draw *count* places without replacement, and a change at each.

    Places are drawn by what their lines say: where other code changes or moves, the same ones are drawn again.
    """
    places: list[tuple[bytes, list[Mutant]]] = []
    seen: Counter[str] = Counter()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.py")):
            lines = path.read_text().splitlines()
            for (_, _, _, kind), mutants in sorted(mutants_of(path.relative_to(ROOT).as_posix()).items()):
                text = " ".join(line.strip() for line in lines[mutants[0].line - 1 : mutants[0].last_line])
                seen[f"{kind} {text}"] += 1
                name = f"{seed} {kind} {text} {seen[f'{kind} {text}']}"
                places.append((hashlib.sha256(name.encode()).digest(), mutants))
    drawn = (mutants[int.from_bytes(digest[:8], "big") % len(mutants)] for digest, mutants in sorted(places))
    return list(itertools.islice(filter(_can_be_made, drawn), count))


def _can_be_made(mutant: Mutant) -> bool:
    try:
        return difference(mutant) != ""
    except AttributeError:  # cosmic-ray replaces no exception that is named with its module
        return False


def mutated(source: str, mutant: Mutant) -> str:
    """Return the changed file."""
    import cosmic_ray.plugins
    from cosmic_ray.mutating import mutate_code

    code: str = mutate_code(source, cosmic_ray.plugins.get_operator(mutant.operator)(), mutant.occurrence)
    return code


class Recorder:
    """A plugin of pytest that keeps how long every test took, and which failed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def pytest_collection(self) -> None:
        """Let hypothesis try the same examples each time, and make none smaller that fails."""
        import hypothesis

        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None, phases=phases)
        hypothesis.settings.load_profile("mutants")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Tell whoever waits which test begins, and when."""
        Path(os.environ["PYTHONPATH"], BEGAN).write_text(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Add one phase of one test."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        """Note a file that cannot be imported."""
        if report.failed:
            self.failed.append(report.nodeid)


class Bench:
    """A copy of the tree, and processes that test mutants in it."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.seconds: dict[str, float] = {}
        self._running: dict[str, dict[int, set[str]]] = {}

    def in_child(self, run: Callable[[], Any]) -> Any:
        """Return what *run* returns in a process of its own, "timeout" if one test takes far too long, or "crashed"."""
        result, began = self.tree / "result.json", self.tree / BEGAN
        result.unlink(missing_ok=True)
        began.write_text("")
        child = os.fork()
        if not child:
            try:
                os.setsid()
                resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
                resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
                os.chdir(self.tree)
                sys.path.insert(0, str(self.tree))
                with (self.tree / "output.txt").open("w") as output:
                    os.dup2(output.fileno(), 1)
                    os.dup2(output.fileno(), 2)
                    result.write_text(json.dumps(run()))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(0)
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            patience = PATIENCE_SECONDS + TIMES_AS_LONG * self.seconds.get(began.read_text(), 0.0)
            if self.seconds and time.time() - began.stat().st_mtime > patience:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "timeout"
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # whatever a test started
        return json.loads(result.read_text()) if result.exists() else "crashed"

    def measure(self) -> None:
        """Run all tests once: which lines each runs, and how long it takes."""
        found = self.in_child(self._covered)
        if isinstance(found, str) or found["failed"]:
            output = (self.tree / "output.txt").read_text()[-4000:]
            raise SystemExit(f"the tests fail without a mutant: {found}\n{output}")
        self.seconds = found["seconds"]
        for file, lines in found["lines"].items():
            self._running[file] = {int(line): set(tests) for line, tests in lines.items()}

    def _covered(self) -> dict[str, Any]:
        import coverage

        sys.dont_write_bytecode = False
        covering = coverage.Coverage(include=[f"{self.tree}/{folder}/*" for folder in FOLDERS], data_file=None)
        recorder = _Contexts(covering)
        covering.start()
        _pytest(list(TESTS), recorder)
        covering.stop()
        data, lines = covering.get_data(), {}
        for path in data.measured_files():
            file = Path(path).relative_to(self.tree).as_posix()
            lines[file] = data.contexts_by_lineno(path)
        return {"failed": recorder.failed, "seconds": recorder.seconds, "lines": lines}

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests that run the mutant's lines, the quick ones first.

        Of lines that run on import, or in a process that a test starts, it is all tests.
        """
        lines = self._running.get(mutant.file, {})
        tests = {test for line in range(mutant.line, mutant.last_line + 1) for test in lines.get(line, ())}
        if "" in tests or not tests:
            tests = set(self.seconds)
        nearby = {test.partition("::")[0] for running in lines.values() for test in running}
        return sorted(tests, key=lambda test: (test.partition("::")[0] not in nearby, self.seconds[test], test))

    def outcome(self, mutant: Mutant) -> str:
        """Return the first test that fails, "timeout", "crashed" or "survived"."""
        path = self.tree / mutant.file
        source, times = path.read_text(), path.stat()
        path.write_text(mutated(source, mutant))
        tests = self.tests_of(mutant)
        try:
            found = self.in_child(lambda: _failing(tests))
        finally:
            path.write_text(source)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        return str(found)


class _Contexts(Recorder):
    def __init__(self, covering: Any) -> None:
        super().__init__()
        self._covering = covering

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Lines that are run from here on are this test's."""
        super().pytest_runtest_logstart(nodeid)
        self._covering.switch_context(nodeid)

    def pytest_runtest_logfinish(self) -> None:
        """The next ones are nobody's."""
        self._covering.switch_context("")


def _failing(tests: Sequence[str]) -> str:
    recorder = Recorder()
    code = _pytest(["-x", *tests], recorder)
    if code == USAGE_ERROR:  # the mutant is in a test's name: its parameters hold a number that was changed
        code = _pytest(["-x", *sorted({test.partition("::")[0] for test in tests})], recorder)
    return recorder.failed[0] if recorder.failed else "survived" if code == 0 else "crashed"


def _pytest(arguments: list[str], recorder: Recorder) -> int:
    import pytest

    unused = (f"-pno:{plugin}" for plugin in ("cacheprovider", "pytest_cov", "xdist"))
    options = ["-q", "--tb=line", "-W", "ignore::pytest.PytestAssertRewriteWarning", *unused]
    return int(pytest.main([*options, *arguments], plugins=[recorder]))


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """Copy the tree and load what every mutant's process needs."""
    sys.dont_write_bytecode = True
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "ticketguard"]:
        del sys.modules[name]
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != ROOT]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / name, tree / name)
        (tree / "tmp").mkdir()
        os.environ |= {"PYTHONPATH": str(tree), "TMPDIR": str(tree / "tmp")}
        tempfile.tempdir = str(tree / "tmp")
        yield Bench(tree)


@functools.cache
def difference(mutant: Mutant) -> str:
    """Return the lines that a mutant changes, before and after."""
    source = (ROOT / mutant.file).read_text()
    lines = difflib.unified_diff(source.splitlines(), mutated(source, mutant).splitlines(), n=0, lineterm="")
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def main(arguments: Sequence[str] | None = None) -> None:
    """Test the mutants that the seed draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="mutants whose file and line hold this; nothing is written")
    parser.add_argument("--survivors", action="store_true", help="those that survived last; the others are kept")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    rows = [
        {**dataclasses.asdict(mutant), "difference": difference(mutant), "outcome": "survived"}
        for mutant in draw(DRAWN, SEED)
        if options.only in f"{mutant.file}:{mutant.line}"
    ]
    if options.survivors:
        last: dict[tuple[str, ...], list[str]] = {}
        for row in sorted(json.loads((FOLDER / "mutants.json").read_text())["raw"], key=lambda row: int(row["line"])):
            last.setdefault(_change(row), []).append(row["outcome"])
        for row in sorted(rows, key=lambda row: int(row["line"])):
            # Where the code has changed since, a mutant is tested for the first time.
            row["outcome"] = (last.get(_change(row)) or ["survived"]).pop(0)
    with bench() as tested:
        tested.measure()
        print(f"{len(tested.seconds)} tests pass without a mutant in {sum(tested.seconds.values()):.0f} s", flush=True)
        alive = [row for row in rows if row["outcome"] == "survived"]
        for number, row in enumerate(alive, start=1):
            row["outcome"] = tested.outcome(Mutant(**{name: row[name] for name in FIELDS}))
            if row["outcome"] == "survived":
                print(f"{row['file']}:{row['line']} survived\n{row['difference']}", flush=True)
            if number % 10 == 0:
                print(f"{number} of {len(alive)} after {time.monotonic() - begun:.0f} s", flush=True)
    killed = sum(row["outcome"] != "survived" for row in rows)
    print(f"{killed} of {len(rows)} mutants are dead, after {time.monotonic() - begun:.0f} s")
    if not options.only:
        write_result(
            "mutants",
            setting={"folders": FOLDERS, "tests": TESTS, "drawn": DRAWN},
            seeds=[SEED],
            raw=rows,
            bars={"share of mutants killed": Bar(value=killed / len(rows), bound=LEAST_KILLED, at_most=False)},
        )


def _change(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["file"], row["operator"], row["difference"]


if __name__ == "__main__":
    main()
