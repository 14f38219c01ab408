#!/usr/bin/python3
"""Hosts that are rebooted: every process gone, /run empty. What is to start by itself runs again, anything else says why not."""
import pathlib
import re
import time
import unittest

from checks import Timed
from cloud import Cloud
from lab import wait_until


class Reboot(Timed, unittest.TestCase):
    """One node, so that nothing can start elsewhere. The tests run in the order of their names."""

    flow = "reboot"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cloud = cls.enterClassContext(Cloud(nodes=1))
        cls.cli = cls.cloud.cli
        cls.image = cls.cli.import_image(cls.cloud.lab.sample_image(), "sample")
        cls.kept = cls.define("kept", "--autostart")
        cls.plain = cls.define("plain", "--no-autostart")

    @classmethod
    def define(cls, name, *more):
        return cls.cli("vm", "define", "--image", cls.image, "--name", name, "--type", "vdsmall", "--memory-mib", 160, *more)["insid"]

    def say(self, what):
        self.tell(f"  {what} after", f"{time.monotonic() - self.since:6.1f} s")

    def up(self):
        """Names of the VMs that libvirt runs."""
        return self.cloud.libvirtd["nc1"].virsh("list", "--name").split()

    def reboot(self):
        self.since = time.monotonic()
        self.cloud.reboot("nc1")
        self.say("its daemons answer")

    def wait_state(self, insid, state, deadline_s=200):
        return wait_until(lambda: (lambda vm: vm if vm["state"] == state else None)(self.cli("vm", "show", insid)), deadline_s,
                          f"{insid} to be {state}", [one.log for one in self.cloud.daemons.values()])

    def test_10_what_starts_by_itself_and_what_does_not(self):
        for insid in (self.kept, self.plain):
            self.cli.run(insid)
        guest = self.cloud.guest(self.kept)
        guest.add_note("written-before")
        guest.write("d", "mine", "on-walrus")
        self.reboot()
        self.assertEqual([one for one in self.up() if one == self.plain], [])
        stopped = self.wait_state(self.plain, "failed")
        self.assertIn("node nc1 was restarted", stopped["task"]["errormsg"])
        self.say("the other desktop is stopped and says why")
        wait_until(lambda: self.kept in self.up(), 200, "the desktop to be started", [self.cloud.daemons["clc"].log])
        self.wait_state(self.kept, "running")
        guest = self.cloud.guest(self.kept)
        self.say("the desktop with autostart serves again")
        self.assertNotIn("written-before", guest.notes(), "c: of a desktop begins anew")
        self.assertEqual(guest.read("d", "mine"), "on-walrus", "the shared folders are mounted again")
        self.cli.run(self.plain)
        self.cloud.guest(self.plain)

    def test_20_clc_is_killed_meanwhile_and_nothing_happens_twice(self):
        log = pathlib.Path(self.cloud.daemons["nc1"].log)
        before = len(log.read_text())
        self.reboot()
        self.cloud.restart("clc")
        wait_until(lambda: self.cli("vm", "show", self.plain)["state"] == "failed", 120, "the other desktop to be stopped")
        self.cloud.restart("clc")
        self.wait_state(self.kept, "running")
        wait_until(lambda: self.cli("vm", "show", self.kept)["web_url"], 60, "clc to hear of its node")
        self.cloud.guest(self.kept)
        self.say("with clc killed twice it serves again")
        self.assertEqual(self.up(), [self.kept])
        starts = re.findall(rf"operation.done .*{self.kept}.* op=image/run", log.read_text()[before:])
        self.assertEqual(len(starts), 1, starts)

    def test_30_an_image_in_work_keeps_its_changes(self):
        self.cloud.wait_node("nc1", "up")
        tid = self.cli("image", "modify", self.image, "--memory-mib", 160)["tid"]
        self.cloud.wait_task(tid, ["editing/running"])
        insid = tid.split(":")[2]
        self.cloud.guest(insid).add_note("kept")
        self.reboot()
        task = self.cloud.wait_task(tid, ["failed"])
        self.assertIn("its changes are kept", task["errormsg"])
        self.cli("task", "start", tid)
        self.cloud.wait_task(tid, ["editing/running"])
        self.assertIn("kept", self.cloud.guest(insid).notes())
        self.say("an image in work runs again on its own overlay")
        self.cli("task", "stop", tid)
        self.cloud.wait_task(tid, ["editing/stopped"])
        self.cli("task", "cancel", tid)

    def test_40_away_for_longer_than_a_lost_node(self):
        self.wait_state(self.kept, "running")
        host = self.cloud.hosts["nc1"]
        self.since = time.monotonic()
        host.reboot()
        self.cloud.daemons["nc1"].wait(10)
        wait_until(lambda: self.cli("node", "show", "nc1")["lost_at"] != 0, 150, "the node to be lost")
        self.say("it is lost")
        self.cloud.libvirtd["nc1"].start_after_reboot()
        self.cloud.start("nc1")
        self.cloud.wait_healthy("nc1")
        self.say("its daemons answer")
        wait_until(lambda: self.up() == [self.kept], 200, "the desktop to be started", [self.cloud.daemons["clc"].log])
        self.wait_state(self.kept, "running")
        self.cloud.guest(self.kept)
        self.say("the desktop with autostart serves again")

    def test_50_the_cc_is_rebooted(self):
        self.since = time.monotonic()
        self.cloud.reboot("cc1")
        self.say("the cc's daemon answers")
        self.cloud.wait_node("nc1", "up")
        self.assertEqual(self.up(), [self.kept], "what runs runs on")
        self.cli.run(self.plain)
        self.cloud.guest(self.plain)
        self.say("a desktop starts again through it")

    def test_60_a_server_and_its_database_disk(self):
        self.cli.stop(self.plain)
        image = self.cli.import_image(self.cloud.lab.sample_image(), "server")
        self.cli("image", "set", image, "--usage", "server", "--database-gib", 1, "--wait")
        server = self.cli("vm", "define", "--image", image, "--server", "--name", "db", "--memory-mib", 160)["insid"]
        self.cli.run(server)
        guest = self.cloud.guest(server)
        guest.write("d", "row", "written-before")
        log = pathlib.Path(self.cloud.daemons["nc1"].log)
        before = len(log.read_text())
        self.reboot()
        wait_until(lambda: sorted(self.up()) == sorted([self.kept, server]), 240, "both to be started", [self.cloud.daemons["clc"].log])
        begun = re.findall(r"operation.begun .*:(V[DS]\w+) .*op=image/prepare", log.read_text()[before:])
        self.assertEqual(begun, [server, self.kept], "the server first")
        self.wait_state(server, "running")
        guest = self.cloud.guest(server)
        self.say("the server serves again")
        self.assertEqual(guest.read("d", "row"), "written-before")
        self.since = time.monotonic()
        self.cloud.reboot("cc1")
        guest.write("d", "row", "written-through-the-new-one")
        self.say("the cc was rebooted, the server that runs writes to its disk there")
        self.cli.stop(server)
        self.cli.run(server)
        self.assertEqual(self.cloud.guest(server).read("d", "row"), "written-through-the-new-one")


if __name__ == "__main__":
    unittest.main()
