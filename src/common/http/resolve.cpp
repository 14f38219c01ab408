#include <netdb.h>
#include <sys/socket.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "common/http/client_impl.hpp"

namespace educloud::http {
namespace {

using net::ip::tcp;

struct Lookup {
  std::mutex mutex;
  std::condition_variable_any done_changed;
  bool done = false;
  int error = 0;
  std::vector<net::ip::address> addresses;
};

void look_up(const std::shared_ptr<Lookup>& lookup, const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &list);
  std::vector<net::ip::address> addresses;
  for (const addrinfo* item = error == 0 ? list : nullptr; item != nullptr; item = item->ai_next) {
    tcp::endpoint endpoint;
    if (item->ai_addrlen > endpoint.capacity()) continue;
    std::memcpy(endpoint.data(), item->ai_addr, item->ai_addrlen);
    endpoint.resize(item->ai_addrlen);
    addresses.push_back(endpoint.address());
  }
  if (list != nullptr) ::freeaddrinfo(list);
  std::lock_guard lock(lookup->mutex);
  lookup->error = error;
  lookup->addresses = std::move(addresses);
  lookup->done = true;
  lookup->done_changed.notify_all();
}

}  // namespace

Result<std::vector<tcp::endpoint>> resolve(const std::string& host, int port,
                                           std::chrono::milliseconds timeout, const std::stop_token& stop) {
  const auto number = static_cast<std::uint16_t>(port);
  error_code ec;
  const auto literal = net::ip::make_address(host, ec);
  if (!ec) return std::vector{tcp::endpoint(literal, number)};

  const auto lookup = std::make_shared<Lookup>();
  std::thread([lookup, host] { look_up(lookup, host); }).detach();
  std::unique_lock lock(lookup->mutex);
  lookup->done_changed.wait_for(lock, stop, timeout, [&lookup] { return lookup->done; });
  if (!lookup->done && stop.stop_requested()) return fail(ErrorCode::cancelled, "cancelled");
  if (!lookup->done) return fail(ErrorCode::timeout, "looking up " + host + " takes too long");
  if (lookup->error != 0) {
    return fail(ErrorCode::unavailable, "cannot look up " + host + ": " + ::gai_strerror(lookup->error));
  }
  std::vector<tcp::endpoint> endpoints;
  for (const auto& address : lookup->addresses) endpoints.emplace_back(address, number);
  if (endpoints.empty()) return fail(ErrorCode::unavailable, host + " has no address");
  return endpoints;
}

}  // namespace educloud::http
