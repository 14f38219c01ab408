#!/usr/bin/python3
"""Two clusters in one cloud: hosts main, cc1 with nc1, cc2 with nc2. The second one has a vhost of its own."""
import pathlib
import time
import unittest

from cloud import Cloud
from lab import wait_until


class Clusters(unittest.TestCase):
    """One cloud for all: the tests run in the order of their names, each using what the ones before made."""

    @classmethod
    def setUpClass(cls):
        cls.report = []
        began = time.monotonic()
        cls.cloud = cls.enterClassContext(Cloud(nodes=2, clusters=2))
        cls.cli = cls.cloud.cli
        cls.report.append(f"{'the cloud stands':<44} {time.monotonic() - began:6.1f} s")
        cls.image = cls.cli.import_image(cls.cloud.lab.sample_image(), "sample")

    @classmethod
    def tearDownClass(cls):
        print("\nREPORT clusters, on hosts main (clc, walrus), cc1 with nc1, cc2 with nc2; guests under TCG")
        for line in cls.report:
            print("  " + line)

    def setUp(self):
        self.began = time.monotonic()

    def tearDown(self):
        self.report.append(f"{self._testMethodName[8:]:<44} {time.monotonic() - self.began:6.1f} s")

    def connected(self):
        """{login: vhosts} of the broker's present connections."""
        where = {}
        for line in self.cloud.broker.ctl("list_connections", "--no-table-headers", "user", "vhost").splitlines():
            if line.strip():
                user, vhost = line.split()
                where.setdefault(user, set()).add(vhost)
        return where

    def counted(self, cluster, kind):
        """How many messages of `kind` this cc has passed on."""
        text = (self.cloud.storage(cluster) / "config/metrics/cc.prom").read_text()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith("educloud_cc_messages_total") and f'kind="{kind}"' in line and 'result="passed"' in line)

    def test_10_each_node_is_with_its_own_cluster(self):
        nodes = {one["host"]: one["cluster"] for one in self.cli("node", "list")["items"]}
        self.assertEqual(nodes, {"nc1": "cc1", "nc2": "cc2"})
        where = self.connected()
        self.assertEqual(where["nc-nc1"], {"/"})
        self.assertEqual(where["nc-nc2"], {"cc2"})
        self.assertEqual(where["cc-cc1"], {"/"})
        self.assertEqual(where["cc-cc2"], {"/", "cc2"})

    def test_20_the_cloud_s_vhost_refuses_the_second_cluster_s_node(self):
        conf, log = self.cloud.config_files["nc2"], self.cloud.daemons["nc2"].log
        right = conf.read_text()
        self.assertIn('vhost = "cc2"', right)
        conf.write_text(right.replace('vhost = "cc2"', 'vhost = "/"'))
        try:
            self.cloud.restart("nc2")
            wait_until(lambda: "bus.connect_failed" in pathlib.Path(log).read_text(errors="replace"), 60, "the broker's refusal", [log])
            self.assertNotIn("nc-nc2", self.connected())
        finally:
            conf.write_text(right)
            self.cloud.restart("nc2")
        wait_until(lambda: self.connected().get("nc-nc2") == {"cc2"}, 60, "the node to be in its own vhost", [log])
        self.cloud.wait_node("nc2", "up")

    def test_30_a_desktop_pinned_to_the_second_cluster(self):
        insid = self.cli("vm", "define", "--image", self.image, "--name", "there", "--type", "vdsmall", "--memory-mib", 160,
                         "--cluster", "cc2")["insid"]
        vm = self.cli.run(insid)
        self.assertEqual((vm["task"]["node"], vm["task"]["cluster"]), ("nc2", "cc2"))
        self.cloud.guest(insid)
        self.assertIn(insid, self.cloud.libvirtd["nc2"].virsh("list", "--name"))
        type(self).desktop = insid
        wait_until(lambda: self.counted("cc2", "status") > 0, 30, "cc2's metrics to tell of the task's statuses")
        self.assertEqual(self.counted("cc1", "status"), 0, "no status of another cluster's node")

    def test_40_a_killed_controller_of_the_second_cluster(self):
        self.cloud.daemons["cc2"].kill()
        self.cli("vm", "stop", self.desktop)
        self.cloud.start("cc2")
        self.cloud.wait_healthy("cc2")
        wait_until(lambda: self.cli("vm", "show", self.desktop)["state"] == "stopped", 90, "the end to be known",
                   [self.cloud.daemons[name].log for name in ("clc", "cc2", "nc2")])
        self.assertEqual(self.cloud.libvirtd["nc2"].virsh("list", "--name").strip(), "")


if __name__ == "__main__":
    unittest.main()
