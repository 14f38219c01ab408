#!/usr/bin/python3
"""What becomes of servers' database disks beside running: edits given up, versions pruned, servers deleted while somebody is away."""
import pathlib
import unittest

from checks import Checks
from cloud import Cloud
from cloud_cli import CommandError
from lab import wait_until


class ServerUpkeep(unittest.TestCase):
    """One cloud for all: the tests run in the order of their names, each using what the ones before made."""

    @classmethod
    def setUpClass(cls):
        cls.checks = Checks()
        cls.cloud = cls.enterClassContext(Cloud(nodes=2))
        cls.cli = cls.cloud.cli
        cls.srv = cls.cli.import_image(cls.cloud.lab.sample_image(), "srv")
        cls.cli("image", "set", cls.srv, "--usage", "server", "--database-gib", 1, "--wait")
        cls.database = cls.cli("image", "show", cls.srv)["database_imgid"]

    @classmethod
    def tearDownClass(cls):
        cls.checks.show()

    def disks(self):
        """Instances with a database disk at cc1."""
        folder = self.cloud.storage("cc1") / "space/database/instances"
        return sorted(one.parent.name for one in folder.glob("*/database"))

    def edit(self):
        task = self.cli("image", "modify", self.srv, "--memory-mib", 160, "--wait", "--timeout", 300)
        return task["tid"], task["tid"].split(":")[2]

    def server(self, name):
        insid = self.cli("vm", "define", "--image", self.srv, "--server", "--name", name, "--memory-mib", 160)["insid"]
        self.cli.run(insid)
        return insid, self.cloud.guest(insid)

    def test_10_an_edit_that_is_given_up(self):
        with self.checks("server MODIFY", "given up: its clone of the database disk goes with it"):
            tid, insid = self.edit()
            self.assertEqual(self.disks(), [insid])
            self.cli("task", "cancel", tid, "--wait", "--timeout", 120)
            self.assertEqual(self.disks(), [])
            self.assertEqual(self.cli.versions(self.database), [1])

    def test_20_a_submit_while_cc_is_killed(self):
        tid, insid = self.edit()
        guest = self.cloud.guest(insid)
        guest.write("d", "row", "kept")
        guest.add_note("kept")
        self.cli.stop(insid)
        with self.checks("server MODIFY", "cc killed as it is submitted: both disks in the end, or nothing yet"):
            self.cli("image", "submit", tid)
            self.cloud.restart("cc1")
            task = self.cloud.wait_task(tid, ["submitting/gone", "failed"], 240)
            if not task["done"]:
                self.assertEqual(self.cli.versions(self.srv), [1])
                self.cli.submit(tid)
            made = self.cli("image", "versions", self.srv)["items"][-1]
            self.assertTrue(made["current"])
            self.assertIn(made["database_version"], self.cli.versions(self.database))
            self.assertEqual(self.disks(), [])
        with self.checks("server run", "a server of it has both"):
            vs, guest = self.server("both")
            self.assertEqual(guest.read("d", "row"), "kept")
            self.assertIn("kept", guest.notes())
        type(self).vs = vs

    def test_30_a_server_without_a_task(self):
        with self.checks("server run", "its task cancelled: the disk stays"):
            tid = self.cli("vm", "show", self.vs)["task"]["tid"]
            self.cli("task", "cancel", tid, "--wait", "--timeout", 120)
            self.assertEqual(self.disks(), [self.vs])
            self.cli.run(self.vs)
            self.assertEqual(self.cloud.guest(self.vs).read("d", "row"), "kept")
            self.cli("task", "cancel", tid, "--wait", "--timeout", 120)
        with self.checks("server delete", "on no node: one of its cluster has the disk removed"):
            self.cli("vm", "delete", self.vs, "--wait", "--timeout", 120)
            self.assertEqual(self.disks(), [])

    def test_40_a_server_deleted_while_cc_is_away(self):
        vs, _ = self.server("last")
        self.cli.stop(vs)
        with self.checks("server delete", "cc away: asked again until the disk is gone"):
            self.cloud.daemons["cc1"].kill()
            self.cli("vm", "delete", vs)
            self.assertEqual(self.disks(), [vs])
            self.cloud.start("cc1")
            self.cloud.wait_healthy("cc1")
            wait_until(lambda: self.disks() == [], 240, "the disk to be removed", [self.cloud.daemons["clc"].log])
            wait_until(lambda: vs not in [one["insid"] for one in self.cli("vm", "list")["items"]], 120, "the server to go",
                       [self.cloud.daemons["clc"].log])

    def test_45_a_clc_that_is_away_for_a_minute(self):
        vs, guest = self.server("fenced")
        guest.write("d", "row", "kept")
        node = self.cli("vm", "show", vs)["task"]["node"]
        log = pathlib.Path(self.cloud.daemons[node].log)
        with self.checks("server run", "clc away for 45 s: ended by its node, and started again when clc is back"):
            self.cloud.daemons["clc"].kill()
            wait_until(lambda: f"lease.vm_ended insid={vs}" in log.read_text(), 120, "the node to end it", [log])
            self.cloud.start("clc")
            self.cloud.wait_healthy("clc")

            def runs_anew():
                return log.read_text().count(f":{vs} op=image/run") >= 4 and self.cli("vm", "show", vs)["state"] == "running"
            wait_until(runs_anew, 240, "it to run again", [self.cloud.daemons["clc"].log, log])
            self.assertEqual(self.cloud.guest(vs).read("d", "row"), "kept")
        self.cli("vm", "delete", vs, "--wait", "--timeout", 120)
        wait_until(lambda: self.disks() == [], 60, "its disk to be removed", [self.cloud.daemons["clc"].log])

    def test_50_prune_and_delete(self):
        first = self.cli("image", "versions", self.srv)["items"][0]
        with self.checks("server prune", "a version's database version goes with it"):
            self.cli("image", "prune", self.srv, "--versions", first["version"], "--wait")
            wait_until(lambda: first["database_version"] not in self.cli.versions(self.database), 60, "its database version to go",
                       [self.cloud.daemons["clc"].log])
            self.assertEqual(len(self.cli.versions(self.database)), 1)
        with self.checks("server image delete", "its database disk's image goes with it"):
            self.cli("image", "delete", self.srv, "--wait")
            folder = self.cloud.storage("walrus") / "images" / self.database
            wait_until(lambda: not folder.exists(), 60, "the hidden image to go", [self.cloud.daemons["walrus"].log])
            with self.assertRaises(CommandError):
                self.cli("image", "show", self.database)

    def test_60_no_dead_letters(self):
        self.assertEqual(self.cli("dead-letter", "list")["items"], [])


if __name__ == "__main__":
    unittest.main()
