#!/usr/bin/python3
"""A proxy before RabbitMQ that publishes again, late and in another order, what its clients published.

    replay_proxy.py ADDRESS PORT BROKER_PORT COUNTS

Listens on ADDRESS:PORT, passes on to ADDRESS:BROKER_PORT. Of the messages about a third are sent after the one that follows them, and
about as often an earlier one of the last 40 of the connection is sent once more: by the same login, so nothing can tell it from a defect
of the sender. Confirms of what the client did not send are kept from it. COUNTS holds "<replayed> <reordered>" so far.
"""
import os
import random
import select
import socket
import struct
import sys
import threading

METHOD, HEADER, BODY = 1, 2, 3
PUBLISH, ACK, NACK = (60, 40), (60, 80), (60, 120)
KEPT, CHANCE, HELD_S = 40, 0.33, 0.2


class Counts:
    def __init__(self, path):
        self._path, self._lock = path, threading.Lock()
        self.replayed = self.reordered = 0

    def add(self, replayed=0, reordered=0):
        with self._lock:
            self.replayed += replayed
            self.reordered += reordered
            with open(self._path + ".new", "w", encoding="ascii") as file:
                file.write(f"{self.replayed} {self.reordered}")
            os.rename(self._path + ".new", self._path)


class Frames:
    """Cuts a stream into AMQP frames: (type, channel, whole frame)."""

    def __init__(self):
        self._data = b""

    def feed(self, data):
        self._data += data
        while len(self._data) >= 7:
            kind, channel, size = struct.unpack_from(">BHI", self._data)
            if len(self._data) < size + 8:
                return
            yield kind, channel, self._data[:size + 8]
            self._data = self._data[size + 8:]


class Connection:
    def __init__(self, client, broker, counts):
        self.client, self.broker, self.counts = client, broker, counts
        self.lock = threading.Lock()
        self.tags = {}          # the broker's delivery tag -> the client's; None: a replay
        self.sent = self.published = 0
        self.history, self.held, self.partial = [], [], None

    def run(self):
        threads = [threading.Thread(target=self._guarded, args=(one,), daemon=True) for one in (self._to_broker, self._to_client)]
        for thread in threads:
            thread.start()

    def _guarded(self, body):
        try:
            body()
        except OSError:
            pass
        for one in (self.client, self.broker):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    # -- what the client says -----------------------------------------------------------------------------------------

    def _to_broker(self):
        frames = Frames()
        greeting = b""
        while len(greeting) < 8:
            data = self.client.recv(8 - len(greeting))
            if not data:
                return
            greeting += data
        self.broker.sendall(greeting)
        while True:
            if not select.select([self.client], [], [], HELD_S if self.held else None)[0]:
                self._release()
                continue
            data = self.client.recv(65536)
            if not data:
                return
            for kind, channel, frame in frames.feed(data):
                self._on_frame(kind, frame)

    def _on_frame(self, kind, frame):
        if kind == METHOD and struct.unpack_from(">HH", frame, 7) == PUBLISH:
            self.partial = [frame, None]
        elif kind == HEADER and self.partial is not None:
            self.partial[0] += frame
            self.partial[1] = struct.unpack_from(">Q", frame, 11)[0]
        elif kind == BODY and self.partial is not None:
            self.partial[0] += frame
            self.partial[1] -= len(frame) - 8
        else:
            self.broker.sendall(frame)
            return
        if self.partial[1] == 0:
            message, self.partial = self.partial[0], None
            self.published += 1
            self._on_message(message, self.published)

    def _on_message(self, message, tag):
        if random.random() < CHANCE:
            self.held.append((message, tag))
            self.counts.add(reordered=1)
            return
        self._send(message, tag)
        self._release()
        if self.history and random.random() < CHANCE:
            self._send(random.choice(self.history), None)
            self.counts.add(replayed=1)
        self.history = (self.history + [message])[-KEPT:]

    def _release(self):
        for message, tag in self.held:
            self._send(message, tag)
        self.held = []

    def _send(self, message, tag):
        with self.lock:
            self.sent += 1
            self.tags[self.sent] = tag
        self.broker.sendall(message)

    # -- what the broker says -----------------------------------------------------------------------------------------

    def _to_client(self):
        frames = Frames()
        while True:
            data = self.broker.recv(65536)
            if not data:
                return
            out = b"".join(self._translated(kind, channel, frame) for kind, channel, frame in frames.feed(data))
            if out:
                self.client.sendall(out)

    def _translated(self, kind, channel, frame):
        if kind != METHOD or struct.unpack_from(">HH", frame, 7) not in (ACK, NACK):
            return frame
        tag, bits = struct.unpack_from(">QB", frame, 11)
        with self.lock:
            settled = sorted(one for one in self.tags if one == tag or (bits & 1 and one <= tag))
            ours = [own for own in (self.tags.pop(one) for one in settled) if own is not None]
        return b"".join(struct.pack(">BHI", METHOD, channel, 13) + frame[7:11] + struct.pack(">QBB", own, 0, 0xCE) for own in ours)


def main():
    address, port, broker_port, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    counts = Counts(path)
    counts.add()
    with socket.create_server((address, port)) as server:
        while True:
            client, _ = server.accept()
            try:
                broker = socket.create_connection((address, broker_port), timeout=10)
            except OSError:
                client.close()
                continue
            broker.settimeout(None)
            for one in (client, broker):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Connection(client, broker, counts).run()


if __name__ == "__main__":
    main()
