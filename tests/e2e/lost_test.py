#!/usr/bin/python3
"""Nodes that are lost: their desktops run elsewhere within 90 s, and when they come back nothing is there twice."""
import time
import unittest

from checks import Timed
from cloud import Cloud
from lab import injected, wait_until


class Lost(Timed, unittest.TestCase):
    """One cloud for all; each test loses the node its desktop runs on, and gets it back."""

    flow = "node lost"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cloud = cls.enterClassContext(Cloud(nodes=2))
        cls.cli = cls.cloud.cli
        cls.image = cls.cli.import_image(cls.cloud.lab.sample_image(), "sample")
        cls.cli("image", "push", cls.image, "--cluster", "cc1", "--wait")  # what is measured is the loss, not the transfer
        cls.insid = cls.cli.define(cls.image, "moving")

    def setUp(self):
        vm = self.cli.run(self.insid)
        self.cloud.guest(self.insid)
        self.tid = vm["task"]["tid"]
        self.victim = vm["task"]["node"]
        self.other = "nc2" if self.victim == "nc1" else "nc1"
        self.began = time.monotonic()

    def where(self):
        """Nodes on which libvirt runs the desktop."""
        return [name for name in ("nc1", "nc2") if self.insid in self.cloud.libvirtd[name].virsh("list", "--name").split()]

    def wait_elsewhere(self):
        def moved():
            task = self.cloud.task(self.tid)
            return task["node"] == self.other and f"{task['phase']}/{task['state']}" == "editing/running"
        wait_until(moved, 200, f"the desktop of {self.victim} to run on {self.other}", [self.cloud.daemons["clc"].log])
        took = time.monotonic() - self.began
        self.assertGreater(took, 50, "a node is not lost sooner")
        self.assertIn(self.other, self.where())
        self.tell(f"{self._testMethodName[8:].replace('_', ' ')}: runs on the other node", f"{took:6.1f} s")
        self.cloud.guest(self.insid)

    def wait_back(self):
        began = time.monotonic()
        log = [self.cloud.daemons["clc"].log, self.cloud.daemons[self.victim].log]
        wait_until(lambda: self.where() == [self.other], 120, f"the old VM on {self.victim} to be ended", log)
        took = time.monotonic() - began
        self.tell(f"{self._testMethodName[8:].replace('_', ' ')}: back, nothing of it on the old one", f"{took:6.1f} s")
        wait_until(lambda: self.cli("node", "show", self.victim)["lost_at"] == 0, 120, f"{self.victim} to be back", log)
        folder = self.cloud.storage(self.victim) / "VMs" / self.insid
        wait_until(lambda: not folder.exists(), 120, f"{folder} to go", log)
        task = self.cloud.task(self.tid)
        self.assertEqual((task["node"], f"{task['phase']}/{task['state']}", task["failed"]), (self.other, "editing/running", False))
        self.assertIn("eduCloud", self.cloud.get(self.cli("vm", "show", self.insid)["web_url"]))
        self.cli.stop(self.insid)
        self.assertEqual(self.where(), [])

    def test_10_cut_off(self):
        host = self.cloud.hosts[self.victim]
        host.link_down()
        injected("partition")
        try:
            self.wait_elsewhere()
            self.assertEqual(sorted(self.where()), ["nc1", "nc2"], "the old one runs on, where nobody reaches it")
        finally:
            host.link_up()
        self.wait_back()

    def test_20_nc_stopped_past_its_lease(self):
        self.cloud.daemons[self.victim].pause()
        injected("nc-stopped")
        try:
            self.wait_elsewhere()
        finally:
            self.cloud.daemons[self.victim].resume()
        self.wait_back()

    def test_30_nc_and_guest_killed(self):
        self.cloud.daemons[self.victim].kill()
        self.cloud.libvirtd[self.victim].virsh("destroy", self.insid)
        self.wait_elsewhere()
        self.cloud.start(self.victim)
        self.cloud.wait_healthy(self.victim)
        self.wait_back()


if __name__ == "__main__":
    unittest.main()
