#!/usr/bin/python3
"""A VM that runs goes on on another node: a real guest, real nodes. What it holds in memory and on its disk comes along."""
import threading
import time
import unittest

from cloud import Cloud
from cloud_cli import CommandError
from lab import wait_until


class Moving(unittest.TestCase):
    """One cloud, one desktop that moves: the tests run in the order of their names."""

    @classmethod
    def setUpClass(cls):
        cls.report = []
        cls.cloud = cls.enterClassContext(Cloud(nodes=2))
        cls.cli = cls.cloud.cli
        cls.image = cls.cli.import_image(cls.cloud.lab.sample_image(), "sample")
        made = cls.cli("vm", "define", "--image", cls.image, "--name", "mover", "--type", "vdsmall", "--memory-mib", 160,
                       "--folders", "smb")
        cls.vm = made["insid"]
        cls.cli.run(cls.vm)
        cls.cloud.guest(cls.vm)

    @classmethod
    def tearDownClass(cls):
        print("\nREPORT a VM on its way between hosts nc1 and nc2; the guest under TCG")
        for line in cls.report:
            print("  " + line)

    def setUp(self):
        self.began = time.monotonic()

    def tearDown(self):
        self.report.append(f"{self._testMethodName[5:]:<52} {time.monotonic() - self.began:6.1f} s")

    def guest(self):
        return self.cloud.guest(self.vm)

    def shown(self):
        return self.cli("vm", "show", self.vm)

    def node(self):
        return self.shown()["task"]["node"]

    def other(self):
        return "nc2" if self.node() == "nc1" else "nc1"

    def life(self):
        """(boot id, seconds since the boot) of the guest."""
        guest = self.guest()
        boot, seconds = guest.get(guest.url + "/cgi-bin/uptime").split()
        return boot, float(seconds)

    def running_on(self):
        return [name for name in self.cloud.node_names if self.vm in self.cloud.libvirtd[name].virsh("list", "--name").split()]

    def test_10_it_goes_on_with_its_memory_and_its_disk(self):
        before, to = self.shown(), self.other()
        boot, seconds = self.life()
        self.guest().add_note("written-before")
        began = time.monotonic()
        after = self.cli("vm", "migrate", self.vm, "--to", to, "--wait", timeout_s=300)
        moved_s = time.monotonic() - began
        self.assertEqual((after["task"]["node"], after["state"]), (to, "running"))
        self.assertEqual(after["display_password"], before["display_password"])
        now_boot, now_seconds = self.life()
        answers_s = time.monotonic() - began
        self.assertEqual(now_boot, boot)
        self.assertGreater(now_seconds, seconds)
        self.assertIn("written-before", self.guest().notes())
        self.guest().add_note("written-after")
        wait_until(lambda: self.running_on() == [to], 60, "the VM to be on one node only")
        self.report.append(f"  moved in {moved_s:.1f} s, its page answered after {answers_s:.1f} s")


if __name__ == "__main__":
    unittest.main()
