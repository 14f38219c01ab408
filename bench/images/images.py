"""`scripts/bench images`: the image path against rsync, bsdtar, nbdcopy and sendfile, on hosts made of network namespaces."""
import argparse
import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.realpath(os.path.join(HERE, "../.."))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests/e2e")]

from data import MIB, data_bytes, make_disk, update_disk  # noqa: E402
from lab import Lab  # noqa: E402
from rows import GBIT, Race  # noqa: E402

ROWS = ["first_copy", "first_copy_loopback", "two_hops", "four_nodes", "update", "update_loopback", "submit", "resume", "ten_versions",
        "memory"]


def overlay_of(old, new, path):
    """A qcow2 overlay on `old` that makes it `new`: what a guest that was updated leaves behind."""
    if os.path.exists(path):
        os.unlink(path)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", new, "-F", "raw", path], check=True)
    # With `new` as its backing file rebase writes exactly the clusters in which the two differ.
    subprocess.run(["qemu-img", "rebase", "-f", "qcow2", "-b", old, "-F", "raw", path], check=True)


def prepare(folder, wanted):
    """The disks, made once and kept."""
    disks = {name: os.path.join(folder, f"{name}.raw") for name in ("big", "big2", "small")}
    if not os.path.exists(disks["big"]):
        make_disk(disks["big"], 10 << 30, 2053 * MIB)
    if not os.path.exists(disks["big2"]):
        update_disk(disks["big"], disks["big2"], 0.03)
    if not os.path.exists(disks["small"]):
        make_disk(disks["small"], (10 << 30) // 4, 513 * MIB)
    disks["overlay"] = os.path.join(folder, "overlay.qcow2")
    if "submit" in wanted and not os.path.exists(disks["overlay"]):
        overlay_of(disks["big"], disks["big2"], disks["overlay"])

    def series():
        """Ten disks, one after the other."""
        before, now = os.path.join(folder, "before.raw"), os.path.join(folder, "now.raw")
        yield disks["big"]
        yield disks["big2"]
        subprocess.run(["cp", "--sparse=always", disks["big2"], before], check=True)
        for seed in range(8):
            update_disk(before, now, 0.03, seed)
            yield now
            os.replace(now, before)
        os.unlink(before)
    disks["series"] = series
    return disks


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench images", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON; what happens goes to stderr")
    parser.add_argument("--runs", type=int, default=3, help="of ours, median counts (default 3); the others run once")
    parser.add_argument("--only", action="append", choices=ROWS, help="only this row; may be repeated")
    parser.add_argument("--no-rsync", action="store_true", help="leave rsync out of the first copies (it takes minutes)")
    parser.add_argument("--no-peers", action="store_true", help="ours only: quick, for work on it")
    parser.add_argument("--dir", default="/var/tmp/educloud-bench", help="where disks and stores are")
    parser.add_argument("--driver", default=os.path.join(ROOT, "build/release/bin/bench_images"))
    options = parser.parse_args()
    wanted = options.only or ROWS

    def note(text):
        print(text, file=sys.stderr, flush=True)
    os.makedirs(options.dir, exist_ok=True)
    work = os.path.join(options.dir, "work")
    shutil.rmtree(work, ignore_errors=True)
    disks = prepare(options.dir, wanted)
    note(f"big: {data_bytes(disks['big']) / MIB:.0f} MiB of data, small: {data_bytes(disks['small']) / MIB:.0f} MiB")
    with Lab() as lab:
        race = Race(lab, options.driver, work, disks, options.runs, note, not options.no_peers)
        steps = {"first_copy": lambda: race.first_copy(GBIT, "first_copy", not options.no_rsync),
                 "first_copy_loopback": lambda: race.first_copy(None, "first_copy_loopback", not options.no_rsync),
                 "two_hops": race.two_hops, "four_nodes": race.four_nodes, "update": lambda: race.update(GBIT, "update"),
                 "update_loopback": lambda: race.update(None, "update_loopback"), "submit": race.submit,
                 "resume": race.resume, "ten_versions": race.ten_versions, "memory": race.memory}
        try:
            for name in ROWS:
                if name in wanted:
                    note(name)
                    steps[name]()
        finally:
            shutil.rmtree(work, ignore_errors=True)
    if options.json:
        print(json.dumps(race.rows, indent=1))
    else:
        for row in race.rows:
            against = "" if not row["peer"] else f"   {row['peer_name']} {row['peer']:.2f} ({row['ratio_to_peer']}x)"
            limit = "" if not row["limit"] else f"   limit {row['limit']:.2f} ({row['ratio_to_limit']} of it: {row['limit_name']})"
            print(f"{row['name']:20} {row['ours']:9.2f} {row['unit']}{against}{limit}")


if __name__ == "__main__":
    main()
