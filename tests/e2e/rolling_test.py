#!/usr/bin/python3
"""Nodes restarted one after the other by `educloud node roll`, with a desktop and a server on them: their daemons only, and the whole
hosts. The program that restarts a node is the test's own, as an administrator would give a script with ssh in it."""
import concurrent.futures
import re
import unittest

from checks import Checks
from cloud import Cloud

PROGRAM = """#!/bin/sh
# Asks the test for the restart of node $1 and waits until it is under way.
echo "$1" >"{folder}/$1.wanted"
n=0
while [ ! -e "{folder}/$1.done" ]; do n=$((n + 1)); [ $n -lt 1200 ] || exit 1; sleep 0.1; done
rm "{folder}/$1.done"
"""


class Roller:
    """`educloud node roll` with a program that asks us for each restart. We do it in the thread of the test: what a thread starts
    ends with it, and hosts are to stay."""

    def __init__(self, cloud):
        self.cloud, self.folder, self.order = cloud, cloud.dir / "roll", []
        self.folder.mkdir(exist_ok=True)
        self.program = self.folder / "program"
        self.program.write_text(PROGRAM.format(folder=self.folder))
        self.program.chmod(0o755)

    def __call__(self, restart, *options):
        """What the command says; `restart(node)` is called for each node it asks for."""
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            done = pool.submit(self.cloud.cli, "node", "roll", "--run", self.program, *options)
            while not done.done():
                concurrent.futures.wait([done], timeout=0.1)
                for wanted in self.folder.glob("*.wanted"):
                    node = wanted.stem
                    wanted.unlink()
                    restart(node)
                    self.order.append(node)
                    (self.folder / f"{node}.done").touch()
            return done.result()


class Rolling(unittest.TestCase):
    """One cloud: the tests run in the order of their names."""

    @classmethod
    def setUpClass(cls):
        cls.checks = Checks()
        cls.cloud = cls.enterClassContext(Cloud(nodes=2))
        cls.cli = cls.cloud.cli
        image = cls.cli.import_image(cls.cloud.lab.sample_image(), "sample")
        server = cls.cli.import_image(cls.cloud.lab.sample_image(), "server")
        cls.cli("image", "set", server, "--usage", "server", "--database-gib", 1, "--wait")
        cls.vd = cls.cli("vm", "define", "--image", image, "--name", "lab", "--memory-mib", 160, "--folders", "smb")["insid"]
        cls.vs = cls.cli("vm", "define", "--image", server, "--server", "--name", "shop", "--memory-mib", 160, "--folders", "smb")["insid"]
        cls.stays = cls.cli("vm", "define", "--image", image, "--name", "links", "--memory-mib", 160, "--folders", "virtiofs")["insid"]
        for insid in (cls.vd, cls.vs, cls.stays):
            cls.cli.run(insid)
            cls.cloud.guest(insid)
        cls.cloud.guest(cls.vs).write("d", "row", "kept")

    @classmethod
    def tearDownClass(cls):
        cls.checks.show()

    def boots(self, insid):
        guest = self.cloud.guest(insid)
        return int(re.search(r"boots=(\d+)", guest.get(guest.url + "/")).group(1))

    def test_10_daemons(self):
        for name in ("clc", "walrus", "cc1"):
            with self.checks("rolling restart", f"{name} is killed and started again, its VMs run on"):
                self.cloud.restart(name)
                self.cloud.guest(self.vd)
        before = {insid: self.boots(insid) for insid in (self.vd, self.vs)}
        with self.checks("rolling restart", "educloud node roll: each node's daemon in turn, the VMs run on"):
            roll = Roller(self.cloud)
            done = roll(self.cloud.restart, "--timeout", 120)
            self.assertEqual(done["restarted"], ["nc1", "nc2"])
            self.assertEqual(roll.order, ["nc1", "nc2"])
            self.assertEqual({insid: self.boots(insid) for insid in (self.vd, self.vs)}, before)
            self.assertEqual(self.cloud.guest(self.vs).read("d", "row"), "kept")

    def test_20_hosts(self):
        before = {insid: self.boots(insid) for insid in (self.vd, self.vs)}
        stayed_on = self.cli("vm", "show", self.stays)["task"]["node"]
        with self.checks("rolling restart", "educloud node roll --reboot: each host in turn, desktop and server move"):
            done = Roller(self.cloud)(self.cloud.reboot, "--reboot", "--timeout", 180)
            self.assertEqual(done["restarted"], ["nc1", "nc2"])
            for node in done["restarted"]:
                self.assertEqual(self.cli("node", "show", node)["admin_state"], "enabled")
            self.assertEqual({insid: self.boots(insid) for insid in (self.vd, self.vs)}, before)
            self.assertEqual(self.cloud.guest(self.vs).read("d", "row"), "kept")
        with self.checks("rolling restart", "what cannot move is stopped after a warning, and started again with its node"):
            # Both times, if it was started again on the node whose turn was next.
            self.assertIn(done["started"], ([self.stays], [self.stays] * 2), stayed_on)
            self.assertEqual((done["ended"], done["not_started"]), ([], []))
            self.assertEqual(self.cli("vm", "show", self.stays)["state"], "running")
            self.cloud.guest(self.stays)

    def test_30_a_drain_warns(self):
        node = self.cli("vm", "show", self.stays)["task"]["node"]
        self.cli("node", "drain", node)
        with self.checks("rolling restart", "a drain tells when a VM that cannot move is stopped, and takes it back"):
            task = self.cli("vm", "show", self.stays)["task"]
            self.assertRegex(task["prompt"], rf"^node {node} is drained: this VM is stopped at \d\d:\d\d:\d\d UTC, save your work$")
            self.assertGreater(task["stops_at"], 0)
            self.cli("node", "enable", node)
            task = self.cli("vm", "show", self.stays)["task"]
            self.assertNotIn("stopped at", task["prompt"])
            self.assertEqual(task["stops_at"], 0)
            self.assertEqual(self.cli("vm", "show", self.stays)["state"], "running")


if __name__ == "__main__":
    unittest.main()
