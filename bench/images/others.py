"""How others carry a disk from host to host. Every function takes (source host, source file, target host, target file) and
returns the seconds it took; both files are on local disks, and synced to it when the time stops."""
import os
import socket
import subprocess
import threading
import time

from data import MIB, extents
from lab import CommandFailed

PORT = 8730


def finish(path, start):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    return time.monotonic() - start


def wait_port(host, address, port, deadline_s=30):
    def attempt():
        with socket.create_connection((address, port), timeout=1):
            return True
    end = time.monotonic() + deadline_s
    while True:
        try:
            return host.inside(attempt)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def rsync(flags, port=PORT):
    """A copier with rsync's own daemon at the source: no ssh in the way."""
    def copy(source, source_file, target, target_file):
        config = os.path.join(source.dir, f"rsyncd-{port}.conf")
        with open(config, "w", encoding="ascii") as out:
            out.write(f"uid = root\ngid = root\nuse chroot = no\n[disk]\npath = {os.path.dirname(source_file)}\n")
        server = source.popen(["rsync", "--daemon", "--no-detach", f"--config={config}", f"--port={port}",
                               f"--address={source.address}"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_port(target, source.address, port)
            start = time.monotonic()
            target.run(["rsync", *flags, f"rsync://{source.address}:{port}/disk/{os.path.basename(source_file)}", target_file],
                       timeout_s=3600)
            return finish(target_file, start)
        finally:
            server.terminate()
            server.wait(timeout=30)
    return copy


def nbdcopy(source, source_file, target, target_file):
    """nbdkit's file plugin and nbdcopy, the fastest general disk copier there is."""
    server = source.popen(["nbdkit", "-f", "-r", "-i", source.address, "-p", str(PORT), "file", f"file={source_file}"],
                          stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_port(target, source.address, PORT)
        if os.path.exists(target_file):
            os.unlink(target_file)
        with open(target_file, "wb") as out:
            out.truncate(os.path.getsize(source_file))
        start = time.monotonic()
        target.run(["nbdcopy", "--destination-is-zero", f"nbd://{source.address}:{PORT}", target_file], timeout_s=3600)
        return finish(target_file, start)
    finally:
        server.terminate()
        server.wait(timeout=30)


def _connection(source, target):
    """Two connected sockets, one on each host."""
    def listen():
        return socket.create_server((source.address, PORT))
    server = source.inside(listen)
    client = target.inside(lambda: socket.create_connection((source.address, PORT), timeout=30))
    given, _ = server.accept()
    server.close()
    client.settimeout(None)
    return given, client


def bsdtar(source, source_file, target, target_file):
    """libarchive's sparse tar, packed and unpacked at the two ends of a TCP connection."""
    given, taken = _connection(source, target)
    start = time.monotonic()
    folder = os.path.dirname(target_file)
    pack = source.popen(["bsdtar", "-cf", "-", "--read-sparse", "-C", os.path.dirname(source_file),
                         os.path.basename(source_file)], stdin=subprocess.DEVNULL, stdout=given)
    given.close()
    unpack = target.popen(["bsdtar", "-xSf", "-", "-C", folder], stdin=taken)
    taken.close()
    if pack.wait(timeout=3600) != 0 or unpack.wait(timeout=3600) != 0:
        raise RuntimeError("bsdtar failed")
    arrived = os.path.join(folder, os.path.basename(source_file))
    if arrived != target_file:
        os.rename(arrived, target_file)
    return finish(target_file, start)


def sendfile(source, source_file, target, target_file):
    """The data extents by sendfile(2), each with its place before it; nothing is compressed or checked."""
    given, taken = _connection(source, target)
    start = time.monotonic()

    def send():
        with open(source_file, "rb") as file, given:
            for offset, length in extents(source_file):
                given.sendall(offset.to_bytes(8, "little") + length.to_bytes(8, "little"))
                while length > 0:
                    sent = os.sendfile(given.fileno(), file.fileno(), offset, min(length, 4 * MIB))
                    offset, length = offset + sent, length - sent
    sender = threading.Thread(target=send)
    sender.start()
    buffer = memoryview(bytearray(MIB))
    with open(target_file, "wb") as out, taken:
        out.truncate(os.path.getsize(source_file))
        while True:
            head = taken.recv(16, socket.MSG_WAITALL)
            if not head:
                break
            at, length = int.from_bytes(head[:8], "little"), int.from_bytes(head[8:], "little")
            while length > 0:
                count = taken.recv_into(buffer[:min(length, MIB)])
                if count == 0:
                    raise RuntimeError("the connection was cut")
                os.pwrite(out.fileno(), buffer[:count], at)
                at, length = at + count, length - count
    sender.join()
    return finish(target_file, start)


def rsync_star(source, source_file, targets):
    """rsync -S from one host to several at once."""
    results = []

    def one(number, target, path):
        copier = rsync(["-S"], PORT + 1 + number)
        if os.path.exists(path):
            os.unlink(path)
        copier(source, source_file, target, path)
        results.append(path)
    start = time.monotonic()
    threads = [threading.Thread(target=one, args=(number, *target)) for number, target in enumerate(targets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(results) != len(targets):
        raise RuntimeError("rsync failed")
    return time.monotonic() - start


def rsync_resumed(source, source_file, target, target_file, data):
    """rsync -S --inplace killed when half of the data is there; seconds of the second run."""
    if os.path.exists(target_file):
        os.unlink(target_file)
    flags = ["-S", "--inplace", "--no-whole-file"]
    killed = threading.Event()

    def watch():
        while not killed.is_set():
            if os.path.exists(target_file) and os.stat(target_file).st_blocks * 512 > data / 2:
                for pid in os.listdir("/proc"):
                    try:
                        with open(f"/proc/{pid}/cmdline", "rb") as file:
                            words = file.read().split(b"\0")
                        if pid.isdigit() and words[0] == b"rsync" and target_file.encode() in words:
                            os.kill(int(pid), 9)
                            killed.set()
                    except OSError:
                        continue
            time.sleep(0.05)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        rsync(flags)(source, source_file, target, target_file)
        raise RuntimeError("rsync ended before half")
    except CommandFailed:
        pass
    finally:
        killed.set()
    return rsync(flags)(source, source_file, target, target_file)
