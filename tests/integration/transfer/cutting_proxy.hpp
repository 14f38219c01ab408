#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "common/sys/file.hpp"

namespace educloud::transfer {

/// Between a client and a server of the loopback: resets its first connections after so many bytes.
class CuttingProxy {
 public:
  /// Connection i is cut after `budgets[i]` bytes of both directions; later ones are left alone.
  CuttingProxy(int server_port, std::vector<std::uint64_t> budgets)
      : server_port_(server_port),
        budgets_(std::move(budgets)),
        listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    if (::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::listen(listener_.get(), 16) != 0 ||
        ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      std::abort();
    }
    port_ = ntohs(address.sin_port);
    acceptor_ = std::jthread([this](std::stop_token stop) { accept_all(stop); });
  }
  int port() const { return port_; }
  /// Connections that were cut so far.
  int cuts() const { return cuts_; }

 private:
  static sockaddr_in loopback(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    return address;
  }
  void accept_all(const std::stop_token& stop) {
    std::vector<std::jthread> connections;
    for (std::size_t number = 0; !stop.stop_requested();) {
      pollfd wait{listener_.get(), POLLIN, 0};
      if (::poll(&wait, 1, 50) <= 0) continue;
      sys::Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client.is_open()) continue;
      const std::uint64_t budget = number < budgets_.size() ? budgets_[number] : UINT64_MAX;
      ++number;
      connections.emplace_back([this, budget, fd = std::make_shared<sys::Fd>(std::move(client))](
                                   std::stop_token end) { pump(*fd, budget, end); });
    }
  }
  void pump(sys::Fd& client, std::uint64_t budget, const std::stop_token& stop) {
    sys::Fd server(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in address = loopback(server_port_);
    if (::connect(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return;
    std::vector<char> buffer(16 * 1024);
    while (!stop.stop_requested()) {
      pollfd both[2] = {{client.get(), POLLIN, 0}, {server.get(), POLLIN, 0}};
      if (::poll(both, 2, 50) <= 0) continue;
      for (int i : {0, 1}) {
        if (both[i].revents == 0) continue;
        const ssize_t got =
            ::recv(both[i].fd, buffer.data(), std::min<std::uint64_t>(buffer.size(), budget), 0);
        if (got <= 0) return;
        if (::send(both[1 - i].fd, buffer.data(), static_cast<std::size_t>(got), MSG_NOSIGNAL) != got) return;
        budget -= static_cast<std::uint64_t>(got);
        if (budget == 0) {
          const linger reset{1, 0};
          ::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
          ::setsockopt(server.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
          ++cuts_;
          return;
        }
      }
    }
  }

  const int server_port_;
  const std::vector<std::uint64_t> budgets_;
  sys::Fd listener_;
  int port_ = 0;
  std::atomic<int> cuts_ = 0;
  std::jthread acceptor_;
};

}  // namespace educloud::transfer
