#!/usr/bin/python3
"""What a host may do to its daemons: I/O errors, clocks that jump, an end at any commit, publish or ack. A preloaded library does it
(lab/faulty.c); daemons, broker, libvirt and guests are real."""
import os
import random
import re
import sqlite3
import subprocess
import time
import unittest

from cloud import BIN, Cloud, set_keys
from cloud_cli import CommandError
from lab import injected, wait_until
from lab.faulty import Orders, build_library

HOUR = 3600
ROUNDS = int(os.environ.get("EDUCLOUD_FAULT_ROUNDS", "2"))


class HostFaults(unittest.TestCase):
    """One cloud for all. Each test leaves the daemons in order and the desktop stopped."""

    @classmethod
    def setUpClass(cls):
        cls.report = []
        cls.cloud = cls.enterClassContext(Cloud(nodes=1, min_disk_gib=0))
        cls.cli = cls.cloud.cli
        # Nobody works in these guests: they need not be up to be stopped.
        set_keys(cls.cloud.config_files["nc1"], {"stop_grace_s": 1})
        folder = cls.cloud.dir / "faults"
        folder.mkdir()
        library = build_library(folder)
        cls.orders = {name: Orders(library, str(folder / name)) for name in ("clc", "cc1", "nc1")}
        for name, orders in cls.orders.items():
            cls.cloud.env[name] = orders.env
            cls.cloud.restart(name)
        cls.cloud.wait_node("nc1", "up")
        cls.image = cls.cli.import_image(cls.cloud.lab.sample_image(), "sample")
        cls.cli("image", "push", cls.image, "--cluster", "cc1", "--wait")
        cls.insid = cls.cli.define(cls.image, "desktop")

    @classmethod
    def tearDownClass(cls):
        print("\nREPORT faults of hosts: main (clc, walrus), cc1, nc1; guests under TCG")
        for line in cls.report:
            print("  " + line)

    def setUp(self):
        self.began, self.note = time.monotonic(), ""

    def tearDown(self):
        for orders in self.orders.values():
            orders.nothing()
        self.report.append(f"{self._testMethodName[5:]:<56} {time.monotonic() - self.began:6.1f} s{self.note}")

    def domains(self):
        return self.cloud.libvirtd["nc1"].virsh("list", "--name").split()

    def state(self, insid=None):
        return self.cli("vm", "show", insid or self.insid)["state"]

    def logs(self):
        return [process.log for process in self.cloud.daemons.values()]

    # -- disks ---------------------------------------------------------------------------------------------------------

    def test_10_io_errors_on_the_node_leave_no_half_image(self):
        file = self.cloud.lab.sample_image("second")
        imgid = self.cli.import_image(file, "second")
        insid = self.cli.define(imgid, "on-a-bad-disk")
        orders = self.orders["nc1"]
        shown = self.cloud.storage("nc1") / "images" / imgid / "machine"
        for every in (1, 2, 3, 5):
            orders.fail_writes(str(self.cloud.storage("nc1")), every)
            try:
                self.cli.run(insid, timeout_s=60)
                self.assertNotEqual(every, 1)
                orders.nothing()
                self.cli.stop(insid)
            except CommandError as refused:
                self.assertRegex(refused.output, r"(?i)input/output|i/o error")
                self.assertEqual(self.domains(), [])
                if not shown.exists():
                    continue
            # It is shown: then it is whole.
            subprocess.run(["qemu-img", "compare", "-U", shown, file], check=True, timeout=120, stdout=subprocess.DEVNULL)
        orders.nothing()
        injected("bad-disk", orders.failed)
        self.note = f"   {orders.failed} writes and syncs failed"
        self.assertGreater(orders.failed, 0)
        self.cli.run(insid)
        subprocess.run(["qemu-img", "compare", "-U", shown, file], check=True, timeout=120, stdout=subprocess.DEVNULL)
        self.cloud.guest(insid)
        self.cli("vm", "delete", insid, "--wait")
        self.cli("image", "delete", imgid, "--wait")

    def test_11_io_errors_in_the_databases_lose_nothing(self):
        # The node's inbox: the command is not acked, so it comes again.
        orders = self.orders["nc1"]
        before = orders.failed
        orders.fail_writes("inbox.sqlite")
        tid = self.cli("vm", "run", self.insid)["task"]["tid"]
        wait_until(lambda: orders.failed > before, 30, "the inbox to meet the fault", self.logs())
        orders.nothing()
        failed = orders.failed - before
        self.cloud.wait_task(tid, ["editing/running"], 120)
        self.cli.stop(self.insid)
        # clc's book: what cannot be written is refused, and reads go on.
        orders, before = self.orders["clc"], self.orders["clc"].failed
        orders.fail_writes("clc.sqlite")
        with self.assertRaises(CommandError) as refused:
            self.cli.define(self.image, "not-written")
        self.assertNotEqual(refused.exception.code, 0)
        self.assertEqual(self.state(), "stopped")
        orders.nothing()
        failed += orders.failed - before
        injected("bad-disk", failed)
        self.note = f"   {failed} writes and syncs failed"
        self.assertGreater(orders.failed, before)
        self.assertEqual([vm["name"] for vm in self.cli("vm", "list")["items"]], ["desktop"])
        insid = self.cli.define(self.image, "written")
        with sqlite3.connect(next(self.cloud.dir.rglob("clc.sqlite")), timeout=20) as book:
            self.assertEqual(book.execute("PRAGMA integrity_check").fetchone(), ("ok",))
        self.cli("vm", "delete", insid, "--wait")

    # -- clocks --------------------------------------------------------------------------------------------------------

    def test_20_clocks_that_jump_an_hour_touch_no_lease(self):
        self.cli.run(self.insid)
        before = self.cli("node", "show", "nc1")

        def nothing_happened(what):
            """For longer than a round of heartbeats and leases takes."""
            until = time.monotonic() + 8
            while time.monotonic() < until:
                node = self.cli("node", "show", "nc1")
                self.assertEqual((node["lost_at"], node["lease_epoch"], node["state"]), (0, before["lease_epoch"], "up"), what)
                self.assertEqual(self.state(), "running", what)
                self.assertEqual(self.domains(), [self.insid], what)
                time.sleep(0.5)
        for seconds in (HOUR, -HOUR):
            for name in ("nc1", "clc"):
                self.orders[name].set_clock(seconds)
                injected("clock-jump")
                told = self.cloud.hosts["nc1"].run(["date", "+%s"], env=self.orders[name].env).stdout
                self.assertAlmostEqual(float(told), time.time() + seconds, delta=60, msg="the library really does it")
                nothing_happened(f"{name} {seconds:+} s")
                self.orders[name].nothing()
                injected("clock-jump")
        self.cli.stop(self.insid)
        self.cli.run(self.insid)
        self.cli.stop(self.insid)

    # -- ends ----------------------------------------------------------------------------------------------------------

    def reach(self, wanted, name):
        """Insists, as a user would, until the desktop is `wanted`; starts the daemon `name` again when it has died."""
        verb = {"running": "run", "stopped": "stop"}[wanted]
        idle = {"running": ("defined", "stopped"), "stopped": ("running",)}[wanted]

        def reached():
            if not self.cloud.daemons[name].alive:
                self.orders[name].nothing()
                injected("daemon-killed")
                self.killed += 1
                self.cloud.start(name)
                self.cloud.wait_healthy(name)
            try:
                vm = self.cli("vm", "show", self.insid)
                if vm["state"] == wanted:
                    return True
                if vm["state"] in idle or (vm["task"] or {}).get("failed"):
                    self.cli("vm", verb, self.insid)
            except CommandError:
                pass  # it died under the request, or has not heard of the node again yet
            return False
        wait_until(reached, 150, f"the desktop to be {wanted} although {name} dies", self.logs(), poll_s=0.2)
        self.assertEqual(self.domains(), [self.insid] if wanted == "running" else [])

    def test_30_daemons_killed_at_any_commit_publish_or_ack(self):
        seed = int(os.environ.get("EDUCLOUD_FAULT_SEED", random.randrange(1 << 30)))
        chance, self.killed = random.Random(seed), 0
        for name, orders in self.orders.items():
            for _ in range(ROUNDS):
                orders.kill_at(chance.randint(1, 12), chance.random() < 0.5)
                self.reach("running", name)
                orders.kill_at(chance.randint(1, 12), chance.random() < 0.5)
                self.reach("stopped", name)
            orders.nothing()
        self.note = f"   {self.killed} kills, seed {seed}"
        self.assertGreaterEqual(self.killed, ROUNDS, f"seed {seed}")
        wait_until(lambda: self.cli("status")["outbox"] == 0, 60, "the outbox to drain", self.logs())
        self.cli.run(self.insid)
        self.cloud.guest(self.insid)
        self.cli.stop(self.insid)

    def test_40_a_second_clc_on_the_same_database_refuses(self):
        done = self.cloud.main.run([BIN / "educloud-clc", "--config", self.cloud.config_files["clc"]], check=False)
        injected("two-clc")
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(re.search(r"in use by another process", done.stdout + done.stderr), done.stderr)
        self.assertIn(self.state(), ("defined", "stopped"))


if __name__ == "__main__":
    unittest.main()
