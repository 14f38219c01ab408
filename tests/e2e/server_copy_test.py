#!/usr/bin/python3
"""A cluster whose servers' database disks are copied to their nodes and back: `cluster set --database-mode copy`."""
import pathlib
import subprocess
import unittest

from checks import Timed
from cloud import Cloud
from lab import wait_until


class ServerCopy(Timed, unittest.TestCase):
    """One cloud for all: the tests run in the order of their names, each using what the ones before made."""

    flow = "server copy"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cloud = cls.enterClassContext(Cloud(nodes=2))
        cls.cli = cls.cloud.cli
        cls.srv = cls.cli.import_image(cls.cloud.lab.sample_image(), "srv")
        cls.cli("image", "set", cls.srv, "--usage", "server", "--database-gib", 1, "--wait")
        cls.cli("cluster", "set", "cc1", "--database-mode", "copy")
        cls.vs = cls.cli("vm", "define", "--image", cls.srv, "--server", "--name", "shop", "--memory-mib", 160, "--folders", "smb")["insid"]

    def logs(self):
        return [one.log for one in self.cloud.daemons.values()]

    def start(self):
        """(guest, its node, the other node)"""
        here = self.cli.run(self.vs)["task"]["node"]
        return self.cloud.guest(self.vs), here, "nc2" if here == "nc1" else "nc1"

    def task(self):
        return self.cli("vm", "show", self.vs)["task"]

    def on_cc(self):
        return self.cloud.storage("cc1") / "space/database/instances" / self.vs / "database"

    def on(self, node):
        return self.cloud.storage(node) / "VMs" / self.vs / "database"

    @staticmethod
    def holds(disk, row):
        return subprocess.run(["grep", "-qaF", row, disk], check=False).returncode == 0

    def gone_from(self, node):
        wait_until(lambda: self.vs not in self.cloud.libvirtd[node].virsh("list", "--all", "--name").split(), 120, "the VM to end",
                   self.logs())

    def wait_stopped(self):
        wait_until(lambda: self.task()["state"] == "stopped", 180, "the server to be stopped", self.logs())

    def move(self, here, other):
        """The next start is on `other`."""
        self.cli("node", "no-new", here)
        self.cli("node", "enable", other)

    def test_10_it_is_there_and_back_again(self):
        guest, here, other = self.start()
        guest.write("d", "row-1", "ada-1815")
        self.assertTrue(self.holds(self.on(here), "ada-1815"), "written through to the node's disk")
        self.assertFalse(self.holds(self.on_cc(), "ada-1815"), "cc has it when the VM has ended")
        self.cloud.daemons["cc1"].kill()
        guest.write("d", "row-2", "grace-1906")
        self.assertEqual(guest.read("d", "row-1"), "ada-1815")
        self.cloud.start("cc1")
        self.cloud.wait_healthy("cc1")
        self.tell("with cc killed its guest goes on", "written")
        self.cli.stop(self.vs)
        self.assertTrue(self.holds(self.on_cc(), "ada-1815") and self.holds(self.on_cc(), "grace-1906"))
        self.assertFalse(self.on(here).exists())
        self.move(here, other)
        guest, now, _ = self.start()
        self.assertEqual(now, other)
        self.assertEqual((guest.read("d", "row-1"), guest.read("d", "row-2")), ("ada-1815", "grace-1906"))
        self.assertEqual(self.task()["errormsg"], "")
        self.tell("stopped and started on the other node", "its rows are there")

    def test_20_cc_is_away_at_the_stop_and_nc_killed(self):
        guest, here = self.cloud.guest(self.vs), self.task()["node"]
        guest.write("d", "row-3", "edsger-1930")
        self.cloud.daemons["cc1"].kill()
        self.cli("vm", "stop", self.vs)
        # The order comes by way of cc: the guest is shut down on the host instead, as its own user could.
        self.cloud.libvirtd[here].virsh("shutdown", self.vs)
        self.gone_from(here)
        self.cloud.restart(here)
        self.assertFalse(self.holds(self.on_cc(), "edsger-1930"))
        self.assertNotEqual(self.task()["state"], "stopped")
        self.cloud.start("cc1")
        self.cloud.wait_healthy("cc1")
        self.wait_stopped()
        self.assertTrue(self.holds(self.on_cc(), "edsger-1930"))
        self.tell("cc away as it ends, nc killed meanwhile", "stopped when it is back")

    def test_30_nc_and_cc_are_killed_while_it_is_given_back(self):
        guest, here, _ = self.start()
        guest.write("d", "row-4", "barbara-1939")
        back = self.on_cc().with_suffix(".back")
        for victim in (here, "cc1"):
            self.cloud.limit_rate("cc1", "400kbit")
            if victim == here:
                self.cli("vm", "stop", self.vs)
            wait_until(back.exists, 120, "the copy to be on its way", self.logs())
            self.assertIn("giving the database disk back", self.task()["prompt"])
            self.cloud.daemons[victim].kill()
            self.cloud.limit_rate("cc1", None)
            self.assertFalse(self.holds(self.on_cc(), "barbara-1939"), "cc's disk is the old one or the new one, nothing between")
            self.assertTrue(self.holds(self.on(here), "barbara-1939"))
            self.assertNotEqual(self.task()["state"], "stopped")
            if victim == here:
                self.cloud.limit_rate("cc1", "400kbit")
            self.cloud.start(victim)
            self.cloud.wait_healthy(victim)
        self.wait_stopped()
        self.assertTrue(self.holds(self.on_cc(), "barbara-1939"))
        self.assertFalse(back.exists())
        guest, _, _ = self.start()
        self.assertEqual((guest.read("d", "row-3"), guest.read("d", "row-4")), ("edsger-1930", "barbara-1939"))
        self.tell("nc killed, then cc, in the middle", "all of it is there")

    def test_40_its_node_is_rebooted(self):
        guest, here = self.cloud.guest(self.vs), self.task()["node"]
        guest.write("d", "row-5", "frances-1910")
        copies = pathlib.Path(self.cloud.daemons[here].log).read_text().count("database.copied")
        self.cloud.reboot(here)
        self.cloud.wait_task(self.task()["tid"], ["preparing/init", "preparing/done", "editing/booting"], 120)
        self.cloud.wait_task(self.task()["tid"], ["editing/running"], 240)
        self.assertEqual(self.cloud.guest(self.vs).read("d", "row-5"), "frances-1910")
        self.assertEqual(pathlib.Path(self.cloud.daemons[here].log).read_text().count("database.copied"), copies, "its copy goes on")
        self.tell("its node rebooted", "the copy there goes on")

    def test_45_an_edit_is_submitted_with_what_its_guest_wrote(self):
        task = self.cli("image", "modify", self.srv, "--memory-mib", 160, "--wait", "--timeout", 300)
        insid = task["tid"].split(":")[2]
        self.cloud.guest(insid).write("d", "schema", "v2")
        self.cli.stop(insid)
        self.cli.submit(task["tid"])
        self.assertEqual([one["database_version"] for one in self.cli("image", "versions", self.srv)["items"]], [1, 2])
        self.assertFalse((self.cloud.storage("cc1") / "space/database/instances" / insid).exists())
        vs = self.cli("vm", "define", "--image", self.srv, "--server", "--name", "next", "--memory-mib", 160)["insid"]
        self.cli.run(vs)
        self.assertEqual(self.cloud.guest(vs).read("d", "schema"), "v2")
        self.cli("vm", "delete", vs, "--wait")
        self.tell("server MODIFY", "both disks are version 2")

    def test_50_it_cannot_move_while_it_runs(self):
        here = self.task()["node"]
        other = "nc2" if here == "nc1" else "nc1"
        self.cli("node", "enable", other)
        with self.assertRaisesRegex(Exception, "start it elsewhere"):
            self.cli("vm", "migrate", self.vs, "--wait")
        self.assertEqual(self.task()["state"], "running")

    def test_60_its_node_is_lost(self):
        here = self.task()["node"]
        other = "nc2" if here == "nc1" else "nc1"
        self.cloud.guest(self.vs).write("d", "row-6", "radia-1951")
        self.cloud.hosts[here].link_down()
        wait_until(lambda: self.task()["node"] == other, 180, "the server to begin elsewhere", self.logs())
        task = self.cloud.wait_task(self.task()["tid"], ["editing/running"], 240)
        self.assertIn(f"node {here}", task["errormsg"])
        guest = self.cloud.guest(self.vs)
        self.assertEqual(guest.read("d", "row-4"), "barbara-1939")
        guest.write("d", "row-7", "sophie-1956")
        self.tell("its node lost", "it begins elsewhere, with a warning")
        self.cloud.hosts[here].link_up()
        lost = self.cloud.storage(here) / "lost"
        kept = wait_until(lambda: lost.is_dir() and list(lost.iterdir()), 180, "the newer copy to be set aside", self.logs())
        self.assertTrue(self.holds(kept[0], "radia-1951"))
        wait_until(lambda: "lost/" in str(self.cli("node", "show", here)), 60, "its node to warn of it", self.logs())
        self.cli.stop(self.vs)
        self.assertTrue(self.holds(self.on_cc(), "sophie-1956"))
        self.assertFalse(self.holds(self.on_cc(), "radia-1951"))
        self.tell("the lost node back", "its newer copy is kept and told of")

    def test_70_by_iscsi_again(self):
        self.cli("cluster", "set", "cc1", "--database-mode", "iscsi")
        guest, here, _ = self.start()
        self.assertEqual(guest.read("d", "row-7"), "sophie-1956")
        self.assertFalse(self.on(here).exists())
        self.cli("vm", "delete", self.vs, "--wait")
        self.assertFalse(self.on_cc().parent.exists())

    def test_80_no_dead_letters(self):
        self.assertEqual(self.cli("dead-letter", "list")["items"], [])


if __name__ == "__main__":
    unittest.main()
