#!/usr/bin/python3
"""The image path on four hosts with real guests: what crosses which cable, what lies where, and that nothing is lost."""
import hashlib
import json
import os
import pathlib
import random
import re
import subprocess
import threading
import time
import unittest

from cloud import BIN, Cloud
from cloud_cli import CommandError
from lab import injected, wait_until

MIB = 1 << 20
EXIT_CONFLICT = 5


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Images(unittest.TestCase):
    """One cloud for all: the tests run in the order of their names, each using what the ones before made."""

    @classmethod
    def setUpClass(cls):
        cls.report = []
        cls.cloud = cls.enterClassContext(Cloud(nodes=2))
        cls.cli = cls.cloud.cli

    @classmethod
    def tearDownClass(cls):
        print("\nREPORT images on hosts main (clc, walrus), cc1, nc1, nc2; guests under TCG")
        for line in cls.report:
            print("  " + line)

    def setUp(self):
        self.began = time.monotonic()
        self.note = ""

    def tearDown(self):
        self.report.append(f"{self._testMethodName[5:]:<44} {time.monotonic() - self.began:6.1f} s{self.note}")

    def sent(self, host):
        """Bytes that left a host so far."""
        def read():
            with open(f"/proc/{self.cloud.hosts[host].namespaces.pid}/net/dev", encoding="ascii") as file:
                line = next(line for line in file if line.strip().startswith("eth0:"))
            return int(line.partition(":")[2].split()[8])
        return read()

    def machine(self, node, version):
        return self.cloud.storage(node) / "images" / self.image / f"versions/{version}/machine"

    def walrus_tool(self, *words, check=True):
        done = self.cloud.main.run([BIN / "educloud", "walrus", *words, "--config", self.cloud.config_files["walrus"], "--json"],
                                   check=False, timeout_s=300)
        if check:
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done

    def modify(self):
        """A MODIFY task whose guest runs; its tid and guest."""
        task = self.cli("image", "modify", self.image, "--memory-mib", 160, "--wait", "--timeout", 300)
        return task["tid"], self.cloud.guest(task["tid"].split(":")[2])

    # -- one version to everybody --------------------------------------------------------------------------------------

    def test_10_import_of_a_disk_with_more_in_it(self):
        """The sample guest with 96 MiB of noise behind its partitions: enough to see who carries it."""
        raw = self.cloud.dir / "disk.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", self.cloud.lab.sample_image(), raw], check=True, timeout=120)
        noise = random.Random(3)
        with open(raw, "r+b") as file:
            type(self).guest_bytes = file.seek(0, os.SEEK_END)
            file.seek(64 * MIB + self.guest_bytes)
            for _ in range(96):
                file.write(noise.randbytes(MIB))
            file.truncate(file.tell() + 1024 * MIB)
        type(self).disk, type(self).digest = raw, sha256(raw)
        type(self).image = self.cli.import_image(raw, "noisy")
        version, = self.cli("image", "versions", self.image)["items"]
        self.assertGreater(version["size_bytes"], 96 * MIB)
        self.assertLess(version["size_bytes"], 200 * MIB, "holes are not counted")
        self.assertEqual(version["virtual_size_bytes"], raw.stat().st_size)

    def test_11_push_to_two_nodes_crosses_each_cable_about_once(self):
        walrus, cc = self.sent("main"), self.sent("cc1")
        # Slow enough that the two are at work at the same time.
        for node in ("nc1", "nc2", "cc1"):
            self.cloud.limit_rate(node, "200mbit")
        self.cli("image", "push", self.image, "--node", "nc1", "--node", "nc2", "--wait", "--timeout", 300)
        for node in ("nc1", "nc2", "cc1"):
            self.cloud.limit_rate(node, None)
        size = self.cli("image", "versions", self.image)["items"][0]["size_bytes"]
        walrus, cc = self.sent("main") - walrus, self.sent("cc1") - cc
        self.note = f"   data {size / MIB:.0f} MiB, walrus sent {walrus / MIB:.0f}, cc {cc / MIB:.0f} MiB"
        self.assertLess(walrus, 1.25 * size, "each chunk once over the uplink")
        self.assertLess(cc, 1.6 * size, "the nodes helped each other")
        for node in ("nc1", "nc2"):
            self.assertEqual(sha256(self.machine(node, 1)), self.digest)
            kept = self.cloud.storage(node)
            self.assertEqual([str(p) for p in (kept / "tmp/staging").glob("*") if p.is_file()], [], "nothing half is left")

    def test_12_push_again_says_that_it_is_there(self):
        wait_until(lambda: "present" in json.dumps(self.cli("image", "push", self.image, "--node", "nc1")), 60,
                   "the heartbeat to tell what the node has")

    def test_13_curl_reads_a_range_by_a_signed_url(self):
        url = self.cli.raw("image", "url", self.image).strip()
        part = self.cloud.main.run(["bash", "-c", 'curl -sf --range 67108864-68157439 "$1" | sha256sum', "-", url]).stdout.split()[0]
        with open(self.disk, "rb") as file:
            file.seek(64 * MIB)
            self.assertEqual(part, hashlib.sha256(file.read(MIB)).hexdigest())
        forged = re.sub(r"sig=..", "sig=00", url)
        self.assertEqual(self.cloud.main.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", forged]).stdout, "403")

    def test_14_export_gives_the_disk_back(self):
        out = self.cloud.dir / "exported.raw"
        self.cli("image", "export", self.image, "-o", out)
        self.assertEqual(sha256(out), self.digest)
        self.assertLess(out.stat().st_blocks * 512, 250 * MIB, "sparse")
        local = self.cloud.dir / "local.qcow2"
        self.walrus_tool("export", self.image, "-o", local, "--format", "qcow2")
        subprocess.run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", local, self.disk], check=True, timeout=120,
                       stdout=subprocess.DEVNULL)

    # -- what changed, and only that -------------------------------------------------------------------------------------

    def test_20_a_modify_moves_what_changed(self):
        insid = self.cli("vm", "define", "--image", self.image, "--name", "old", "--type", "vdsmall", "--memory-mib", 160, "--node",
                         "nc1")["insid"]
        type(self).desktop = insid
        self.cli.run(insid)
        tid, guest = self.modify()
        guest.add_note("second")
        self.cli.stop(tid.split(":")[2])
        before = {host: self.sent(host) for host in ("nc1", "nc2", "cc1")}
        self.cli.submit(tid)
        sent = {host: self.sent(host) - count for host, count in before.items()}
        self.note = f"   nodes sent {(sent['nc1'] + sent['nc2']) / MIB:.1f} MiB, cc {sent['cc1'] / MIB:.1f} MiB"
        self.assertEqual(self.cli.current_version(self.image), 2)
        self.assertLess(sent["nc1"] + sent["nc2"], 24 * MIB)
        self.assertLess(sent["cc1"], 24 * MIB)

    def test_21_the_update_moves_what_changed(self):
        cc = self.sent("cc1")
        self.cli("image", "push", self.image, "--node", "nc1", "--node", "nc2", "--wait", "--timeout", 300)
        cc = self.sent("cc1") - cc
        self.note = f"   cc sent {cc / MIB:.1f} MiB to two nodes"
        self.assertLess(cc, 32 * MIB)
        # The desktop still runs on version 1, which is still what it was.
        self.assertEqual(sha256(self.machine("nc1", 1)), self.digest)
        self.assertNotIn("second", self.cloud.guest(self.desktop).notes())
        self.assertIn(self.desktop, self.cloud.libvirtd["nc1"].virsh("list", "--name"))

    def test_22_the_next_start_has_it(self):
        self.cli.stop(self.desktop)
        self.cli.run(self.desktop)
        self.assertIn("second", self.cloud.guest(self.desktop).notes())
        self.cli.stop(self.desktop)

    def test_23_diff_and_stats(self):
        diff = self.cli("image", "diff", self.image, 1, 2)
        moved = diff["changed_bytes"] + diff["added_bytes"]
        self.assertGreater(moved, 0)
        self.assertLess(moved, 24 * MIB)
        stats = json.loads(self.walrus_tool("stats").stdout)
        self.note = f"   {json.dumps({k: v for k, v in stats.items() if isinstance(v, int)})}"

    # -- two people change one image ---------------------------------------------------------------------------------------

    def test_30_the_second_submit_has_a_clear_choice(self):
        first, guest = self.modify()
        guest.add_note("by-the-first")
        second, other = self.modify()
        other.add_note("by-the-second")
        for tid in (first, second):
            self.cli.stop(tid.split(":")[2])
        self.cli.submit(first)
        self.assertEqual(self.cli.current_version(self.image), 3)
        with self.assertRaises(CommandError) as refused:
            self.cli.submit(second)
        self.assertEqual(refused.exception.code, EXIT_CONFLICT)
        for word in ("version 2", "version 3", "replace", "cancel"):
            self.assertIn(word, refused.exception.output)
        self.cli("image", "submit", second, "--on-conflict", "replace", "--wait", "--timeout", 300, timeout_s=330)
        self.assertEqual(self.cli.versions(self.image), [1, 2, 3, 4])
        self.assertEqual(self.cli.current_version(self.image), 4)
        vm = self.cli.run(self.desktop)
        notes = self.cloud.guest(vm["insid"]).notes()
        self.assertIn("by-the-second", notes)
        self.assertNotIn("by-the-first", notes)
        self.cli.stop(self.desktop)

    # -- cuts --------------------------------------------------------------------------------------------------------------

    def test_40_a_node_killed_at_half_goes_on_there(self):
        """nc2 forgets everything, fetches slowly, is killed, starts again: it does not begin anew."""
        self.cloud.daemons["nc2"].stop(deadline_s=60)
        subprocess.run(["rm", "-rf", str(self.cloud.storage("nc2") / "images")], check=True)
        self.cloud.start("nc2")
        self.cloud.wait_healthy("nc2")
        self.cloud.wait_node("nc2", "up")
        received = lambda: self.received("nc2")  # noqa: E731
        self.cloud.limit_rate("nc2", "60mbit")
        start = received()
        pushed = {}

        def push():
            pushed["done"] = self.cli("image", "push", self.image, "--version", 1, "--node", "nc2", "--wait", "--timeout", 300,
                                      timeout_s=330)
        pusher = threading.Thread(target=push)
        pusher.start()
        wait_until(lambda: received() - start > 70 * MIB, 120, "most of the image to arrive")
        self.cloud.restart("nc2")
        injected("transfer-cut")
        again = received()
        pusher.join()
        self.cloud.limit_rate("nc2", None)
        self.assertIn("done", pushed)
        again = received() - again
        size = next(v["size_bytes"] for v in self.cli("image", "versions", self.image)["items"] if v["version"] == 1)
        self.note = f"   after the kill {again / MIB:.0f} of {size / MIB:.0f} MiB"
        self.assertLess(again, 0.8 * size)
        self.assertEqual(sha256(self.machine("nc2", 1)), self.digest)

    def received(self, host):
        with open(f"/proc/{self.cloud.hosts[host].namespaces.pid}/net/dev", encoding="ascii") as file:
            line = next(line for line in file if line.strip().startswith("eth0:"))
        return int(line.partition(":")[2].split()[0])

    def test_41_a_restarted_cc_has_its_cache_still(self):
        self.cloud.restart("cc1")
        walrus = self.sent("main")
        self.cloud.daemons["nc2"].stop(deadline_s=60)
        subprocess.run(["rm", "-rf", str(self.cloud.storage("nc2") / "images")], check=True)
        self.cloud.start("nc2")
        self.cloud.wait_healthy("nc2")
        self.cloud.wait_node("nc2", "up")

        def pushed():  # "present" as long as clc remembers what the node had before
            self.cli("image", "push", self.image, "--version", 1, "--node", "nc2", "--wait", "--timeout", 300, timeout_s=330)
            return self.machine("nc2", 1).exists()
        wait_until(pushed, 120, "the push")
        walrus = self.sent("main") - walrus
        self.note = f"   walrus sent {walrus / MIB:.1f} MiB"
        self.assertLess(walrus, 16 * MIB)

    # -- lazy start --------------------------------------------------------------------------------------------------------

    def test_50_a_lazy_start_does_not_wait_for_the_image(self):
        times = {}
        for way in ("waiting", "lazy"):
            self.cloud.daemons["nc2"].stop(deadline_s=60)
            subprocess.run(["rm", "-rf", str(self.cloud.storage("nc2") / "images")], check=True)
            self.cloud.start("nc2")
            self.cloud.wait_healthy("nc2")
            self.cloud.wait_node("nc2", "up")
            insid = self.cli("vm", "define", "--image", self.image, "--name", way, "--type", "vdsmall", "--memory-mib", 160, "--node",
                             "nc2")["insid"]
            self.cloud.limit_rate("nc2", "40mbit")
            start = time.monotonic()
            words = ["--lazy"] if way == "lazy" else []
            self.cli("vm", "run", insid, *words, "--wait", "--timeout", 300, timeout_s=330)
            self.cloud.guest(insid)
            times[way] = time.monotonic() - start
            if way == "lazy":
                # The node is killed under the guest and comes back: the guest reads on.
                self.cloud.restart("nc2")
                guest = self.cloud.guest(insid)
                guest.add_note("after-the-kill")
                self.assertIn("after-the-kill", guest.notes())
            self.cloud.limit_rate("nc2", None)
            self.cli.stop(insid)
        self.note = f"   {', '.join(f'{way} {taken:.1f} s' for way, taken in times.items())} at 40 Mbit/s"
        self.assertLess(times["lazy"], times["waiting"])

    # -- the store ---------------------------------------------------------------------------------------------------------

    def test_60_fsck_names_a_flipped_bit(self):
        clean = self.walrus_tool("fsck")
        self.assertEqual(json.loads(clean.stdout)["damage_count"], 0)
        packs = sorted((self.cloud.storage("walrus") / "chunks/packs").glob("*.pack"), key=lambda p: p.stat().st_size)
        pack = pathlib.Path(packs[-1])
        with open(pack, "r+b") as file:
            file.seek(pack.stat().st_size // 2)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 4]))
        found = self.walrus_tool("fsck", check=False)
        self.assertEqual(found.returncode, 1)
        self.assertIn(pack.name, found.stdout)
        self.assertIn(self.image, found.stdout)
        with open(pack, "r+b") as file:
            file.seek(pack.stat().st_size // 2)
            file.write(bytes([byte]))
        self.walrus_tool("fsck")


if __name__ == "__main__":
    unittest.main()
