"""The rows of `scripts/bench control`."""
import json
import statistics
import subprocess
import time

from site_cloud import API, Held, Site, memory_mib
from lab import wait_until

ROWS = ["cold_start", "memory_idle", "accept_to_running", "lifecycles_200", "fsyncs", "cpu_ms", "lifecycles_1000", "read_vm_c1",
        "read_vm_c4", "read_vm_c8", "read_vm_c32", "list_page_100", "memory_1000", "status_p99_200", "status_p99_1000"]

# What PEERS.md's measurement gave; the better value where it is a range. The list row of OpenNebula is the whole list of 1000.
PEER = {"accept_to_running": 10.3, "lifecycles_200": 16, "lifecycles_1000": 11, "fsyncs": 124, "read_vm_c1": 804, "read_vm_c8": 790,
        "read_vm_c32": 790, "list_page_100": 83, "memory_idle": 22, "memory_1000": 1454, "cold_start": 4.4}
PEER_NAME = "OpenNebula 7.5.80, measured once on 2 cores"
LOOP = "the same rows and messages, nothing decided"
HTTP = "the HTTP server alone, the same bytes"
HIGHER_IS_BETTER = {"per s"}
CLIENTS = 4
EVENTS = {"booting": "editing/booting", "running": "editing/running"}


class Race:
    def __init__(self, lab, bin_dir, wanted, runs, limits, note):
        self.lab, self.bin, self.wanted, self.runs, self.limits, self.note = lab, bin_dir, wanted, runs, limits, note
        self.rows = []
        self.count = 0

    def wants(self, *names):
        return any(name in self.wanted for name in names)

    def row(self, name, unit, ours, limit=None, limit_name=None, **more):
        if name not in self.wanted:
            return
        peer = PEER.get(name)
        better = None
        if peer and ours:
            better = round(ours / peer if unit in HIGHER_IS_BETTER else peer / ours, 2)
        one = {"name": name, "unit": unit, "ours": round(ours, 4), "peer": peer, "peer_name": PEER_NAME if peer else None,
               "limit": None if limit is None else round(limit, 3), "limit_name": limit_name if limit is not None else None,
               "ratio_to_peer": better, "ratio_to_limit": None if not limit else round(ours / limit, 3), "runs": self.runs, **more}
        self.rows.append(one)
        self.note(f"  {one}")

    def site(self, nodes):
        self.count += 1
        return Site(self.lab, f"main{self.count}", nodes, self.bin, self.note)

    def run(self):
        if self.wants("cold_start", "memory_idle"):
            self.small_site()
        if self.wants(*ROWS[2:13]):
            self.large_site()
        if self.wants("status_p99_200"):
            self.status_latency("status_p99_200", 200)
        if self.wants("status_p99_1000"):
            self.status_latency("status_p99_1000", 999)  # and the cluster controller: `educloud init` takes 1000 hosts

    # -- one real node ------------------------------------------------------------------------------------------------

    def small_site(self):
        self.note("one host with all four daemons")
        site = self.site(1)
        site.start_broker()
        starts = []
        for _ in range(self.runs + 1):  # the first makes databases and is not counted
            begun = time.monotonic()
            for name in ("clc", "walrus", "cc"):
                site.start(name, [site.bin / f"educloud-{name}", "--config", site.conf / f"{name}.conf"])
            site.start_nc()
            for name in ("clc", "walrus", "cc", "nc"):
                site.wait_healthy(name, poll_s=0.01)
            site.token = site.log_in()
            wait_until(lambda: site.get("/status")["nodes_alive"] == 1, 60, "the node to report", poll_s=0.01)
            starts.append(time.monotonic() - begun)
            if len(starts) <= self.runs:
                site.stop()
        self.note(f"    cold starts: {', '.join(f'{one:.2f}' for one in starts)} s")
        self.row("cold_start", "s", statistics.median(starts[1:]), what="four daemons, until clc has the node's first heartbeat")
        time.sleep(6)  # past the first heartbeats
        each = {name: memory_mib(process.pid) for name, process in site.daemons.items()}
        rss = sum(memory_mib(process.pid, "Rss") for process in site.daemons.values())
        self.row("memory_idle", "MiB", sum(each.values()), rss=round(rss, 1), each={k: round(v, 1) for k, v in each.items()},
                 what="proportional set size of clc, walrus, cc and nc")
        site.stop()
        site.stop_broker()

    # -- up to a hundred nodes ----------------------------------------------------------------------------------------

    def large_site(self):
        self.note("100 nodes")
        site = self.site(100)
        site.start_broker()
        if self.limits and self.wants("lifecycles_200", "lifecycles_1000"):
            self.loops = {name: self.loop(site, lives, nodes) for name, lives, nodes in (("200 on 10", 200, 10), ("200 on 100", 200, 100),
                                                                                        ("1000 on 100", 1000, 100))}
        else:
            self.loops = {}
        site.start_daemons()
        imgid = site.import_image()
        site.start_nodes(10)
        if self.wants("accept_to_running"):
            done = site.lifecycles(imgid, 20, 1, "one")
            self.row("accept_to_running", "s", done["accept_p50_s"], p99=round(done["accept_p99_s"], 4),
                     what="request sent until the event says running, one at a time, no-op hypervisor")
        on_10 = self.lifecycle_rows(site, imgid, 10)
        site.stop("nodes")
        site.start_nodes(100)
        on_100 = self.lifecycle_rows(site, imgid, 100)
        if on_10 and on_100:
            self.row("lifecycles_200", "per s", on_100["per_s"], self.loops.get("200 on 100"), LOOP, nodes=100, clients=CLIENTS,
                     on_10_nodes=round(on_10["per_s"], 2), limit_on_10_nodes=self.loops.get("200 on 10"))
            self.row("fsyncs", "per lifecycle", on_100["syncs"], on_10_nodes=round(on_10["syncs"], 2), each=on_100["syncs_each"])
            self.row("cpu_ms", "per lifecycle", on_100["cpu_ms"], on_10_nodes=round(on_10["cpu_ms"], 2), each=on_100["cpu_each"])
        if self.wants("lifecycles_1000"):
            done = site.lifecycles(imgid, 1000, CLIENTS, "pipeline")
            self.row("lifecycles_1000", "per s", 1000 / done["seconds"], self.loops.get("1000 on 100"), LOOP, nodes=100, clients=CLIENTS,
                     accept_p99_s=round(done["accept_p99_s"], 3))
        if self.wants(*ROWS[7:13]):
            self.with_1000(site, imgid)
        site.stop()
        site.stop_broker()

    def loop(self, site, lives, nodes):
        folder = site.dir / f"limit{lives}x{nodes}"
        folder.mkdir()
        done = site.driver("limit", str(site.conf / "secrets"), f"{site.host.address}:5672", str(folder), str(lives), str(nodes))
        self.note(f"    bare loop, {lives} on {nodes}: {done['per_s']:.1f} per s")
        return round(done["per_s"], 2)

    def lifecycle_rows(self, site, imgid, nodes):
        if not self.wants("lifecycles_200", "fsyncs", "cpu_ms"):
            return None
        runs = []
        for _ in range(self.runs):
            before = site.usage()
            done = site.lifecycles(imgid, 200, CLIENTS, "pipeline")
            after = site.usage()
            one = {"per_s": 200 / done["seconds"], "accept_p99_s": done["accept_p99_s"],
                   "cpu_each": {name: round((after[name][0] - before[name][0]) * 1000 / 200, 2) for name in after},
                   "syncs_each": {name: round((after[name][1] - before[name][1]) / 200, 2) for name in after}}
            one["cpu_ms"], one["syncs"] = sum(one["cpu_each"].values()), sum(one["syncs_each"].values())
            self.note(f"    200 on {nodes}: {one}")
            runs.append(one)
        return sorted(runs, key=lambda one: one["per_s"])[len(runs) // 2]

    def with_1000(self, site, imgid):
        """1000 desktops run: reading them, and what the daemons hold then."""
        held = Held(site, imgid, 1000, CLIENTS)
        self.note(f"    1000 running after {held.started['running_s']:.1f} s")
        listed, cursor = [], ""
        while True:
            page = site.get(f"/vms?limit=500{cursor}")
            listed += [vm["insid"] for vm in page["items"]]
            if not page.get("next"):
                break
            cursor = f"&cursor={page['next']}"
        targets = [f"{API}/vms/{insid}" for insid in listed[:1000]]
        busy = {}
        if self.wants(*ROWS[7:12]):
            # Each commit makes clc read again what it has kept.
            load = site.popen_lifecycles(imgid, 600, CLIENTS)
            writing = site.read(3, 8, targets)["per_s"]
            pages = site.read(2, 8, [f"{API}/vms?limit=100"])["per_s"]
            ended = load.poll() is not None
            load.wait(timeout=600)
            busy = {"while_writing": round(writing, 1), "pages_while_writing": round(pages, 1), "writing_ended_early": ended}
            self.note(f"    with lifecycles under way: {busy}")
        if self.wants(*ROWS[7:11]):
            for connections in (1, 4, 8, 32):
                done = site.read(4, connections, targets)
                limit = self.http_limit(site, done["bytes"], connections)
                self.row(f"read_vm_c{connections}", "per s", done["per_s"], limit, HTTP, p99_ms=round(done["p99_ms"], 2), bytes=done["bytes"],
                         while_writing_c8=busy["while_writing"])
        if self.wants("list_page_100"):
            done = site.read(4, 8, [f"{API}/vms?limit=100"])
            limit = self.http_limit(site, done["bytes"], 8)
            self.row("list_page_100", "per s", done["per_s"], limit, HTTP, p99_ms=round(done["p99_ms"], 2), bytes=done["bytes"], connections=8,
                     while_writing=busy["pages_while_writing"])
        each = {name: memory_mib(process.pid) for name, process in site.daemons.items()}
        held.end()
        after = {name: memory_mib(process.pid) for name, process in site.daemons.items()}
        nodes = after.pop("nodes")
        self.row("memory_1000", "MiB", sum(after.values()), each={k: round(v, 1) for k, v in after.items()},
                 while_they_run=round(sum(v for k, v in each.items() if k != "nodes"), 1), lightweight_nodes=round(nodes, 1),
                 what="proportional set size of clc, walrus and cc after the desktops ended")

    def http_limit(self, site, size, connections):
        if not self.limits:
            return None
        popen = site.host.popen([site.bin / "bench_control", "serve", site.host.address, str(size)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)
        port = json.loads(popen.stdout.readline())["port"]
        try:
            return site.driver("reads", f"http://{site.host.address}:{port}", "3", str(connections), "/bytes")["per_s"]
        finally:
            popen.stdin.close()
            popen.wait(timeout=30)

    # -- many nodes ---------------------------------------------------------------------------------------------------

    def status_latency(self, name, nodes):
        """From a node's publish to the event at the API's client."""
        self.note(f"{nodes} nodes")
        site = self.site(nodes)
        site.start_broker()
        site.start_daemons()
        imgid = site.import_image()
        told, seen = site.dir / "told", site.dir / "seen"
        site.start_nodes(nodes, told)
        done = site.lifecycles(imgid, 200, CLIENTS, "pipeline", seen)
        sent = {}
        for line in told.read_text().splitlines():
            at, tid, event = line.split()
            if event in EVENTS:
                sent.setdefault((tid, EVENTS[event]), int(at))
        took = []
        for line in seen.read_text().splitlines():
            at, tid, state = line.split()
            if (tid, state) in sent:
                took.append((int(at) - sent.pop((tid, state))) / 1e6)
        took.sort()
        self.row(name, "s", took[int(len(took) * 0.99)], median=round(took[len(took) // 2], 4), statuses=len(took), nodes=nodes,
                 lifecycles_per_s=round(200 / done["seconds"], 1))
        site.stop()
        site.stop_broker()
