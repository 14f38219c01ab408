"""A RabbitMQ of its own on a host, by scripts/lib/broker."""
import os

from .hosts import REPOSITORY

SCRIPT = os.path.join(REPOSITORY, "scripts/lib/broker")


class Broker:
    """A RabbitMQ in `dir`. It listens on the host's address (or `bind`) only; epmd and distribution on loopback."""

    def __init__(self, host, directory, definitions, port, management_port, bind):
        self.host, self.dir, self.port, self.management_port = host, directory, port, management_port
        self.address = bind or host.address
        self.definitions = definitions
        self.log = os.path.join(directory, "log")
        host.watch_log(self.log)

    def start(self):
        """Starts it (again, with what its queues held) and waits until it answers."""
        words = [SCRIPT, "start", self.dir, "--bind", self.address, "--port", str(self.port), "--mgmt-port",
                 str(self.management_port)]
        if self.definitions:
            words += ["--definitions", self.definitions]
        self.host.run(words, timeout_s=150)
        return self

    def stop(self):
        self.host.run([SCRIPT, "stop", self.dir], timeout_s=90)

    def kill(self):
        """kill -9 of the server."""
        self.host.run(["bash", "-c", 'kill -KILL "$(cat "$0/pid")"', self.dir])

    def running(self):
        return self.host.run([SCRIPT, "status", self.dir], check=False).returncode == 0

    def ctl(self, *words):
        """Output of a rabbitmqctl command."""
        return self.host.run([SCRIPT, "ctl", self.dir, "--silent", *words]).stdout


def start_broker(host, directory=None, definitions=None, port=5672, management_port=15672, bind=None):
    """Starts a RabbitMQ on `host` in `directory` (default <host.dir>/broker); takes 7 s or so.

    `definitions`: path of a definitions file with users, queues, exchanges. CommandFailed if it does not get ready.
    """
    broker = Broker(host, directory or os.path.join(host.dir, "broker"), definitions, port, management_port, bind)
    return broker.start()
