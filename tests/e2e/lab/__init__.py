"""A laboratory of several hosts on one machine: network, process and mount namespaces, real libvirtd, real RabbitMQ.

    with Lab() as lab:
        nc1, nc2 = lab.host("nc1"), lab.host("nc2")          # 10.77.0.11, 10.77.0.12 on one switch
        libvirtd = start_libvirtd(nc1)                       # libvirtd.uri, libvirtd.socket
        broker = start_broker(lab.host("clc"), definitions="defs.json")
        nc = nc1.start(["/path/nc", "--config", "nc.conf"], "nc")     # a Process: pid, log, stop(), kill(), pause()
        status, body = nc2.http("GET", f"http://{nc1.address}:8080/")

Needs root and Python's standard library only. Nothing outlives the `with`: each host's processes live in a process
namespace that ends with its first process, which dies with the test run, whatever happened to it. Network namespaces
have no names, so any number of runs go on side by side. EDUCLOUD_KEEP=1 keeps the directory with all logs.
"""
from .broker import Broker, start_broker
from .hosts import Host, Lab, Process
from .libvirtd import Libvirtd, start_libvirtd
from .waiting import CommandFailed, LabError, LabTimeout, injected, tail, wait_until

__all__ = ["Broker", "CommandFailed", "Host", "Lab", "LabError", "LabTimeout", "Libvirtd", "Process", "injected",
           "start_broker", "start_libvirtd", "tail", "wait_until"]
