"""The rows of `scripts/bench images`: each runs ours and the others on the same disks, hosts and rates."""
import os
import statistics
import time

import others
from cloud import Cloud
from data import MIB, data_bytes, same_content

GBIT, HALF_GBIT = 1000, 500  # mbit/s


class Race:
    """One laboratory, one pair of disks. Names: `big` is 10 GiB with 2 GiB of data, `small` a quarter of that."""

    def __init__(self, lab, driver, folder, disks, runs, note, peers=True):
        self.lab, self.driver, self.folder, self.disks, self.runs, self.note = lab, driver, folder, disks, runs, note
        self.peers = peers
        self.usage = {}
        self.hosts = {name: lab.host(name) for name in ("walrus", "cc", "nc1", "nc2", "nc3", "nc4")}
        self.rows = []
        self.count = 0

    def rate(self, mbit):
        """All hosts' cables, both ways; None: as fast as the machine."""
        for host in self.hosts.values():
            for run, dev in ((host.on_switch, host.port), (host.run, "eth0")):
                if mbit is None:
                    run(["tc", "qdisc", "replace", "dev", dev, "root", "pfifo"])
                else:
                    run(["tc", "qdisc", "replace", "dev", dev, "root", "tbf", "rate", f"{mbit}mbit", "burst", "256kb",
                         "latency", "100ms"])

    def cloud(self):
        """Empty stores each time."""
        self.count += 1
        return Cloud(self.driver, os.path.join(self.folder, f"cloud{self.count}"), self.usage)

    def file(self, host, name="copy.raw"):
        folder = os.path.join(self.folder, "others", host.name)
        os.makedirs(folder, exist_ok=True)
        return os.path.join(folder, name)

    def best(self, contestants, runs=1):
        """(name, median seconds) of the fastest; contestants: name -> function that returns seconds."""
        results = {}
        if not self.peers:
            return None, None, dict.fromkeys(contestants)
        for name, run in contestants.items():
            results[name] = statistics.median(run() for _ in range(runs))
            self.note(f"    {name}: {results[name]:.2f} s")
        name = min(results, key=results.get)
        return name, results[name], results

    def median(self, run):
        times = [run() for _ in range(self.runs)]
        self.note(f"    ours: {', '.join(f'{one:.2f}' for one in times)} s")
        return statistics.median(times)

    def row(self, name, unit, ours, peer, peer_name, limit, limit_name, runs=None, **more):
        one = {"name": name, "unit": unit, "ours": round(ours, 3), "peer": None if peer is None else round(peer, 3),
               "peer_name": peer_name, "limit": None if limit is None else round(limit, 3), "limit_name": limit_name,
               "ratio_to_peer": None if not peer or not ours else round(peer / ours, 2),
               "ratio_to_limit": None if not limit else round(ours / limit, 3), "runs": runs or self.runs, **more}
        self.rows.append(one)
        self.note(f"  {one}")

    def copy(self, copier, source, source_file, target):
        """Seconds of one copy; the result is compared and removed."""
        path = self.file(target)
        if os.path.exists(path):
            os.unlink(path)
        taken = copier(source, source_file, target, path)
        if not same_content(source_file, path):
            raise RuntimeError(f"{copier} did not copy {source_file}")
        return taken

    def publish(self, cloud, *disks):
        """Imports the disks as versions 1, 2, ... and serves walrus; their digests and sizes."""
        made = [cloud.publish(self.hosts["walrus"], number, disk) for number, disk in enumerate(disks, 1)]
        cloud.serve_walrus(self.hosts["walrus"])
        return made

    def fill(self, cloud, nodes, upstream, port, version, digest, check=None, peers=False):
        """Starts the fills at once; seconds until the last has ended."""
        start = time.monotonic()
        parts = [cloud.node(self.hosts[node], upstream, port, version, digest, peers) for node in nodes]
        for part in parts:
            part.news()
        taken = time.monotonic() - start
        if check:
            for node in nodes:
                machine = cloud.machine(self.hosts[node], version)
                if os.path.getsize(machine) != os.path.getsize(check) or not same_content(machine, check):
                    raise RuntimeError(f"{node} has not what {check} holds")
        return taken

    # -- rows ---------------------------------------------------------------------------------------------------------

    def first_copy(self, mbit, name, slow=True):
        """One hop: walrus to a node."""
        self.rate(mbit)
        disk, walrus, node = self.disks["big"], self.hosts["walrus"], self.hosts["nc1"]
        stored = 0

        def ours():
            nonlocal stored
            cloud = self.cloud()
            one, = self.publish(cloud, disk)
            stored = one["stored_bytes"]
            taken = self.fill(cloud, ["nc1"], walrus, 8001, 1, one["digest"], disk)
            cloud.stop()
            cloud.forget(node), cloud.forget(walrus)
            return taken
        mine = self.median(ours)
        contestants = {"nbdcopy": lambda: self.copy(others.nbdcopy, walrus, disk, node),
                       "sendfile": lambda: self.copy(others.sendfile, walrus, disk, node),
                       "bsdtar": lambda: self.copy(others.bsdtar, walrus, disk, node)}
        if slow:
            contestants["rsync -S"] = lambda: self.copy(others.rsync(["-S"]), walrus, disk, node)
        _, _, results = self.best(contestants)
        limit, limit_name = (stored * 8 / mbit / 1e6, f"{stored / 1e6:.0f} MB of frames at {mbit} Mbit/s") if mbit else (None, None)
        self.row(name, "s", mine, results["nbdcopy"], "nbdcopy", limit, limit_name,
                 others={key: value and round(value, 2) for key, value in results.items()})

    def two_hops(self):
        """walrus to cc to a node, 500 Mbit/s; the others hop by hop, as without a relay."""
        self.rate(HALF_GBIT)
        disk, hosts = self.disks["small"], self.hosts
        stored, single = 0, []

        def ours():
            nonlocal stored
            cloud = self.cloud()
            one, = self.publish(cloud, disk)
            stored = one["stored_bytes"]
            single.append(self.fill(cloud, ["nc2"], hosts["walrus"], 8001, 1, one["digest"]))
            cloud.serve_cc(hosts["cc"], hosts["walrus"], [hosts["nc1"]])
            taken = self.fill(cloud, ["nc1"], hosts["cc"], 8002, 1, one["digest"], disk)
            cloud.stop()
            return taken
        mine = self.median(ours)

        def hops(copier):
            def run():
                first = self.copy_keeping(copier, hosts["walrus"], disk, hosts["cc"])
                return first + self.copy(copier, hosts["cc"], self.file(hosts["cc"]), hosts["nc1"])
            return run
        _, _, results = self.best({"rsync -S": hops(others.rsync(["-S"])), "rsync -Sz": hops(others.rsync(["-Sz"])),
                                   "nbdcopy": hops(others.nbdcopy), "bsdtar": hops(others.bsdtar)})
        one_hop = statistics.median(single)
        self.row("two_hops", "s", mine, results["rsync -S"], "rsync -S hop by hop", stored * 8 / HALF_GBIT / 1e6,
                 f"{stored / 1e6:.0f} MB of frames at {HALF_GBIT} Mbit/s", one_hop=round(one_hop, 2), ratio_to_one_hop=round(mine / one_hop, 3),
                 others={key: value and round(value, 2) for key, value in results.items()})

    def copy_keeping(self, copier, source, source_file, target):
        path = self.file(target)
        if os.path.exists(path):
            os.unlink(path)
        return copier(source, source_file, target, path)

    def four_nodes(self):
        """walrus to cc to four nodes at once, 500 Mbit/s."""
        self.rate(HALF_GBIT)
        disk, hosts = self.disks["small"], self.hosts
        nodes = ["nc1", "nc2", "nc3", "nc4"]
        stored, sent = 0, []

        def ours():
            nonlocal stored
            cloud = self.cloud()
            one, = self.publish(cloud, disk)
            stored = one["stored_bytes"]
            cloud.serve_cc(hosts["cc"], hosts["walrus"], [hosts[node] for node in nodes])
            before = self.sent_bytes(hosts["cc"])
            taken = self.fill(cloud, nodes, hosts["cc"], 8002, 1, one["digest"], disk, peers=True)
            sent.append((self.sent_bytes(hosts["cc"]) - before) / stored)
            cloud.stop()
            return taken
        mine = self.median(ours)

        def star():
            copier = others.rsync(["-S"])
            taken = self.copy_keeping(copier, hosts["walrus"], disk, hosts["cc"])
            return taken + others.rsync_star(hosts["cc"], self.file(hosts["cc"]), [(hosts[node], self.file(hosts[node])) for node in nodes])
        _, peer, _ = self.best({"rsync -S star": star})
        self.row("four_nodes", "s", mine, peer, "rsync -S to cc, then to four at once", stored * 8 / HALF_GBIT / 1e6,
                 f"{stored / 1e6:.0f} MB of frames at {HALF_GBIT} Mbit/s", cc_sent_images=round(statistics.median(sent), 3))

    @staticmethod
    def sent_bytes(host):
        with open(f"/proc/{host.namespaces.pid}/net/dev", encoding="ascii") as file:
            for line in file:
                name, _, counts = line.partition(":")
                if name.strip() == "eth0":
                    return int(counts.split()[8])
        raise RuntimeError("no eth0")

    def update(self, mbit, name):
        """A node that has version 1 gets version 2. On the fixed link ours waits for the link, the others for their disks."""
        self.rate(mbit)
        old, new, hosts = self.disks["big"], self.disks["big2"], self.hosts
        wire = []

        def ours():
            cloud = self.cloud()
            one, two = self.publish(cloud, old, new)
            self.fill(cloud, ["nc1"], hosts["walrus"], 8001, 1, one["digest"])
            cloud.parts.pop().stop()
            before = self.sent_bytes(hosts["walrus"])
            taken = self.fill(cloud, ["nc1"], hosts["walrus"], 8001, 2, two["digest"])
            wire.append(self.sent_bytes(hosts["walrus"]) - before)
            cloud.stop()
            cloud.forget(hosts["nc1"]), cloud.forget(hosts["walrus"])
            return taken
        mine = self.median(ours)

        def rsync(flags):
            def run():
                path = self.copy_local(old, hosts["nc1"])
                taken = others.rsync(flags)(hosts["walrus"], new, hosts["nc1"], path)
                if not same_content(new, path):
                    raise RuntimeError("rsync did not update")
                return taken
            return run
        peer_name, peer, results = self.best({"rsync --inplace": rsync(["--inplace", "--no-whole-file"]),
                                              "rsync -S --inplace": rsync(["-S", "--inplace", "--no-whole-file"]),
                                              "rsync -S": rsync(["-S", "--no-whole-file"])})
        crossed = statistics.median(wire)
        limit, limit_name = (crossed * 8 / mbit / 1e6, "what crossed the link at its rate") if mbit else (None, None)
        self.row(name, "s", mine, peer, peer_name, limit, limit_name, wire_mib=round(crossed / MIB, 1),
                 others={key: value and round(value, 2) for key, value in results.items()})

    def copy_local(self, source, host):
        path = self.file(host)
        self.lab.hosts["walrus"].run(["cp", "--sparse=always", source, path], timeout_s=600)
        os.sync()
        return path

    def submit(self):
        """A node's changed disk becomes version 2: nc to cc to walrus, 1 Gbit/s."""
        self.rate(GBIT)
        old, overlay, hosts = self.disks["big"], self.disks["overlay"], self.hosts
        sent = []

        def ours():
            cloud = self.cloud()
            one, = self.publish(cloud, old)
            cloud.serve_cc(hosts["cc"], hosts["walrus"], [hosts["nc1"]])
            self.fill(cloud, ["nc1"], hosts["cc"], 8002, 1, one["digest"])
            cloud.parts.pop().stop()
            start = time.monotonic()
            report = cloud.submit(hosts["nc1"], hosts["cc"], 8002, 2, 1, overlay)
            taken = time.monotonic() - start
            sent.append(report["sent_bytes"])
            cloud.stop()
            cloud.forget(hosts["nc1"]), cloud.forget(hosts["walrus"]), cloud.forget(hosts["cc"])
            return taken
        mine = self.median(ours)

        def rsync():
            first, second = self.copy_local(old, hosts["cc"]), self.copy_local(old, hosts["nc2"])
            copier = others.rsync(["--inplace", "--no-whole-file"])
            taken = copier(hosts["nc1"], self.disks["big2"], hosts["cc"], first)
            return taken + copier(hosts["cc"], first, hosts["nc2"], second)
        _, peer, _ = self.best({"rsync --inplace hop by hop": rsync})
        self.row("submit", "s", mine, peer, "rsync --inplace hop by hop", statistics.median(sent) * 8 / GBIT / 1e6,
                 "frames sent at the link's rate", sent_mib=round(statistics.median(sent) / MIB, 1))

    def resume(self):
        """The node is killed at half; how long until it has all, from the second start. 1 Gbit/s."""
        self.rate(GBIT)
        disk, hosts = self.disks["big"], self.hosts
        again = []

        def ours():
            cloud = self.cloud()
            one, = self.publish(cloud, disk)
            before = self.sent_bytes(hosts["walrus"])
            part = cloud.node(hosts["nc1"], hosts["walrus"], 8001, 1, one["digest"])
            while self.sent_bytes(hosts["walrus"]) - before < one["stored_bytes"] / 2:
                time.sleep(0.02)
            part.kill()
            cloud.parts.remove(part)
            half = self.sent_bytes(hosts["walrus"])
            taken = self.fill(cloud, ["nc1"], hosts["walrus"], 8001, 1, one["digest"], disk)
            again.append((self.sent_bytes(hosts["walrus"]) - half) / one["stored_bytes"])
            cloud.stop()
            cloud.forget(hosts["nc1"]), cloud.forget(hosts["walrus"])
            limit.append(one["stored_bytes"] / 2 * 8 / GBIT / 1e6)
            return taken
        limit = []
        mine = self.median(ours)
        _, peer, _ = self.best({"rsync -S --inplace": lambda: others.rsync_resumed(
            hosts["walrus"], disk, hosts["nc1"], self.file(hosts["nc1"]), data_bytes(disk))})
        self.row("resume", "s", mine, peer, "rsync -S --inplace, killed at half", statistics.median(limit),
                 "half of the frames at the link's rate", fetched_again=round(statistics.median(again), 3))

    def ten_versions(self):
        """Ten versions, each about 3 % from the one before, on walrus' disk."""
        cloud, walrus = self.cloud(), self.hosts["walrus"]
        use = []
        for number, disk in enumerate(self.disks["series"](), 1):
            cloud.publish(walrus, number, disk)
            use.append(cloud.disk_use(walrus))
            whole = data_bytes(disk)
        growth = (use[-1] - use[0]) / (len(use) - 1)
        self.row("ten_versions", "MiB", use[-1] / MIB, whole * len(use) / MIB, "ten sparse files", use[0] / MIB, "the first version alone",
                 runs=1, per_version_mib=round(growth / MIB, 1))
        cloud.forget(walrus)

    def memory(self):
        """Largest resident memory of each of our processes in all rows before."""
        largest = {name: max(one["rss_mib"] for one in all_) for name, all_ in self.usage.items()}
        cpu = {name: round(statistics.median(one["cpu_s"] for one in all_), 2) for name, all_ in self.usage.items()}
        self.row("memory", "MiB", max(largest.values()), None, None, 200, "what we allow a process", runs=self.runs,
                 each_mib={name: round(value) for name, value in largest.items()}, cpu_s=cpu)
