"""What `scripts/faults` runs once all is built: the tests of the table of faults, and what became of each row."""
import argparse
import collections
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from table import ROOT, ROWS, SIMULATED  # noqa: E402  (this folder is not a package)

PROGRAM_DEADLINE_S = 2400


@dataclasses.dataclass
class Outcome:
    passed: bool = False
    seconds: float = 0.0
    injected: collections.Counter = dataclasses.field(default_factory=collections.Counter)


class Runner:
    """Runs each program once with all the tests wanted of it; `outcomes[test]` is filled by and by."""

    def __init__(self, programs, tests, logs):
        self.programs, self.tests, self.logs = programs, tests, logs
        self.outcomes = {}

    def run(self, names):
        groups = {}
        for name in names:
            groups.setdefault(name.partition(":")[0], []).append(name)
        # The cheap ones first: what is broken altogether shows early.
        for program in sorted(groups, key=lambda one: ("/" in one, one)):
            began = time.monotonic()
            for name in groups[program]:
                self.outcomes[name] = Outcome()
            log = self.logs / (program.replace("/", "-") + ".log")
            if program == "educloud-sim":
                self._simulate(log)
            elif program == "bench/control":
                for name in groups[program]:
                    self._measure(name, log)
            else:
                self._tests(program, groups[program], log)
            bad = [name for name in groups[program] if not self.outcomes[name].passed]
            print(f"{program}: {len(groups[program]) - len(bad)} of {len(groups[program])} passed, {time.monotonic() - began:.0f} s",
                  file=sys.stderr, flush=True)
            for name in bad:
                print(f"  failed: {name}; {log}", file=sys.stderr, flush=True)

    def _call(self, words, log):
        with open(log, "ab") as out:
            try:
                return subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                      timeout=PROGRAM_DEADLINE_S, check=False, cwd=ROOT,
                                      env={**os.environ, "EDUCLOUD_BIN": str(self.programs)}).returncode
            except (OSError, subprocess.TimeoutExpired) as problem:
                out.write(f"{problem}\n".encode())
                return -1

    def _tests(self, program, names, log):
        cases = {name.partition(":")[2]: name for name in names}
        if program.startswith("e2e/"):
            words = ["/usr/bin/python3", ROOT / "tests/faults/run_methods.py", ROOT / "tests" / program, *cases]
        else:
            # With and without the names that parameters add.
            words = [self.tests / program, "--gtest_filter=" + ":".join(f"{case}:*/{case}/*" for case in cases)]
        self._call(words, log)
        told = collections.defaultdict(list)
        current = None
        for line in log.read_text(errors="replace").splitlines():
            begun = re.search(r"\[ RUN      \] (\S+)", line)
            ended = re.search(r"\[(       OK |  FAILED  )\] (\S+?),? .*?\((\d+) ms\)$", line)
            counted = re.search(r"\bFAULT ([a-z-]+) (\d+)$", line)
            if begun:
                current = cases.get(re.sub(r"^[^./]*/|/[^./]*$", "", begun.group(1)))
            elif ended and current is not None:
                told[current].append("OK" in ended.group(1))
                self.outcomes[current].seconds += int(ended.group(3)) / 1000
                current = None
            elif counted and current is not None:
                self.outcomes[current].injected[counted.group(1)] += int(counted.group(2))
        for name, results in told.items():
            self.outcomes[name].passed = all(results)

    def _simulate(self, log):
        began, outcome = time.monotonic(), self.outcomes["educloud-sim"]
        code = self._call([self.programs / "educloud-sim", "--seeds", os.environ.get("EDUCLOUD_FAULT_SEEDS", "1000")], log)
        for line in log.read_text().splitlines():
            if line.startswith("injected: "):
                for kind, count in re.findall(r"(\w+) (\d+)", line.partition(": ")[2]):
                    if kind in SIMULATED:
                        outcome.injected[SIMULATED[kind]] += int(count)
        outcome.passed, outcome.seconds = code == 0, time.monotonic() - began

    def _measure(self, name, log):
        began, outcome = time.monotonic(), self.outcomes[name]
        row, _, limit = name.partition(":")[2].partition(" < ")
        code = self._call(["/usr/bin/python3", ROOT / "bench/control/control.py", "--json", "--only", row, "--no-limit", "--bin",
                           self.programs], log)
        text = log.read_text()
        try:
            measured = json.loads(text[text.rindex("\n[") + 1:])[0]
        except (ValueError, IndexError):
            measured = {"ours": float("inf"), "nodes": 0}
        for one in ROWS:
            if name in one.tests:
                outcome.injected[one.name] += measured["nodes"]
        outcome.passed = code == 0 and measured["ours"] < float(limit)
        outcome.seconds = time.monotonic() - began


def result_of(row, outcomes):
    each = {name: outcomes[name] for name in row.tests}
    failed = sorted(name for name, one in each.items() if not one.passed)
    injected = sum(one.injected[row.name] for one in each.values())
    return {"row": row.name, "fault": row.fault, "what_holds": row.holds, "injected": injected, "passed": len(each) - len(failed),
            "failed": failed, "seconds": round(sum(one.seconds for one in each.values()), 1), "held": not failed and injected > 0}


def main():
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("--only", action="append", choices=[row.name for row in ROWS], metavar="ROW", help="only this row; may be repeated")
    parser.add_argument("--json", action="store_true", help="print the results as JSON; what happens goes to stderr")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument("--targets", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--programs", type=pathlib.Path, default=ROOT / "build/release/bin", help="where the daemons are")
    parser.add_argument("--tests", type=pathlib.Path, default=ROOT / "build/asan/bin", help="where the test programs are")
    options = parser.parse_args()
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    names = list(dict.fromkeys(name for row in rows for name in row.tests))
    if options.list:
        print("\n".join(f"{row.name:14} {row.fault}" for row in rows))
        return 0
    if options.targets:
        print(" ".join(sorted({name.partition(":")[0] for name in names if "/" not in name} - {"educloud-sim"})))
        return 0
    logs = pathlib.Path(tempfile.mkdtemp(prefix="educloud-faults-"))
    runner = Runner(options.programs.resolve(), options.tests.resolve(), logs)
    runner.run(names)
    results = [result_of(row, runner.outcomes) for row in rows]
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        print(f"{'fault':36} {'injected':>8}  {'held':14} {'seconds':>7}")
        for one in results:
            held = f"{'yes' if one['held'] else 'NO'}, {one['passed']} of {one['passed'] + len(one['failed'])}"
            print(f"{one['fault']:36} {one['injected']:8}  {held:14} {one['seconds']:7.1f}")
    held = sum(one["held"] for one in results)
    if held == len(results):
        for path in logs.iterdir():
            path.unlink()
        logs.rmdir()
    else:
        print(f"logs: {logs}", file=sys.stderr)
    print(f"{held} rows held, {len(results) - held} did not", file=sys.stderr if options.json else sys.stdout)
    return 0 if held == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
