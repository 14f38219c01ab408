#!/usr/bin/python3
"""What an owner does with a desktop that runs, on a real guest: pause, restart, limits, first boot, snapshots."""
import base64
import pathlib
import re
import unittest

from checks import Timed
from cloud import Cloud
from cloud_cli import CommandError
from lab import wait_until

KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))).decode() + " ada@home"


class Instances(Timed, unittest.TestCase):
    """One cloud, one desktop: the tests run in the order of their names."""

    flow = "a desktop's owner"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cloud = cls.enterClassContext(Cloud(nodes=1))
        cls.cli = cls.cloud.cli
        cls.image = cls.cli.import_image(cls.cloud.lab.sample_image(), "sample")
        cls.seen = ""

    def virsh_state(self):
        return self.cloud.libvirtd["nc1"].virsh("domstate", self.vm).strip()

    def refuse(self, code, reason, *words):
        with self.assertRaises(CommandError) as refused:
            self.cli(*words)
        self.assertEqual(refused.exception.code, code)
        self.assertIn(reason, refused.exception.output)

    def page(self):
        return self.guest.get(self.guest.url + "/")

    def test_10_a_guest_is_told_who_it_is(self):
        key, word = self.cloud.dir / "id.pub", self.cloud.dir / "word"
        key.write_text(KEY + "\n")
        word.write_text("swordfish of the day\n")
        word.chmod(0o600)
        made = self.cli("vm", "define", "--image", self.image, "--name", "lab", "--type", "vdsmall", "--memory-mib", 160, "--folders", "smb",
                        "--hostname", "lab-07", "--user", "ada", "--ssh-key-file", key, "--password-file", word)
        type(self).vm = made["insid"]
        self.assertNotIn("swordfish", str(self.cli("vm", "show", self.vm)))
        self.cli.run(self.vm)
        type(self).guest = self.cloud.guest(self.vm)
        page = self.page()
        self.assertIn("guest lab-07 ", page)
        self.assertIn("user=ada keys=1", page)
        for log in (self.cloud.daemons["clc"].log, self.cloud.daemons["nc1"].log):
            self.assertNotIn("$6$", pathlib.Path(log).read_text())

    def test_20_pause_and_resume(self):
        self.cli("vm", "pause", self.vm, "--wait")
        self.assertEqual(self.cli("vm", "show", self.vm)["state"], "paused")
        self.assertEqual(self.virsh_state(), "paused")
        self.cli("vm", "resume", self.vm, "--wait")
        self.assertEqual(self.cli("vm", "show", self.vm)["state"], "running")
        self.assertEqual(self.virsh_state(), "running")
        self.guest.wait_ready()

    def test_21_a_pause_outlives_its_daemons(self):
        self.cli("vm", "pause", self.vm, "--wait")
        for name in ("nc1", "clc"):
            self.cloud.restart(name)
        wait_until(lambda: self.cli("vm", "show", self.vm)["state"] == "paused", 60, "clc to know of the pause")
        self.cli("vm", "resume", self.vm, "--wait")
        self.guest.wait_ready()

    def test_30_limits_while_it_runs(self):
        self.cli("vm", "limit", self.vm, "--cpu-percent", 50, "--disk-iops", 300, "--wait")
        tune = self.cloud.libvirtd["nc1"].virsh("schedinfo", self.vm)
        quota, period = (int(re.search(rf"^{key} *: *(-?\d+)$", tune, re.M).group(1)) for key in ("vcpu_quota", "vcpu_period"))
        self.assertAlmostEqual(quota / period, 0.5, delta=0.01)
        self.assertIn("total_iops_sec : 300", self.cloud.libvirtd["nc1"].virsh("blkdeviotune", self.vm, "vda"))
        self.assertEqual(self.cli("vm", "show", self.vm)["limits"]["cpu_percent"], 50)
        self.refuse(2, "10", "vm", "limit", self.vm, "--cpu-percent", 5)
        self.cli("vm", "limit", self.vm, "--cpu-percent", 0, "--disk-iops", 0, "--wait")

    def test_40_snapshots(self):
        self.guest.add_note("before")
        plain = self.cli("vm", "snapshot", "take", self.vm, "--name", "plain", "--wait")["snapid"]
        self.guest.add_note("between")
        whole = self.cli("vm", "snapshot", "take", self.vm, "--name", "whole", "--memory", "--wait")["snapid"]
        self.guest.add_note("after")
        self.assertEqual([one["state"] for one in self.cli("vm", "snapshot", "list", self.vm)["items"]], ["ready", "ready"])
        self.cli("vm", "snapshot", "restore", self.vm, whole, "--wait")
        self.guest.wait_ready()
        self.assertIn("between", self.guest.notes())
        self.assertNotIn("after", self.guest.notes())
        self.cli("vm", "snapshot", "restore", self.vm, plain, "--wait")
        self.guest.wait_ready()
        self.assertIn("before", self.guest.notes())
        self.assertNotIn("between", self.guest.notes())
        for one in (plain, whole):
            self.cli("vm", "snapshot", "delete", self.vm, one, "--wait")
        self.assertEqual(self.cli("vm", "snapshot", "list", self.vm)["items"], [])

    def test_50_restart_keeps_its_disk(self):
        self.guest.add_note("kept")
        boots = int(re.search(r"boots=(\d+)", self.page()).group(1))
        self.cli("vm", "restart", self.vm, "--wait", timeout_s=300)

        def again():
            return int(re.search(r"boots=(\d+)", self.page()).group(1)) == boots + 1
        wait_until(again, 150, "the guest to boot again")
        self.assertIn("kept", self.guest.notes())

    def test_60_types(self):
        self.cli("vmtype", "set", "tiny", "--memory-mib", 96, "--cpus", 1, "--cpu-percent", 80)
        self.assertEqual([one["cpus"] for one in self.cli("vmtype", "list")["items"] if one["name"] == "tiny"], [1])
        self.cli("ostype", "set", "oldbox", "--disk", "ide", "--nic", "rtl8139", "--sound", "ac97")
        self.cli("vmtype", "set", "tiny", "--disk-iops", 100)
        tiny = next(one for one in self.cli("vmtype", "list")["items"] if one["name"] == "tiny")
        self.assertEqual((tiny["memory_mib"], tiny["limits"]["cpu_percent"], tiny["limits"]["disk_iops"]), (96, 80, 100))
        oldbox = self.cli("ostype", "set", "oldbox", "--nic", "e1000")
        self.assertEqual((oldbox["disk_type"], oldbox["nic_type"], oldbox["sound_type"]), ("ide", "e1000", "ac97"))
        self.refuse(2, "--disk and --nic", "ostype", "set", "newbox", "--disk", "ide")
        self.refuse(5, "vdsmall", "vmtype", "delete", "vdsmall")
        self.refuse(5, "linux", "ostype", "delete", "linux")
        self.cli("vmtype", "delete", "tiny")
        self.cli("ostype", "delete", "oldbox")

    def test_70_a_definition_holds_from_the_next_start_on(self):
        def memory_mib():
            info = self.cloud.libvirtd["nc1"].virsh("dominfo", self.vm)
            return int(re.search(r"Max memory: +(\d+) KiB", info).group(1)) // 1024

        self.refuse(4, "no node", "vm", "set", self.vm, "--node", "nc7")
        self.refuse(4, "no version 7", "vm", "set", self.vm, "--version", 7)
        changed = self.cli("vm", "set", self.vm, "--memory-mib", 192, "--node", "nc1", "--version", 1)
        self.assertEqual((changed["memory_mib"], changed["node_pin"], changed["version"]), (192, "nc1", 1))
        self.assertEqual((changed["state"], memory_mib()), ("running", 160))
        self.cli.stop(self.vm)
        self.cli.run(self.vm)
        self.assertEqual(memory_mib(), 192)
        free = self.cli("vm", "set", self.vm, "--node", "any", "--version", "latest")
        self.assertEqual((free["node_pin"], free["version"]), ("", 0))
        self.assertEqual([one["nodes_alive"] for one in self.cli("cluster", "list")["items"]], [1])

    def test_90_stop_while_paused(self):
        self.cli("vm", "pause", self.vm, "--wait")
        self.cli.stop(self.vm)
        self.assertEqual(self.cli("vm", "show", self.vm)["state"], "stopped")


if __name__ == "__main__":
    unittest.main()
