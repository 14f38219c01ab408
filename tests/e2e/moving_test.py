#!/usr/bin/python3
"""A VM that runs goes on on another node: a real guest, real nodes. What it holds in memory and on its disk comes along."""
import json
import re
import time
import unittest

from checks import Timed
from cloud import Cloud
from cloud_cli import CommandError
from lab import wait_until


class Moving(Timed, unittest.TestCase):
    """One cloud, one desktop that moves: the tests run in the order of their names."""

    flow = "a moving desktop"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cloud = cls.enterClassContext(Cloud(nodes=2))
        cls.cli = cls.cloud.cli
        cls.image = cls.cli.import_image(cls.cloud.lab.sample_image(), "sample")
        made = cls.cli("vm", "define", "--image", cls.image, "--name", "mover", "--type", "vdsmall", "--memory-mib", 160,
                       "--folders", "smb")
        cls.vm = made["insid"]
        cls.cli.run(cls.vm)
        cls.cloud.guest(cls.vm)

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
        # A guest mounts its SMB folder a moment after its page answers.
        wait_until(lambda: "d smb" in self.guest().disks(), 90, "its folder d:")
        self.guest().write("d", "own", "before")
        self.cli("vm", "limit", self.vm, "--disk-iops", 777, "--wait")
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
        # Its SMB session ended with the smbd on the other node.
        wait_until(lambda: self.guest().read("d", "own") == "before", 60, "its folder d: again")
        self.guest().write("d", "own", "after")
        folder_s = time.monotonic() - began
        wait_until(lambda: self.running_on() == [to], 60, "the VM to be on one node only")
        self.assertIn("total_iops_sec : 777", self.cloud.libvirtd[to].virsh("blkdeviotune", self.vm, "vda"))
        self.cli("vm", "limit", self.vm, "--disk-iops", 0, "--wait")
        self.tell("moved, its page answers, its folder too", f"{moved_s:6.1f} s, {answers_s:.1f} s, {folder_s:.1f} s")

    def begin_slowly(self, to, rate="24mbit"):
        """Its memory is on the way when this returns, and takes some more seconds."""
        self.cloud.limit_rate(to, rate)
        self.cli("vm", "migrate", self.vm, "--to", to)

        def on_the_way():
            task = self.shown()["task"]
            if not task["busy"]:
                raise AssertionError(f"it moves no more: {task}")
            return "memory" in task["prompt"] and task["bytes_done"] > 1 << 20
        wait_until(on_the_way, 90, "its memory to be on the way", [self.cloud.daemons["nc1"].log, self.cloud.daemons["nc2"].log])

    def settled(self, deadline_s=150):
        def done():
            task = self.shown()["task"]
            return None if task["busy"] else task
        return wait_until(done, deadline_s, "the move to end", [p.log for p in self.cloud.daemons.values()])

    def stays(self, here, boot):
        """It runs on where it was, the same guest, and nothing of it is left on the other node."""
        self.assertEqual(self.life()[0], boot)
        self.assertEqual(self.shown()["state"], "running")
        wait_until(lambda: self.running_on() == [here], 120, f"the VM on {here} only", [p.log for p in self.cloud.daemons.values()])

    def test_20_progress_is_shown(self):
        here, to = self.node(), self.other()
        boot = self.life()[0]
        self.begin_slowly(to)
        task = self.shown()["task"]
        self.assertEqual(self.shown()["state"], "migrating")
        self.assertGreater(task["bytes_total"], task["bytes_done"])
        # Once its rate is known.
        wait_until(lambda: re.search(f"copying its memory to {to}, [0-9]+ s left", self.shown()["task"]["prompt"]), 60, "the time left")
        self.assertEqual(self.life()[0], boot)  # it works all the while
        self.cloud.limit_rate(to, None)
        self.settled()
        self.assertEqual(self.node(), to)
        self.assertEqual(self.life()[0], boot)
        wait_until(lambda: self.running_on() == [to], 60, f"nothing of it on {here}")

    def test_30_a_cut_link_leaves_it_where_it_was(self):
        here, to = self.node(), self.other()
        boot = self.life()[0]
        self.begin_slowly(to)
        began = time.monotonic()
        self.cloud.hosts[to].link_down()
        try:
            task = self.settled(60)
        finally:
            self.cloud.hosts[to].link_up()
            self.cloud.limit_rate(to, None)
        self.assertEqual(self.node(), here)
        self.assertTrue(task["errormsg"])
        self.stays(here, boot)
        self.tell("told that the link was cut, after", f"{time.monotonic() - began:6.1f} s")
        self.cloud.wait_node(to, "up")

    def test_40_kill_9_of_either_node_daemon(self):
        here, to = self.node(), self.other()
        boot = self.life()[0]
        for victim in (here, to):
            self.begin_slowly(to)
            self.cloud.restart(victim)
            self.cloud.limit_rate(to, None)
            task = self.settled()
            self.assertEqual(task["node"], here)
            self.assertTrue(task["errormsg"], victim)
            self.stays(here, boot)
        self.cli("vm", "migrate", self.vm, "--wait", timeout_s=300)
        self.assertEqual((self.node(), self.life()[0]), (to, boot))

    def test_50_a_stop_ends_it(self):
        here, to = self.node(), self.other()
        self.begin_slowly(to)
        self.cli.stop(self.vm)
        self.cloud.limit_rate(to, None)
        self.assertEqual(self.shown()["state"], "stopped")
        wait_until(lambda: self.running_on() == [], 120, "the VM on neither node", [p.log for p in self.cloud.daemons.values()])
        self.cli.run(self.vm)
        self.guest()

    def test_60_what_cannot_move_says_why(self):
        with self.assertRaises(CommandError) as refused:
            self.cli("vm", "migrate", self.vm, "--to", self.node())
        self.assertEqual(refused.exception.code, 5)
        fixed = self.cli("vm", "define", "--image", self.image, "--name", "fixed", "--type", "vdsmall", "--memory-mib", 160,
                         "--folders", "virtiofs")["insid"]
        self.cli.run(fixed)
        with self.assertRaises(CommandError) as refused:
            self.cli("vm", "migrate", fixed)
        self.assertIn("--folders smb", refused.exception.output)
        self.cli.stop(fixed)
        self.cli("vm", "snapshot", "take", self.vm, "--name", "one", "--wait")
        with self.assertRaises(CommandError) as refused:
            self.cli("vm", "migrate", self.vm, "--wait")
        self.assertIn("snapshots", refused.exception.output)
        for one in self.cli("vm", "snapshot", "list", self.vm)["items"]:
            self.cli("vm", "snapshot", "delete", self.vm, one["snapid"], "--wait")

    def test_70_a_drained_node_sends_it_away(self):
        here, to = self.node(), self.other()
        boot = self.life()[0]
        self.cli("node", "drain", here)
        wait_until(lambda: self.node() == to and not self.shown()["task"]["busy"], 150, f"it to be on {to}",
                   [p.log for p in self.cloud.daemons.values()])
        self.assertEqual(self.life()[0], boot)
        self.cli("node", "enable", here)


class MovingServer(Timed, unittest.TestCase):
    """A server: its database disk stays at the cc and is never two nodes' at once."""

    flow = "a moving server"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cloud = cls.enterClassContext(Cloud(nodes=2))
        cls.cli = cls.cloud.cli
        image = cls.cli.import_image(cls.cloud.lab.sample_image(), "srv")
        cls.cli("image", "set", image, "--usage", "server", "--database-gib", 1, "--wait")
        cls.vm = cls.cli("vm", "define", "--image", image, "--server", "--name", "mover", "--memory-mib", 160, "--folders",
                         "smb")["insid"]
        cls.cli.run(cls.vm)
        cls.guest = cls.cloud.guest(cls.vm)

    def record(self):
        """What the cc knows of the disk."""
        return json.loads((self.cloud.storage("cc1") / "space/database/instances" / self.vm / "disk.json").read_text())

    def write(self, guest, text):
        """A row on d:, synced through to the cc's disk, which on a busy machine takes longer than a page may."""
        wait_until(lambda: guest.write("d", "row", text) is None, 90, f"a write of {text} to d:",
                   [p.log for p in self.cloud.daemons.values()])

    def test_10_its_rows_come_along_and_its_disk_is_the_other_nodes(self):
        self.write(self.guest, "before")
        here = self.cli("vm", "show", self.vm)["task"]["node"]
        self.assertEqual(self.record()["node"], here)
        boot = self.guest.get(self.guest.url + "/cgi-bin/uptime").split()[0]
        began = time.monotonic()
        moved = self.cli("vm", "migrate", self.vm, "--wait", timeout_s=300)
        to = moved["task"]["node"]
        self.assertNotEqual(to, here)
        guest = self.cloud.guest(self.vm)
        self.assertEqual(guest.get(guest.url + "/cgi-bin/uptime").split()[0], boot)
        self.assertEqual(guest.read("d", "row"), "before")
        self.write(guest, "after")
        self.assertEqual((self.record()["node"], self.record()["joining_epoch"]), (to, 0))
        self.tell("went on elsewhere and d: was written to, after", f"{time.monotonic() - began:6.1f} s")
        # Back again, then stopped and started: what was written on either node is there.
        self.cli("vm", "migrate", self.vm, "--to", here, "--wait", timeout_s=300)
        self.assertEqual(self.cloud.guest(self.vm).read("d", "row"), "after")
        self.write(self.cloud.guest(self.vm), "again")
        self.cli.stop(self.vm)
        self.cli.run(self.vm)
        self.assertEqual(self.cloud.guest(self.vm).read("d", "row"), "again")

    def test_20_a_cut_link_leaves_it_its_disk(self):
        here = self.cli("vm", "show", self.vm)["task"]["node"]
        to = "nc2" if here == "nc1" else "nc1"
        self.cloud.limit_rate(to, "24mbit")
        self.cli("vm", "migrate", self.vm)
        wait_until(lambda: "memory" in self.cli("vm", "show", self.vm)["task"]["prompt"], 90, "its memory to be on the way")
        self.assertEqual(self.record()["joining_node"], to)
        self.cloud.hosts[to].link_down()
        try:
            wait_until(lambda: not self.cli("vm", "show", self.vm)["task"]["busy"], 60, "the move to end")
        finally:
            self.cloud.hosts[to].link_up()
            self.cloud.limit_rate(to, None)
        guest = self.cloud.guest(self.vm)
        self.write(guest, "cut")
        self.assertEqual(guest.read("d", "row"), "cut")
        wait_until(lambda: self.record()["joining_epoch"] == 0, 120, "the other node to let go of the disk",
                   [p.log for p in self.cloud.daemons.values()])
        self.assertEqual(self.record()["node"], here)

    def test_30_a_drained_node_sends_it_away(self):
        here = self.cli("vm", "show", self.vm)["task"]["node"]
        self.cli("node", "drain", here)

        def away():
            task = self.cli("vm", "show", self.vm)["task"]
            return task["node"] != here and not task["busy"]
        wait_until(away, 150, "the server to be on the other node", [p.log for p in self.cloud.daemons.values()])
        self.assertEqual(self.cloud.guest(self.vm).read("d", "row"), "cut")
        self.cli("node", "enable", here)


if __name__ == "__main__":
    unittest.main()
