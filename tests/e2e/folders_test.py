#!/usr/bin/python3
"""Shared folders: two users' desktops on two nodes, walrus' files on a third host, everything over sshfs through cc1."""
import pathlib
import time
import unittest

from checks import Timed
from cloud import BIN, Cloud
from cloud_cli import Cli
from lab import wait_until


class Folders(Timed, unittest.TestCase):
    """One cloud: the tests run in the order of their names."""

    flow = "shared folders"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cloud = cls.enterClassContext(Cloud(nodes=2))
        cls.cli = cls.cloud.cli
        cls.add_user("bob")
        cls.space = cls.cloud.storage("walrus") / "space"
        cls.image = cls.cli.import_image(cls.cloud.lab.sample_image(), "sample")

    @classmethod
    def add_user(cls, name):
        """Another account; only init makes one, while clc is down."""
        cloud = cls.cloud
        cloud.daemons["clc"].stop()
        words = [BIN / "educloud", "init", "--host", "main", "--config-dir", cloud.conf, "--state-dir", cloud.dir / "state", "--prefix",
                 cloud.dir / "storage", "--in-place", "--admin", name, "--admin-password-file", cloud.dir / "password", "--cluster", "cc1"]
        for node in cloud.node_names:
            words += ["--node", f"{node}@cc1"]
        for host in cloud.hosts.values():
            words += ["--address", f"{host.name}={host.address}"]
        cloud.main.run(words)
        cloud.start("clc")
        cloud.wait_healthy("clc")

        def run(arguments, timeout_s):
            done = cloud.main.run([BIN / "educloud", *arguments], env={"XDG_CONFIG_HOME": str(cloud.dir / f"cli-{name}")},
                                  timeout_s=timeout_s, check=False)
            return done.returncode, done.stdout, done.stderr
        cls.bob = Cli(run)
        cls.bob("login", "--url", f"http://{cloud.main.address}:8000", "--user", name, "--password-file", cloud.dir / "password")
        for node in cloud.node_names:
            cloud.wait_node(node, "up")

    def define(self, cli, name, protocol):
        return cli("vm", "define", "--image", self.image, "--name", name, "--type", "vdsmall", "--memory-mib", 160, "--folders",
                   protocol)["insid"]

    def start_on(self, cli, vm, node):
        """Runs the VM on that node; returns its guest once it has both folders."""
        other = next(name for name in self.cloud.node_names if name != node)
        self.cli("node", "no-new", other)
        try:
            view = cli.run(vm)
        finally:
            self.cli("node", "enable", other)
        self.assertEqual(view["task"]["node"], node)
        guest = self.cloud.guest(vm)
        wait_until(lambda: "e " in guest.disks(), 60, f"folders of {vm}: {guest.disks()}")
        return guest

    def healthy_within(self, seconds, name):
        port = 8002 if name.startswith("cc") else 8003
        status, _ = self.cloud.hosts[name].http("GET", f"http://{self.cloud.hosts[name].address}:{port}/health", timeout_s=seconds)
        return status == 200

    def test_10_what_one_writes_on_one_node_is_there_on_the_other(self):
        cls = type(self)
        cls.ann_vm = self.define(self.cli, "first", "virtiofs")
        guest = self.start_on(self.cli, self.ann_vm, "nc1")
        self.assertIn("d virtiofs", guest.disks())
        self.assertIn("e virtiofs", guest.disks())
        guest.write("d", "diary", "monday")
        guest.write("e", "menu", "soup")
        self.assertEqual((self.space / "prv-data/admin/diary").read_text(), "monday\n")
        self.assertEqual((self.space / "pub-data/menu").read_text(), "soup\n")
        self.cli.stop(self.ann_vm)
        cls.ann = self.start_on(self.cli, self.ann_vm, "nc2")
        self.assertEqual(self.ann.read("d", "diary"), "monday")

    def test_15_the_clusters_controller_has_them_too(self):
        space = self.cloud.storage("cc1") / "space"
        wait_until(lambda: self.cloud.hosts["cc1"].run(["cat", space / "pub-data/menu"], check=False).stdout == "soup\n", 60, "cc1's mount")
        for name in ("software", "pub-data", "prv-data"):
            self.assertEqual(list((space / name).iterdir()), [], "seen from outside of the host it is a mount point, and empty")

    def test_20_another_user_sees_the_public_folder_and_his_own(self):
        cls = type(self)
        cls.bob_vm = self.define(self.bob, "second", "smb")
        cls.other = self.start_on(self.bob, self.bob_vm, "nc1")
        self.assertIn("d smb", self.other.disks())
        self.assertEqual(self.other.read("e", "menu"), "soup")
        self.assertNotIn("diary", self.other.files("d"))
        self.other.write("d", "plan", "secret")
        self.assertEqual((self.space / "prv-data/bob/plan").read_text(), "secret\n")
        self.other.write("e", "answer", "thanks")
        wait_until(lambda: self.ann.read("e", "answer") == "thanks", 30, "the other desktop to see it")
        self.assertNotIn("plan", self.ann.files("d"))

    def test_30_no_link_leads_out(self):
        own = self.space / "prv-data/bob"
        (own / "passwd").symlink_to("/etc/passwd")
        (own / "theirs").symlink_to(self.space / "prv-data/admin/diary")
        (own / "up").symlink_to("../admin/diary")
        for name in ("passwd", "theirs", "up"):
            with self.assertRaises(OSError):
                self.other.read("d", name)
        # By virtiofs a link is the guest's own to follow: it leads nowhere, or to the guest's file.
        hosts = pathlib.Path("/etc/hosts").read_text(encoding="utf-8").strip()
        own = self.space / "prv-data/admin"
        (own / "hosts").symlink_to("/etc/hosts")
        (own / "theirs").symlink_to(self.space / "prv-data/bob/plan")
        (own / "up").symlink_to("../bob/plan")
        for name in ("theirs", "up"):
            with self.assertRaises(OSError):
                self.ann.read("d", name)
        try:
            self.assertNotEqual(self.ann.read("d", "hosts"), hosts)
        except OSError:
            pass  # the sample guest has none

    def test_40_the_server_gives_files_to_nodes_and_nothing_else(self):
        main, node = self.cloud.main, self.cloud.hosts["nc1"]
        ssh = ["ssh", "-F", "/dev/null", "-p", "8022", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
               "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5"]
        key = ["-i", self.cloud.conf / "secrets/folders-nc1.key"]
        through = self.cloud.hosts["cc1"].address
        self.assertNotEqual(node.run([*ssh, f"root@{through}", "true"], check=False).returncode, 0)
        asked = node.run([*ssh, *key, f"root@{through}", "cat", "/etc/passwd"], check=False)
        self.assertNotIn("root:", asked.stdout)
        listed = node.run(["sftp", "-F", "/dev/null", "-P", "8022", *ssh[5:], *key, f"root@{main.address}"], data="ls /\nls /..\n").stdout
        self.assertIn("prv-data", listed)
        self.assertNotIn("etc", listed)

    def test_50_a_cut_of_ten_seconds(self):
        self.cloud.hosts["cc1"].link_down()
        cut = time.monotonic()
        while time.monotonic() - cut < 10:
            for name in ("cc1", *self.cloud.node_names):
                self.assertTrue(self.healthy_within(3, name), f"{name} must answer while its folders do not")
            time.sleep(0.2)
        self.cloud.hosts["cc1"].link_up()
        for guest, name in ((self.ann, "after-cut-1"), (self.other, "after-cut-2")):
            wait_until(lambda g=guest, n=name: g.write("d", n, "on") or g.read("d", n) == "on", 60, f"{guest.url} to go on")
        self.assertEqual(self.ann.read("d", "diary"), "monday")

    def test_60_the_server_is_killed_and_comes_back(self):
        self.cloud.stop_sftp()
        wait_until(lambda: any("space/prv-data" in one for one in self.cli("node", "show", "nc1")["warnings"]), 60, "a warning of nc1")
        self.cloud.start_sftp()
        for guest, name in ((self.ann, "after-kill-1"), (self.other, "after-kill-2")):
            wait_until(lambda g=guest, n=name: g.write("d", n, "on") or g.read("d", n) == "on", 60, f"{guest.url} to go on")
        wait_until(lambda: not any("space/" in one for one in self.cli("node", "show", "nc1")["warnings"]), 60, "no warning of nc1")

    def test_70_the_daemons_are_killed_under_running_guests(self):
        for name in ("nc1", "nc2", "cc1", "walrus"):
            self.cloud.restart(name)
        for guest, name in ((self.ann, "after-restart-1"), (self.other, "after-restart-2")):
            wait_until(lambda g=guest, n=name: g.write("d", n, "on") or g.read("d", n) == "on", 60, f"{guest.url} to go on")

    def test_80_a_desktop_does_not_start_without_its_data(self):
        self.bob.stop(self.bob_vm)
        self.cloud.stop_sftp()
        run = self.cloud.main.run([BIN / "educloud", "vm", "run", self.bob_vm, "--wait", "--timeout", "120"],
                                  env={"XDG_CONFIG_HOME": str(self.cloud.dir / "cli-bob")}, timeout_s=150, check=False)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("space/prv-data/bob does not answer", run.stdout + run.stderr)
        self.cloud.start_sftp()
        for name in self.cloud.node_names:
            wait_until(lambda n=name: not any("space/" in one for one in self.cli("node", "show", n)["warnings"]), 90, f"folders of {name}")
        guest = self.start_on(self.bob, self.bob_vm, "nc1")
        self.assertEqual(guest.read("d", "plan"), "secret")

    def test_90_after_a_reboot_of_the_node(self):
        self.cloud.hosts["nc2"].reboot()
        self.cloud.daemons["nc2"].wait(10)
        self.cloud.libvirtd["nc2"].start_after_reboot()
        self.cloud.start("nc2")
        self.cloud.wait_healthy("nc2")
        wait_until(lambda: self.cli("vm", "show", self.ann_vm)["state"] == "failed", 150, "the desktop to be told as gone")
        self.assertEqual(self.start_on(self.cli, self.ann_vm, "nc2").read("d", "diary"), "monday")

    def test_95_software_is_read_only_for_a_server(self):
        (self.space / "software/setup").write_text("v1")
        image = self.cli.import_image(self.cloud.lab.sample_image(), "server")
        self.cli("image", "set", image, "--usage", "server", "--database-gib", 1, "--wait")
        vm = self.cli("vm", "define", "--image", image, "--server", "--name", "files", "--memory-mib", 160)["insid"]
        self.cli.run(vm)
        guest = self.cloud.guest(vm)
        wait_until(lambda: "f virtiofs" in guest.disks(), 60, "the server's folder")
        self.assertEqual(guest.read("f", "setup"), "v1")
        with self.assertRaises(OSError):
            guest.write("f", "mine", "no")
        (self.space / "software/setup").write_text("v2")
        wait_until(lambda: guest.read("f", "setup") == "v2", 30, "the new version to be seen")


if __name__ == "__main__":
    unittest.main(verbosity=2)
