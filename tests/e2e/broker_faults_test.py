#!/usr/bin/python3
"""What the broker and the network may do to a cloud: replay, lose, block, refuse, forget. Real RabbitMQ, one real node."""
import json
import os
import pathlib
import re
import time
import unittest

from cloud import Cloud, set_keys
from cloud_cli import CommandError
from lab import injected, wait_until

PROXY = pathlib.Path(__file__).resolve().parent / "lab/replay_proxy.py"
PROXY_PORT = 5673
LOSS = """table inet loss {
  chain in { type filter hook input priority 0; iif eth0 numgen random mod 3 == 0 counter drop; }
  chain out { type filter hook output priority 0; }
}
"""


class BrokerFaults(unittest.TestCase):
    """One cloud for all. Each test leaves the desktop stopped."""

    @classmethod
    def setUpClass(cls):
        cls.report = []
        cls.cloud = cls.enterClassContext(Cloud(nodes=1))
        cls.cli, cls.broker = cls.cloud.cli, cls.cloud.broker
        # Nobody works in these guests: they need not be up to be stopped.
        set_keys(cls.cloud.config_files["nc1"], {"stop_grace_s": 1})
        cls.cloud.restart("nc1")
        cls.image = cls.cli.import_image(cls.cloud.lab.sample_image(), "sample")
        cls.insid = cls.cli.define(cls.image, "desktop")
        cls.cli("image", "push", cls.image, "--cluster", "cc1", "--wait")

    @classmethod
    def tearDownClass(cls):
        print("\nREPORT faults of broker and network on hosts main (clc, walrus), cc1, nc1; guests under TCG")
        for line in cls.report:
            print("  " + line)

    def setUp(self):
        self.began, self.note = time.monotonic(), ""

    def tearDown(self):
        self.report.append(f"{self._testMethodName[5:]:<56} {time.monotonic() - self.began:6.1f} s{self.note}")

    # -- vocabulary ----------------------------------------------------------------------------------------------------

    def domains(self):
        return self.cloud.libvirtd["nc1"].virsh("list", "--name").split()

    def outbox(self):
        return self.cli("status")["outbox"]

    def metric(self, name):
        """The sum of a metric of clc over its labels, at most 5 s old."""
        text = "".join(path.read_text() for path in (self.cloud.storage("clc") / "config/metrics").glob("*clc*.prom"))
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))

    def log_has(self, daemon, text):
        with open(self.cloud.daemons[daemon].log, encoding="utf-8", errors="replace") as log:
            return text in log.read()

    def logs(self):
        return [process.log for process in self.cloud.daemons.values()]

    def start_desktop(self, insid=None):
        """Asks for a start and does not wait; the task."""
        return self.cli("vm", "run", insid or self.insid)["task"]["tid"]

    def wait_running(self, tid):
        self.cloud.wait_task(tid, ["editing/running"], 180)

    def wait_outbox_empty(self):
        wait_until(lambda: self.outbox() == 0, 60, "the outbox to drain", self.logs())

    def unbind(self, exchange, key, queue):
        self.broker.ctl("eval", f'rabbit_binding:remove({{binding, {{resource, <<"/">>, exchange, <<"{exchange}">>}}, <<"{key}">>, '
                        f'{{resource, <<"/">>, queue, <<"{queue}">>}}, []}}, <<"test">>).')
        injected("unroutable")

    def import_definitions(self):
        self.broker.ctl("import_definitions", os.path.join(self.broker.dir, "definitions.json"))

    # -- the tests -----------------------------------------------------------------------------------------------------

    def speak_through(self, port):
        for name in ("clc", "cc1", "nc1"):
            path = self.cloud.config_files[name]
            text = re.sub(r"^port = .*\n", "", path.read_text().partition("[broker]")[2], flags=re.M)
            path.write_text(path.read_text().partition("[broker]")[0] + f"[broker]\nport = {port}" + text)
            self.cloud.restart(name)
        self.cloud.wait_node("nc1", "up")

    def test_10_replayed_and_reordered_messages_change_nothing(self):
        counts = self.cloud.dir / "replayed"
        proxy = self.cloud.main.start(["/usr/bin/python3", PROXY, self.cloud.main.address, PROXY_PORT, self.broker.port, counts], "proxy")
        wait_until(counts.exists, 20, "the proxy", [proxy])
        self.speak_through(PROXY_PORT)
        other = self.cli.define(self.image, "other")
        for _ in range(3):
            self.cli.run(self.insid)
            self.assertEqual(self.domains(), [self.insid])
            self.wait_running(self.start_desktop(other))
            self.assertEqual(sorted(self.domains()), sorted([self.insid, other]))
            self.cli.stop(self.insid)
            self.assertEqual(self.domains(), [other])
            self.cli.stop(other)
        self.cli("vm", "delete", other, "--wait")
        replayed, reordered = map(int, counts.read_text().split())
        injected("reorder", replayed + reordered)
        self.note = f"   {replayed} messages replayed, {reordered} reordered"
        self.assertGreater(min(replayed, reordered), 10)
        self.assertEqual(self.domains(), [])
        self.assertEqual(self.cli("vm", "show", self.insid)["state"], "stopped")
        self.assertEqual([vm["insid"] for vm in self.cli("vm", "list")["items"]], [self.insid])
        wait_until(lambda: self.metric("educloud_clc_statuses_total") > 0, 30, "the metrics")
        self.speak_through(self.broker.port)
        proxy.stop()

    def test_20_a_lossy_slow_one_way_link_loses_no_node(self):
        host = self.cloud.hosts["nc1"]
        self.cli.run(self.insid)
        before = self.cli("node", "show", "nc1")

        def nothing_moved(seconds):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                node = self.cli("node", "show", "nc1")
                self.assertEqual((node["lost_at"], node["lease_epoch"]), (0, before["lease_epoch"]))
                self.assertEqual(self.cli("vm", "show", self.insid)["state"], "running")
                time.sleep(0.5)
        host.run(["nft", "-f", "-"], data=LOSS)
        self.cloud.limit_rate("nc1", "300kbit")
        try:
            other = self.cli.define(self.image, "under-loss")
            self.wait_running(self.start_desktop(other))
            nothing_moved(5)
            self.cloud.limit_rate("nc1", None)
            host.run(["nft", "flush chain inet loss in; add rule inet loss out oif eth0 counter drop"])
            nothing_moved(13)
            dropped = sum(map(int, re.findall(r"counter packets (\d+)", host.run(["nft", "list", "ruleset"]).stdout)))
        finally:
            self.cloud.limit_rate("nc1", None)
            host.run(["nft", "delete table inet loss"])
        injected("lossy-link", dropped)
        self.note = f"   {dropped} packets dropped in one direction alone"
        self.assertGreater(dropped, 0)
        self.cloud.wait_node("nc1", "up")
        nothing_moved(1)
        self.assertEqual(sorted(self.domains()), sorted([self.insid, other]))
        self.cloud.guest(self.insid)
        self.cli("vm", "delete", other, "--wait")
        self.cli.stop(self.insid)

    def test_30_the_api_answers_while_the_broker_is_out_of_memory_or_disk(self):
        for on, off in ((("set_vm_memory_high_watermark", "0.00001"), ("set_vm_memory_high_watermark", "0.4")),
                        (("set_disk_free_limit", "900000GB"), ("set_disk_free_limit", "200MB"))):
            self.broker.ctl(*on)
            injected("broker-alarm")
            try:
                others = [self.cli.define(self.image, f"waits-{i}") for i in range(3)]
                tids = [self.start_desktop(insid) for insid in others]
                slowest = 0
                for _ in range(10):
                    asked = time.monotonic()
                    self.cli("vm", "list")
                    slowest = max(slowest, time.monotonic() - asked)
                self.note += f"   slowest answer {slowest:.2f} s, outbox {self.outbox()}"
                self.assertGreaterEqual(self.outbox(), len(tids))
                self.assertLess(slowest, 5)
                self.assertEqual(self.domains(), [])
            finally:
                self.broker.ctl(*off)
            for tid in tids:
                self.wait_running(tid)
            self.wait_outbox_empty()
            for insid in others:
                self.cli("vm", "delete", insid)
            wait_until(lambda: self.domains() == [], 90, "them to end", self.logs())

    def test_40_what_no_queue_takes_waits(self):
        self.addCleanup(self.import_definitions)
        # clc's commands: they stay in its outbox.
        self.unbind("cc_cmd", "cc1", "cc_cmd_queue.cc1")
        tid = self.start_desktop()
        wait_until(lambda: self.log_has("clc", "outbox.unroutable"), 30, "the log to say so", self.logs())
        self.assertGreaterEqual(self.outbox(), 1)
        wait_until(lambda: self.metric("educloud_clc_outbox_unroutable_total") > 0, 30, "the metric to say so")
        self.import_definitions()
        self.wait_running(tid)
        self.wait_outbox_empty()
        # The nodes' statuses. The operators' tap takes them, so their sender is not told: clc asks again
        # for want of news, or finds in the node's inventory what it has missed.
        self.unbind("clc_status", "taskstatus.#", "clc_status_queue")
        self.cli("vm", "stop", self.insid)
        wait_until(lambda: self.domains() == [], 90, "the guest to end", self.logs())
        self.assertNotEqual(self.cli("vm", "show", self.insid)["state"], "stopped")
        self.import_definitions()
        wait_until(lambda: self.cli("vm", "show", self.insid)["state"] == "stopped", 90, "the end to be known", self.logs())
        # cc's commands: the user is told, and may try again.
        self.unbind("nc_cmd", "nc1", "nc_cmd_queue.nc1")
        with self.assertRaises(CommandError) as refused:
            self.cli.run(self.insid)
        self.assertIn("nc1", refused.exception.output)
        self.import_definitions()
        self.cli.run(self.insid)
        self.cli.stop(self.insid)

    def test_41_what_a_full_queue_refuses_waits(self):
        others = [self.cli.define(self.image, f"crowd-{i}") for i in range(6)]
        policy = next(one for one in json.loads((self.cloud.conf / "definitions.json").read_text())["policies"] if one["name"] == "work")
        rules = {**policy["definition"], "max-length": 3}
        self.broker.ctl("set_policy", "small", "^cc_cmd_queue\\.cc1$", json.dumps(rules), "--priority", "20", "--apply-to", "queues")
        self.cloud.wait_node("nc1", "up")
        self.cloud.daemons["cc1"].kill()  # nobody reads it any more, and for 15 s the node passes for alive
        tids = []
        for insid in others:
            tids.append(self.start_desktop(insid))
            # A quorum queue tells its publishers a moment after it has become full.
            wait_until(lambda: self.log_has("clc", "outbox.refused") or self.outbox() == 0, 10, "the broker's word", self.logs())
        self.assertTrue(self.log_has("clc", "outbox.refused"))
        waiting = self.outbox()
        injected("unroutable", waiting)
        self.note = f"   {waiting} of {len(tids)} commands refused"
        self.assertGreaterEqual(waiting, 1)
        wait_until(lambda: self.metric("educloud_clc_outbox_refused_total") > 0, 30, "the metric to say so")
        self.assertGreaterEqual(self.outbox(), 1)
        self.broker.ctl("clear_policy", "small")
        self.cloud.start("cc1")
        self.cloud.wait_healthy("cc1")
        for tid in tids:
            self.wait_running(tid)
        self.wait_outbox_empty()
        self.assertEqual(sorted(self.domains()), sorted(others))
        for insid in others:
            self.cli("vm", "delete", insid)
        wait_until(lambda: self.domains() == [], 90, "them to end", self.logs())

    def test_50_a_wiped_broker_loses_no_task(self):
        running, ending = [self.cli.define(self.image, name) for name in ("runs-on", "to-end")]
        for insid in (running, ending):
            self.cli.run(insid)
        self.cloud.guest(running).add_note("before")
        # The commands are taken over by the broker, and nobody else: they go with it.
        self.cloud.daemons["nc1"].pause()
        tid = self.start_desktop()
        self.cli("vm", "stop", ending)
        wait_until(lambda: self.outbox() == 0, 20, "the broker to have the commands")
        self.broker.kill()
        wait_until(lambda: not self.broker.running(), 20, "the broker to be gone")
        self.cloud.main.run(["rm", "-rf", os.path.join(self.broker.dir, "mnesia")])
        injected("broker-wiped")
        self.cloud.daemons["nc1"].resume()
        self.broker.start()
        self.wait_running(tid)
        wait_until(lambda: self.cli("vm", "show", ending)["state"] == "stopped", 120, "the other to be stopped", self.logs())
        self.assertEqual(sorted(self.domains()), sorted([self.insid, running]))
        self.assertIn("before", self.cloud.guest(running).notes(), "the same guest, not another one")
        for insid in (running, ending):
            self.cli("vm", "delete", insid, "--wait")
        self.cli.stop(self.insid)


if __name__ == "__main__":
    unittest.main()
