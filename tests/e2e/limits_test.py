#!/usr/bin/python3
"""What a VM may use at most, measured by work that is done inside of it: with and without the limit, in turn, in one run."""
import re
import threading
import time
import unittest

from checks import Timed
from cloud import Cloud
from cloud_cli import CommandError
from lab import wait_until

PATIENCE_S = 240  # of one comparison: the machine may have other work


class Limits(Timed, unittest.TestCase):
    """One desktop, whose limits change while it runs."""

    flow = "limits"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cloud = cls.enterClassContext(Cloud(nodes=1))
        cls.cli = cls.cloud.cli
        image = cls.cli.import_image(cls.cloud.lab.sample_image(), "sample")
        cls.vm = cls.cli("vm", "define", "--image", image, "--name", "lab", "--type", "vdsmall", "--memory-mib", 192)["insid"]
        cls.other = cls.cli("vm", "define", "--image", image, "--name", "other", "--type", "vdsmall", "--memory-mib", 160)["insid"]
        cls.urls = {}
        cls.start(cls.vm)

    @classmethod
    def start(cls, insid):
        cls.cli.run(insid)
        cls.urls[insid] = cls.cloud.guest(insid).url

    def limit(self, **limits):
        words = [word for key, value in limits.items() for word in (f"--{key.replace('_', '-')}", value)]
        self.cli("vm", "limit", self.vm, *words, "--wait")

    def rate(self, what, count, insid=None):
        """Units of work per second, by our clock: a guest that stands still does not see its own stand."""
        url = f"{self.urls[insid or self.vm]}/cgi-bin/measure?what={what}&count={count}"
        began = time.monotonic()
        status, body = self.cloud.hosts["cc1"].http("GET", url, timeout_s=120)
        took = time.monotonic() - began
        self.assertEqual(status, 200, body[:300])
        return count / took

    def compare(self, name, without, measure, limited, wanted):
        """Measures `measure()` without a limit and with it until `wanted(free, held)`, which is told both rates."""
        until = time.monotonic() + PATIENCE_S
        tried = []
        while True:
            self.limit(**without)
            free = measure()
            self.limit(**limited)
            held = measure()
            tried.append((free, held))
            if wanted(free, held):
                self.tell(name, f"{free:.2f} /s without, {held:.2f} /s with, ratio {held / free:.2f}, pair {len(tried)}")
                break
            self.assertLess(time.monotonic(), until, f"{name}: no pair as wanted: {tried}")
        self.limit(**without)

    def work_for(self, what, seconds, first):
        """As much work as takes about so long without a limit."""
        count = first
        while count < 4_000_000:
            began = time.monotonic()
            self.rate(what, count)
            took = time.monotonic() - began
            if took >= seconds / 2:
                return int(count * min(2, seconds / took)) + 1
            count = int(count * min(8, seconds / max(took, 0.05)))
        return 4_000_000

    def test_10_memory(self):
        page = self.cloud.get(self.urls[self.vm] + "/")
        mib = int(page.split("memory_kib=")[1].split()[0]) / 1024
        self.tell("memory: of 192 MiB the guest sees", f"{mib:.1f} MiB")
        self.assertTrue(140 < mib <= 192, mib)

    def cpu_seconds(self):
        """What the guest's cpu has had of the host's, by the host."""
        stats = self.cloud.libvirtd["nc1"].virsh("domstats", "--vcpu", self.vm)
        return int(re.search(r"vcpu\.0\.time=(\d+)", stats).group(1)) / 1e9

    def test_20_cpu_quota(self):
        count = self.work_for("cpu", 3, 20_000)

        def part_of_a_cpu():
            """The guest's own work as a part of what it does with a whole cpu: the machine's other work does not count."""
            had = self.cpu_seconds()
            rate = self.rate("cpu", count)
            whole.append(count / (self.cpu_seconds() - had))
            return rate / max(whole)
        for percent, least in ((50, 1.15), (10, 1.5)):
            whole = []
            self.compare(f"cpu_percent {percent}, of a whole cpu", {"cpu_percent": 0}, part_of_a_cpu, {"cpu_percent": percent},
                         lambda free, held, most=percent / 100, least=least: most * 0.3 <= held <= most * 1.5 and free > least * held)

    def test_21_there_is_a_floor(self):
        with self.assertRaises(CommandError) as refused:
            self.limit(cpu_percent=3)
        self.assertIn("10", refused.exception.output)

    def disk_rate(self, what, unit_kib, seconds, limit):
        """A measurement that takes `seconds` at `limit` units of `unit_kib` a second, and in units a second."""
        count = int(limit * unit_kib * seconds)
        return lambda: self.rate(what, count) / unit_kib

    def test_30_disk_bytes(self):
        for what, seconds in (("read", 4), ("write", 3)):
            # At a tenth of a second's worth above the limit, QEMU begins to hold back.
            self.compare(f"disk_mib_s 4, {what}, in MiB", {"disk_mib_s": 0}, self.disk_rate(what, 1024, seconds, 4), {"disk_mib_s": 4},
                         lambda free, held: 1.5 <= held <= 5 and free > 2 * held)

    def test_40_disk_operations(self):
        for what in ("small-read", "small-write"):
            self.compare(f"disk_iops 60, {what}", {"disk_iops": 0}, self.disk_rate(what, 4, 4, 60), {"disk_iops": 60},
                         lambda free, held: 20 <= held <= 75 and free > 2 * held)

    def test_50_cpu_weight(self):
        self.start(self.other)
        for insid in (self.vm, self.other):
            self.cloud.libvirtd["nc1"].virsh("vcpupin", insid, "0", "0", "--live")
        count = self.work_for("cpu", 3, 20_000)

        def side_by_side():
            """How much faster our guest counts than the other one, both on one core."""
            took = {}

            def measure(insid):
                took[insid] = 1 / self.rate("cpu", count, insid)
            threads = [threading.Thread(target=measure, args=(insid,)) for insid in (self.vm, self.other)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return took[self.other] / took[self.vm]
        self.cli("vm", "limit", self.other, "--cpu-weight", 100, "--wait")
        self.compare("cpu_weight 10 and 1000 beside one of 100", {"cpu_weight": 1000}, side_by_side, {"cpu_weight": 10},
                     lambda heavy, light: heavy > 1.25 and light < 0.8)

    def test_60_network(self):
        kib = 1024  # 2 s at 4 Mbit/s
        mbit = lambda: self.rate("send", kib) * 8 * 1024 / 1e6
        self.compare("net_mbit_s 4, in Mbit", {"net_mbit_s": 0}, mbit, {"net_mbit_s": 4},
                     lambda free, held: 1.5 <= held <= 5 and free > 2 * held)

    def test_61_the_network_limit_outlives_its_daemon(self):
        self.limit(net_mbit_s=4)
        mbit = lambda: self.rate("send", 1024) * 8 * 1024 / 1e6
        for stop in (self.cloud.daemons["nc1"].kill, self.cloud.daemons["nc1"].stop):
            stop()
            self.cloud.start("nc1")
            self.cloud.wait_healthy("nc1")
            self.cloud.guest(self.vm)
            wait_until(lambda: mbit() <= 5, 120, "the limit to hold again", [self.cloud.daemons["nc1"].log])
        self.limit(net_mbit_s=0)
        wait_until(lambda: mbit() > 8, 120, "the limit to be lifted")


if __name__ == "__main__":
    unittest.main()
