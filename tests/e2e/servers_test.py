#!/usr/bin/python3
"""The flows of the predecessor's notes 6.3.1 with every disk they list: a usage that becomes server, MODIFY and BUILD of desktops
and of servers, and what runs of them. On hosts main, cc1, nc1, nc2 with real guests; d: of a server comes from cc1 over iSCSI."""
import subprocess
import time
import unittest

from checks import Checks
from cloud import Cloud
from cloud_cli import CommandError
from lab import wait_until


class Servers(unittest.TestCase):
    """One cloud for all: the tests run in the order of their names, each using what the ones before made."""

    @classmethod
    def setUpClass(cls):
        cls.checks = Checks()
        cls.cloud = cls.enterClassContext(Cloud(nodes=2))
        cls.cli = cls.cloud.cli
        cls.desk = cls.cli.import_image(cls.cloud.lab.sample_image(), "desk")
        cls.srv = cls.cli.import_image(cls.cloud.lab.sample_image(), "srv")

    @classmethod
    def tearDownClass(cls):
        cls.checks.show()

    def edit(self, what, image, *more):
        """(task, guest) of a MODIFY or BUILD that runs."""
        task = self.cli("image", what, image, *more, "--memory-mib", 160, "--wait", "--timeout", 300)
        return task, self.cloud.guest(task["tid"].split(":")[2])

    def finish(self, task):
        """Stop and submit."""
        self.cli.stop(task["tid"].split(":")[2])
        self.cli.submit(task["tid"])

    def server(self, image, name, *more):
        return self.cli("vm", "define", "--image", image, "--server", "--name", name, "--memory-mib", 160, *more)["insid"]

    def start(self, insid):
        vm = self.cli.run(insid)
        return vm, self.cloud.guest(insid)

    def drives(self, guest):
        """{letter: kind} as the guest has them; c: is its root."""
        return {line.split()[0]: line.split()[1] for line in guest.disks().splitlines()}

    def version(self, image, number):
        return next(one for one in self.cli("image", "versions", image)["items"] if one["version"] == number)

    def disk_file(self, insid):
        return self.cloud.storage("cc1") / "space/database/instances" / insid / "database"

    def test_10_usage_becomes_server(self):
        with self.assertRaises(CommandError) as refused:
            self.server(self.srv, "too early")
        self.assertIn("--usage server", refused.exception.output)
        with self.checks("usage to server", "walrus makes the image's database disk, 1 GiB"):
            self.cli("image", "set", self.srv, "--usage", "server", "--database-gib", 1, "--wait")
            image = self.cli("image", "show", self.srv)
            self.assertEqual(image["usage"], "server")
            self.assertEqual(self.version(self.srv, 1)["database_version"], 1)
        self.assertNotIn(image["database_imgid"], [one["imgid"] for one in self.cli("image", "list")["items"]])

    def test_20_desktop_modify(self):
        with self.checks("desktop MODIFY", "prepared, runs"):
            task, guest = self.edit("modify", self.desk)
        with self.checks("desktop MODIFY", "c: changed, d: scratch disk, e: software"):
            self.assertEqual(self.drives(guest), {"d": "device", "e": "virtiofs"})
            guest.write("d", "scratch", "thrown-away")
            guest.write("e", "package", "setup.exe")
            guest.add_note("desk-modified")
        with self.checks("desktop MODIFY", "submitted: version 2"):
            self.finish(task)
            self.assertEqual(self.cli.versions(self.desk), [1, 2])

    def test_21_desktop_build(self):
        with self.checks("desktop BUILD", "prepared, runs"):
            task, guest = self.edit("build", self.desk, "--name", "desk-built")
        with self.checks("desktop BUILD", "c: a copy, d: an empty scratch disk again, e: software"):
            self.assertEqual(self.drives(guest), {"d": "device", "e": "virtiofs"})
            self.assertNotIn("scratch\n", guest.files("d"))
            self.assertEqual(guest.read("e", "package"), "setup.exe")
            self.assertIn("desk-modified", guest.notes())
            guest.add_note("desk-built")
        with self.checks("desktop BUILD", "submitted: an image of its own"):
            self.finish(task)
            self.assertEqual(self.cli.versions(task["tid"].split(":")[1]), [1])
            self.assertEqual(self.cli.versions(self.desk), [1, 2])

    def test_30_server_modify(self):
        if self.cli("image", "show", self.srv)["usage"] != "server":  # it runs alone
            self.test_10_usage_becomes_server()
        package = self.cloud.storage("walrus") / "space/software/package"
        if not package.exists():
            package.write_text("setup.exe\n")
        with self.checks("server MODIFY", "prepared with its database disk at cc1, runs"):
            task, guest = self.edit("modify", self.srv)
        with self.checks("server MODIFY", "c: and d: changed, e: scratch disk, f: software"):
            self.assertEqual(self.drives(guest), {"d": "device", "e": "device", "f": "virtiofs"})
            guest.add_note("srv-modified")
            guest.write("d", "schema", "v2")
            self.assertEqual(guest.read("f", "package"), "setup.exe")
        with self.checks("server MODIFY", "submitted: machine and database, both version 2"):
            self.finish(task)
            self.assertEqual(self.cli.versions(self.srv), [1, 2])
            self.assertEqual(self.version(self.srv, 2)["database_version"], 2)
        self.assertFalse(self.disk_file(task["tid"].split(":")[2]).exists(), "cc keeps nothing of a finished task")

    def test_31_server_build(self):
        with self.checks("server BUILD", "prepared with a clone of the database disk, runs"):
            task, guest = self.edit("build", self.srv, "--name", "srv-built")
        type(self).built = task["tid"].split(":")[1]
        with self.checks("server BUILD", "c: and d: as the source has them and changed, e: scratch, f: software"):
            self.assertEqual(self.drives(guest), {"d": "device", "e": "device", "f": "virtiofs"})
            self.assertEqual(guest.read("d", "schema"), "v2")
            guest.write("d", "built", "yes")
        with self.checks("server BUILD", "submitted: an image with a database disk of its own"):
            self.finish(task)
            self.assertEqual(self.cli.versions(self.built), [1])
            self.assertEqual(self.version(self.built, 1)["database_version"], 1)
            self.assertNotEqual(self.cli("image", "show", self.built)["database_imgid"],
                                self.cli("image", "show", self.srv)["database_imgid"])

    def test_40_desktop_run(self):
        insid = self.cli.define(self.desk, "plain")
        with self.checks("desktop run", "d: the user's folder, e: the public folder"):
            _, guest = self.start(insid)
            self.assertEqual(self.drives(guest), {"d": "virtiofs", "e": "virtiofs"})
            self.assertIn("desk-modified", guest.notes())
            guest.write("d", "homework", "done")
            guest.write("e", "notice", "for-all")
            guest.add_note("scribble")
        with self.checks("desktop run", "c: reverted at the next start, d: and e: kept"):
            self.cli.stop(insid)
            _, guest = self.start(insid)
            self.assertNotIn("scribble", guest.notes())
            self.assertEqual((guest.read("d", "homework"), guest.read("e", "notice")), ("done", "for-all"))
        self.cli("vm", "delete", insid, "--wait")

    def test_41_temporary_desktop_run(self):
        with self.checks("temporary desktop run", "the same folders, without a definition"):
            vm = self.cli("vm", "define", "--image", self.desk, "--temporary", "--name", "passing", "--memory-mib", 160, "--wait",
                          "--timeout", 300)
            guest = self.cloud.guest(vm["insid"])
            self.assertEqual((guest.read("d", "homework"), guest.read("e", "notice")), ("done", "for-all"))
        self.cli("vm", "delete", vm["insid"], "--wait")

    def test_50_server_run(self):
        type(self).vs = self.server(self.built, "shop", "--node", "nc1")
        with self.checks("server run", "d: its own clone of the image's database, f: software, read only"):
            _, guest = self.start(self.vs)
            self.assertEqual(self.drives(guest), {"d": "device", "f": "virtiofs"})
            self.assertEqual((guest.read("d", "schema"), guest.read("d", "built")), ("v2", "yes"))
            with self.assertRaises(OSError):
                guest.write("f", "package", "mine")
        with self.checks("server run", "a row on d: is on cc1's disk when the guest's write returns"):
            guest.write("d", "row-1", "ada-1815")
            self.assertEqual(subprocess.run(["grep", "-qaF", "ada-1815", self.disk_file(self.vs)], check=False).returncode, 0)
            guest.add_note("scribble")
        with self.checks("server run", "stop, and start on the other node: c: reverted, the row is there"):
            other = "nc2" if self.cli("vm", "show", self.vs)["task"]["node"] == "nc1" else "nc1"
            self.cli.stop(self.vs)
            self.cli("vm", "set", self.vs, "--node", other)
            vm, guest = self.start(self.vs)
            self.assertEqual(vm["task"]["node"], other)
            self.assertNotIn("scribble", guest.notes())
            self.assertEqual(guest.read("d", "row-1"), "ada-1815")

    def test_51_a_cut_and_a_restart_of_cc(self):
        guest = self.cloud.guest(self.vs)
        with self.checks("server run", "a cut of 5 s between node and cc: a write waits and comes through"):
            self.cloud.hosts["cc1"].link_down()
            time.sleep(5)  # the length of the cut is the fault, not a wait
            self.cloud.hosts["cc1"].link_up()
            self.write_again(guest, "row-2", "grace-1906")
        with self.checks("server run", "kill -9 of cc: targets are made again, the guest goes on"):
            self.cloud.restart("cc1")
            self.write_again(guest, "row-3", "edsger-1930")
            self.assertEqual(guest.read("d", "row-1"), "ada-1815")

    def write_again(self, guest, file, text):
        """A write that may take a while, asked for until it was answered."""
        def written():
            guest.write("d", file, text)
            return guest.read("d", file) == text
        wait_until(written, 120, f"{file} to be written", [self.cloud.daemons["cc1"].log])

    def test_52_only_one_writer(self):
        with self.checks("server run", "cc's target opens for its node and secret only"):
            portal = self.cloud.hosts["cc1"].address
            done = self.cloud.hosts["nc2"].run(["qemu-img", "info", f"iscsi://{portal}:3261/iqn.2026-11.educloud:{self.vs}/1"],
                                               check=False, timeout_s=60)
            self.assertNotEqual(done.returncode, 0)
            self.assertRegex(done.stderr, "(?i)log ?in|author")

    def test_60_node_loss(self):
        self.cli.stop(self.vs)
        self.cli("vm", "delete", self.vs, "--wait")
        self.assertFalse(self.disk_file(self.vs).exists(), "a deleted server leaves no disk")
        vs = self.server(self.built, "survivor")
        vm, guest = self.start(vs)
        guest.write("d", "row-1", "barbara-1939")
        node = vm["task"]["node"]
        other = "nc2" if node == "nc1" else "nc1"
        with self.checks("server run", "its node's cable is pulled: it runs elsewhere, the row is there"):
            self.cloud.hosts[node].link_down()
            wait_until(lambda: self.cli("vm", "show", vs)["task"]["node"] == other, 180, "the server to begin elsewhere",
                       [self.cloud.daemons["clc"].log])
            self.cloud.wait_task(self.cli("vm", "show", vs)["task"]["tid"], ["editing/running"], 240)
            self.assertEqual(self.cloud.guest(vs).read("d", "row-1"), "barbara-1939")
        with self.checks("server run", "the lost node comes back: its old VM is ended, one writer only"):
            self.cloud.hosts[node].link_up()
            wait_until(lambda: vs not in self.cloud.libvirtd[node].virsh("list", "--name"), 120, "the old VM to be ended",
                       [self.cloud.daemons[node].log])
            self.write_again(self.cloud.guest(vs), "row-2", "frances-1910")
            self.assertEqual(self.cloud.guest(vs).read("d", "row-1"), "barbara-1939")
        wait_until(lambda: self.cli("node", "show", node)["lost_at"] == 0, 120, f"{node} to be back", [self.cloud.daemons["clc"].log])

    def test_70_rollback_takes_the_database_along(self):
        with self.checks("server rollback", "version 1 of a server image has its own database version"):
            self.cli("image", "rollback", self.srv, "--to", 1, "--wait")
            vs = self.server(self.srv, "old", "--node", "nc2")
            _, guest = self.start(vs)
            self.assertNotIn("schema\n", guest.files("d"))
        self.cli("vm", "delete", vs, "--wait")

    def test_71_nbd_over_tls_instead(self):
        self.cli("cluster", "set", "cc1", "--database-mode", "nbd")
        vs = self.server(self.built, "careful", "--node", "nc1")
        with self.checks("server over nbd", "its disk comes over NBD with TLS, the same drives"):
            _, guest = self.start(vs)
            self.assertEqual(self.drives(guest), {"d": "device", "f": "virtiofs"})
            self.assertEqual(guest.read("d", "schema"), "v2")
            self.assertIn("database.nbd", self.cloud.libvirtd["nc1"].virsh("dumpxml", vs))
            guest.write("d", "row-1", "radia-1951")
        with self.checks("server over nbd", "kill -9 of cc: the guest goes on"):
            self.cloud.restart("cc1")
            self.write_again(guest, "row-2", "sophie-1956")
        with self.checks("server over nbd", "back to iSCSI at its next start, the rows are there"):
            self.cli.stop(vs)
            self.cli("cluster", "set", "cc1", "--database-mode", "iscsi")
            _, guest = self.start(vs)
            self.assertIn("iqn.2026-11.educloud", self.cloud.libvirtd["nc1"].virsh("dumpxml", vs))
            self.assertEqual((guest.read("d", "row-1"), guest.read("d", "row-2")), ("radia-1951", "sophie-1956"))
        self.cli("vm", "delete", vs, "--wait")
        self.assertFalse(self.disk_file(vs).exists())

    def test_80_no_dead_letters(self):
        self.assertEqual(self.cli("dead-letter", "list")["items"], [])


if __name__ == "__main__":
    unittest.main()
