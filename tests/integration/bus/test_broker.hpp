#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/bus/rabbit_bus.hpp"
#include "common/sys/process.hpp"
#include "support/paths.hpp"
#include "support/temp_dir.hpp"

namespace educloud::test {

/// Looks every few milliseconds until `done`, for at most `limit`.
template <class Condition>
bool wait_until(Condition done, std::chrono::milliseconds limit = std::chrono::seconds{30}) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (!done()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{10});
  }
  return true;
}

/// A port of 127.0.0.1 that was free a moment ago; below the kernel's ephemeral range, so that no
/// outgoing connection takes it while a broker restarts.
inline int free_port() {
  static std::minstd_rand random{std::random_device{}()};
  std::uniform_int_distribution<int> ports(12'000, 19'999);
  for (int tried = 0; tried < 200; ++tried) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int port = ports(random);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    const bool is_free = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    ::close(fd);
    if (is_free) return port;
  }
  std::abort();
}

/// A real RabbitMQ of this test program's own. Takes about ten seconds to start, so there is one per program.
class TestBroker {
 public:
  /// `definitions` in RabbitMQ's format, without users: they are made from `users`, each with the
  /// password `<name>-password` and its permission entry. `config`: further lines of rabbitmq.conf.
  struct User {
    std::string name, write, read;
  };
  TestBroker(nlohmann::json definitions, const std::vector<User>& users, const std::string& config = "") {
    for (const auto& user : users) {
      definitions["users"].push_back(
          {{"name", user.name}, {"password", user.name + "-password"}, {"tags", ""}});
      definitions["permissions"].push_back({{"user", user.name},
                                            {"vhost", "/"},
                                            {"configure", "^$"},
                                            {"write", user.write},
                                            {"read", user.read}});
      write(user.name + ".secret", user.name + "-password\n", 0600);
    }
    if (!definitions.contains("vhosts")) definitions["vhosts"] = nlohmann::json::array({{{"name", "/"}}});
    write("definitions.json", definitions.dump(2), 0644);
    write("extra.conf", config, 0644);
    port_ = free_port();
    start();
  }
  ~TestBroker() { run({script(), "stop", data()}); }

  void start() {
    run({script(), "start", data(), "--port", std::to_string(port_), "--definitions",
         file("definitions.json"), "--config", file("extra.conf")});
  }
  /// kill -9 of the server.
  void kill() {
    const pid_t server = pid();
    ::kill(server, SIGKILL);
    wait_until([server] { return ::kill(server, 0) != 0; });
  }
  void signal(int number) { ::kill(pid(), number); }
  pid_t pid() const {
    pid_t pid = 0;
    std::ifstream(data() + "/pid") >> pid;
    if (pid <= 1) std::abort();  // kill(0) and kill(-1) would reach others
    return pid;
  }
  /// rabbitmqctl. Returns stdout.
  std::string ctl(std::vector<std::string> args) {
    std::vector<std::string> argv{script(), "ctl", data(), "--silent"};
    argv.insert(argv.end(), args.begin(), args.end());
    return run(std::move(argv));
  }
  int port() const { return port_; }
  bus::RabbitOptions options(const std::string& user) const {
    bus::RabbitOptions options;
    options.port = port_;
    options.user = user;
    options.password_file = file(user + ".secret");
    options.connection_name = user;
    options.requeue_delay = std::chrono::milliseconds{50};
    return options;
  }
  std::string file(const std::string& name) const { return (dir_.path() / name).string(); }
  void write(const std::string& name, const std::string& content, mode_t mode) {
    std::ofstream(file(name)) << content;
    ::chmod(file(name).c_str(), mode);
  }
  static std::string run(std::vector<std::string> argv) {
    sys::ProcessOptions process;
    process.argv = std::move(argv);
    process.timeout = std::chrono::seconds{150};
    auto out = sys::run_checked(process);
    if (!out) ADD_FAILURE() << out.error().message;
    return out.value_or("");
  }

 private:
  static std::string script() { return test::source_dir() / "scripts/lib/broker"; }
  std::string data() const { return file("broker"); }

  educloud::testing::TempDir dir_;
  int port_ = 0;
};

}  // namespace educloud::test
