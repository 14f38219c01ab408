"""`scripts/bench control`: the control path against OpenNebula's figures, and against a bare loop of the same rows and messages."""
import argparse
import json
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.realpath(os.path.join(HERE, "../.."))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests/e2e")]

from lab import Lab  # noqa: E402
from rows import ROWS, Race  # noqa: E402


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench control", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON; what happens goes to stderr")
    parser.add_argument("--runs", type=int, default=3, help="of the short rows; the median counts (default 3)")
    parser.add_argument("--only", action="append", choices=ROWS, help="only this row; may be repeated")
    parser.add_argument("--no-limit", action="store_true", help="leave the bare loops out: quick, for work on it")
    parser.add_argument("--bin", default=os.path.join(ROOT, "build/release/bin"), help="where the programs are")
    options = parser.parse_args()

    def note(text):
        print(text, file=sys.stderr, flush=True)
    with Lab() as lab:
        race = Race(lab, options.bin, options.only or ROWS, options.runs, not options.no_limit, note)
        race.run()
    if options.json:
        print(json.dumps(race.rows, indent=1))
        return
    for row in race.rows:
        against = "" if row["peer"] is None else f"   peer {row['peer']:.2f} ({row['ratio_to_peer']}x)"
        limit = "" if row["limit"] is None else f"   limit {row['limit']:.2f} ({row['ratio_to_limit']} of it: {row['limit_name']})"
        print(f"{row['name']:18} {row['ours']:9.3f} {row['unit']}{against}{limit}")


if __name__ == "__main__":
    main()
