#!/usr/bin/python3
"""Rules of the project that a compiler does not check. Each test names the file and the line it refuses."""
import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/faults"))

import table as fault_table  # noqa: E402  (tests/faults is not a package)

CODE = sorted(p for top in ("src", "tests") for p in (ROOT / top).rglob("*") if p.suffix in (".cpp", ".hpp"))
SOURCES = [p for p in CODE if p.is_relative_to(ROOT / "src")]
SCRIPTS = sorted(p for top in ("scripts", "tests", ".ci") for p in (ROOT / top).rglob("*")
                 if p.is_file() and (p.suffix in (".py", ".sh") or p.read_bytes()[:2] == b"#!"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70


def rel(path):
    return str(path.relative_to(ROOT))


def table_rows(marker):
    """Rows of the markdown table after `<!-- marker: ... -->` in ARCHITECTURE.md, as lists of cells."""
    text = (ROOT / "docs/ARCHITECTURE.md").read_text()
    block = re.search(rf"<!-- {marker}:.*?-->\n(.*?)<!-- end -->", text, re.S).group(1)
    rows = [[c.strip() for c in line.strip().strip("|").split("|")] for line in block.splitlines() if line.startswith("|")]
    return rows[2:]


def part_of(path):
    """common/bus for src/common/bus/x.cpp, cli for src/cli/x.cpp."""
    pieces = path.relative_to(ROOT / "src").parts
    return pieces[0] if pieces[0] == "cli" else "/".join(pieces[:2])


def without_strings(text):
    """The code with comments and literals blanked, line structure kept."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    text = re.sub(r'R"(\w*)\((?:.|\n)*?\)\1"', blank, text)
    return re.sub(r'//[^\n]*|/\*(?:.|\n)*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'', blank, text)


class Includes(unittest.TestCase):
    def test_follow_the_table_of_parts(self):
        allowed = {row[0].strip("`"): {u.strip() for u in row[2].split(",") if u.strip()} for row in table_rows("parts")}
        found = {part_of(p) for p in SOURCES}
        self.assertEqual(sorted(found - set(allowed)), [], "a part that docs/ARCHITECTURE.md does not know")
        self.assertEqual(sorted(set(allowed) - found), [], "a part of docs/ARCHITECTURE.md that does not exist")
        wrong = []
        for path in SOURCES:
            own = part_of(path)
            may = {u if "/" in u else f"common/{u}" for u in allowed[own]} | {own}
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = re.match(r'#include "([^"]+)"', line)
                if not match:
                    continue
                pieces = match.group(1).split("/")
                used = "cli" if pieces[0] == "cli" else "/".join(pieces[:2])
                if used not in may:
                    wrong.append(f"{rel(path)}:{number}: {own} may not include {match.group(1)}")
        self.assertEqual(wrong, [])

    def test_domain_is_pure(self):
        impure = re.compile(r"#include <(boost/|asio|SQLiteCpp/|sqlite3|libvirt/|amqp|rabbitmq|toml|spdlog/)")
        wrong = [f"{rel(p)}: {line}" for p in SOURCES if "domain" in p.parts
                 for line in p.read_text().splitlines() if impure.match(line)]
        self.assertEqual(wrong, [])

    def test_only_the_simulator_repeats_random_numbers(self):
        wrong = [rel(p) for p in SOURCES if "RepeatableRandom" in p.read_text()
                 and part_of(p) not in ("common/base", "sim/world")]
        self.assertEqual(wrong, [])

    def test_heavy_headers_stay_in_cpp_files(self):
        heavy = re.compile(r"#include <(boost/(asio|beast)|SQLiteCpp/|toml|spdlog/|prometheus/)")
        # A header that no other part includes is a matter of its own part.
        used_outside = {match for p in CODE for match in re.findall(r'#include "([^"]+)"', p.read_text())
                        if not p.is_relative_to(ROOT / "src") or part_of(p) != part_of(ROOT / "src" / match)}
        wrong = [f"{rel(p)}: {line}" for p in SOURCES if p.suffix == ".hpp" and str(p.relative_to(ROOT / "src")) in used_outside
                 for line in p.read_text().splitlines() if heavy.match(line)]
        self.assertEqual(wrong, [])

    def test_headers_have_pragma_once(self):
        self.assertEqual([rel(p) for p in CODE if p.suffix == ".hpp" and "#pragma once" not in p.read_text()], [])


class Coroutines(unittest.TestCase):
    """GCC 12 miscompiles these silently (docs/adr/0006)."""

    def test_an_await_stands_alone(self):
        traps = [
            (re.compile(r"\b(if|while|switch|for)\s*\(.*\bco_await\b"), "co_await in a condition"),
            (re.compile(r"\?[^;]*\bco_await\b|\bco_await\b[^;]*\?"), "co_await in a conditional expression"),
            (re.compile(r"\bco_await\b[^;]*\["), "a lambda inside the awaiting expression"),
            (re.compile(r"\bco_await\b[^;]*\{"), "a braced aggregate inside the awaiting expression"),
        ]
        wrong = []
        for path in CODE:
            text = without_strings(path.read_text())
            for match in re.finditer(r"[^;{}]*\bco_await\b[^;]*;", text):
                statement = " ".join(match.group(0).split())
                number = text[:match.start()].count("\n") + 1
                wrong += [f"{rel(path)}:{number}: {why}: {statement[:100]}" for trap, why in traps if trap.search(statement)]
        self.assertEqual(wrong, [])


class Size(unittest.TestCase):
    def test_files(self):
        long = [f"{rel(p)}: {n} lines" for p in CODE + SCRIPTS if (n := len(p.read_text().splitlines())) > MAX_FILE_LINES]
        self.assertEqual(long, [])

    def test_functions(self):
        # A function's body opens at the end of a line that closes a parameter list, at indent 0 (or 2 in a class).
        opening = re.compile(r"^(  )?[A-Za-z_~:<>].*\)\s*(const|noexcept|override|->\s*[\w:<>]+|\s)*\{$")
        long = []
        for path in CODE:
            start = None
            for number, line in enumerate(without_strings(path.read_text()).splitlines(), 1):
                if start is None and opening.match(line) and not re.match(r"^\s*(if|for|while|switch|namespace)\b", line):
                    start, indent = number, len(line) - len(line.lstrip())
                elif start is not None and line.rstrip() in (" " * indent + "}", " " * indent + "};"):
                    if number - start > MAX_FUNCTION_LINES:
                        long.append(f"{rel(path)}:{start}: {number - start} lines")
                    start = None
        self.assertEqual(long, [])


class Text(unittest.TestCase):
    def test_code_is_formatted(self):
        run = subprocess.run(["clang-format", "--dry-run", "-Werror", *map(str, CODE)], capture_output=True, text=True, cwd=ROOT)
        first = [line for line in run.stderr.splitlines() if "error:" in line]
        self.assertEqual(first[:10], [], "run scripts/format")

    def test_nothing_is_left_unfinished(self):
        word = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")
        wrong = [f"{rel(p)}:{n}" for p in CODE + SCRIPTS for n, line in enumerate(p.read_text().splitlines(), 1) if word.search(line)]
        self.assertEqual(wrong, [])

    def test_no_test_is_skipped(self):
        word = re.compile(r"GTEST_" r"SKIP|\bDIS" r"ABLED_|unittest\.sk" r"ip|self\.skip" r"Test")
        wrong = [f"{rel(p)}:{n}" for p in CODE + SCRIPTS for n, line in enumerate(p.read_text().splitlines(), 1) if word.search(line)]
        self.assertEqual(wrong, [])

    def test_no_fixed_sleeps_in_cpp_tests(self):
        wrong = [f"{rel(p)}:{n}" for p in CODE if p.is_relative_to(ROOT / "tests")
                 for n, line in enumerate(p.read_text().splitlines(), 1)
                 if re.search(r"sleep_for\(\s*(std::chrono::)?(seconds|[0-9]+s\b)", line)]
        self.assertEqual(wrong, [], "wait for the event with a deadline")

    def test_links_in_docs_lead_somewhere(self):
        wrong = []
        for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
            for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
                if "://" not in target and not (path.parent / target).exists():
                    wrong.append(f"{rel(path)}: {target}")
        self.assertEqual(wrong, [])


class Messages(unittest.TestCase):
    def test_both_ends_of_each_arrow_name_it(self):
        wrong = []
        for sender, exchange, receiver, queue, _ in table_rows("messages"):
            for daemon, name in ((sender, exchange.strip("`")), (receiver, queue.strip("`"))):
                files = [p for p in SOURCES if p.is_relative_to(ROOT / "src" / daemon)]
                if not any(f'"{name}' in p.read_text() for p in files):
                    wrong.append(f"src/{daemon} never names {name}")
        self.assertEqual(wrong, [])

    def test_examples_satisfy_their_schemas(self):
        import jsonschema
        schemas = sorted((ROOT / "proto").glob("*.schema.json"))
        self.assertGreaterEqual(len(schemas), 4)
        for path in schemas:
            schema = json.loads(path.read_text())
            jsonschema.Draft202012Validator.check_schema(schema)
            example = json.loads(path.with_name(path.name.replace(".schema.", ".example.")).read_text())
            jsonschema.validate(example, schema, cls=jsonschema.Draft202012Validator)


class FaultTable(unittest.TestCase):
    def test_names_tests_that_exist_and_that_count(self):
        self.assertEqual(fault_table.problems(), [])

    def test_is_what_the_document_says(self):
        if os.environ.get("EDUCLOUD_UPDATE_DOCS") == "1":
            fault_table.DOCUMENT.write_text(fault_table.markdown())
        self.assertEqual(fault_table.DOCUMENT.read_text(), fault_table.markdown(),
                         "tests/faults/table.py changed: EDUCLOUD_UPDATE_DOCS=1 tests/lint/lint_test.py FaultTable")


class Packages(unittest.TestCase):
    def test_a_node_ends_before_its_guests_are_shut_down(self):
        for unit in ("educloud-nc", "educloud-nc.educloud-nc-watchdog"):
            text = (ROOT / f"packaging/deb/{unit}.service").read_text()
            self.assertRegex(text, r"(?m)^After=.*\blibvirt-guests\.service virt-guest-shutdown\.target$",
                             "else a guest that the host shuts down is taken for one that its user ended")

    def test_every_script_is_executable_and_has_an_interpreter(self):
        wrong = [rel(p) for p in SCRIPTS if p.read_bytes()[:2] == b"#!" and not p.stat().st_mode & 0o111]
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main()
