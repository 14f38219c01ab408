#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <thread>

#include "control/driver.hpp"

namespace educloud::bench {
namespace {

/// As little of an HTTP client as will do, so that on a machine with few cores the server is what is
/// measured.
class Connection {
 public:
  explicit Connection(const http::Url& url) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(url.port));
    ::inet_pton(AF_INET, url.host.c_str(), &address.sin_addr);
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connected_ = ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  ~Connection() { ::close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// Bytes of the answer's body; 0: it failed.
  std::size_t get(const std::string& request) {
    if (!connected_ || ::send(fd_, request.data(), request.size(), MSG_NOSIGNAL) < 0) return 0;
    std::size_t have = 0;
    while (true) {
      const ssize_t count = ::recv(fd_, buffer_.data() + have, buffer_.size() - have, 0);
      if (count <= 0) return 0;
      have += static_cast<std::size_t>(count);
      const std::string_view text(buffer_.data(), have);
      const auto end = text.find("\r\n\r\n");
      if (end == std::string_view::npos) continue;
      const auto length = body_length(text.substr(0, end));
      if (!text.starts_with("HTTP/1.1 200") || length == 0) return 0;
      return drain(end + 4 + length - have) ? length : 0;
    }
  }

 private:
  static std::size_t body_length(std::string_view head) {
    constexpr std::string_view kName = "Content-Length: ";
    const auto at = head.find(kName);
    std::size_t length = 0;
    if (at == std::string_view::npos) return 0;
    std::from_chars(head.data() + at + kName.size(), head.data() + head.size(), length);
    return length;
  }
  bool drain(std::size_t left) {
    while (left > 0) {
      const ssize_t count = ::recv(fd_, buffer_.data(), std::min(left, buffer_.size()), 0);
      if (count <= 0) return false;
      left -= static_cast<std::size_t>(count);
    }
    return true;
  }

  int fd_;
  bool connected_ = false;
  std::vector<char> buffer_ = std::vector<char>(1 << 20);
};

struct Tally {
  std::vector<double> took;
  std::size_t bytes = 0;
  bool failed = false;
};

void read_for(const Api& api, const Words& targets, std::size_t first, Instant until, Tally& tally) {
  Connection connection(api.url);
  std::vector<std::string> requests;
  for (const auto& target : targets) {
    requests.push_back("GET " + target + " HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer " + api.token +
                       "\r\n\r\n");
  }
  for (std::size_t i = first; !tally.failed; ++i) {
    const auto begun = std::chrono::steady_clock::now();
    if (begun >= until) return;
    const std::size_t bytes = connection.get(requests[i % requests.size()]);
    tally.failed = bytes == 0;
    tally.bytes += bytes;
    tally.took.push_back(seconds_between(begun, std::chrono::steady_clock::now()));
  }
}

}  // namespace

Result<> reads(const Api& api, const Words& words) {
  const double seconds = std::stod(words.at(0));
  const auto connections = static_cast<std::size_t>(std::stoi(words.at(1)));
  const Words targets(words.begin() + 2, words.end());
  std::vector<Tally> tallies(connections);
  const auto begun = std::chrono::steady_clock::now();
  const auto until = begun + std::chrono::milliseconds{static_cast<int>(seconds * 1000)};
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < connections; ++i) {
      threads.emplace_back([&, i] { read_for(api, targets, i * 37, until, tallies[i]); });
    }
  }
  const double taken = seconds_between(begun, std::chrono::steady_clock::now());
  std::vector<double> all;
  std::size_t bytes = 0;
  for (const auto& tally : tallies) {
    if (tally.failed) return fail(ErrorCode::unavailable, "a read failed");
    all.insert(all.end(), tally.took.begin(), tally.took.end());
    bytes += tally.bytes;
  }
  say({{"per_s", static_cast<double>(all.size()) / taken},
       {"p50_ms", percentile(all, 0.5) * 1000},
       {"p99_ms", percentile(all, 0.99) * 1000},
       {"bytes", all.empty() ? 0 : bytes / all.size()}});
  return {};
}

}  // namespace educloud::bench
