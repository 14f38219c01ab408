#!/usr/bin/python3
"""Nodes restarted one after the other by `educloud node roll`, with a desktop and a server on them: their daemons only, and the whole
hosts. The program that restarts a node is the test's own, as an administrator would give a script with ssh in it."""
import re
import threading
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


class Restarter:
    """Does `restart(node)` for each node that the program asks for, while the context lasts."""

    def __init__(self, cloud, restart):
        self.folder, self.restart, self.order = cloud.dir / "roll", restart, []
        self.folder.mkdir(exist_ok=True)
        self.program = self.folder / "program"
        self.program.write_text(PROGRAM.format(folder=self.folder))
        self.program.chmod(0o755)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _serve(self):
        while not self._over.wait(0.1):
            for wanted in self.folder.glob("*.wanted"):
                node = wanted.stem
                wanted.unlink()
                self.restart(node)
                self.order.append(node)
                (self.folder / f"{node}.done").touch()


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
        cls.vd = cls.cli("vm", "define", "--image", image, "--name", "lab", "--memory-mib", 160, "--folders", "smb", "--node", "nc1")["insid"]
        cls.vs = cls.cli("vm", "define", "--image", server, "--server", "--name", "shop", "--memory-mib", 160, "--folders", "smb")["insid"]
        for insid in (cls.vd, cls.vs):
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
            with Restarter(self.cloud, self.cloud.restart) as restarter:
                done = self.cli("node", "roll", "--run", restarter.program, "--timeout", 120)
            self.assertEqual(done["restarted"], ["nc1", "nc2"])
            self.assertEqual(restarter.order, ["nc1", "nc2"])
            self.assertEqual({insid: self.boots(insid) for insid in (self.vd, self.vs)}, before)
            self.assertEqual(self.cloud.guest(self.vs).read("d", "row"), "kept")


if __name__ == "__main__":
    unittest.main()
