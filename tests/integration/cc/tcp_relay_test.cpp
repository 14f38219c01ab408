#include "cc/relay/tcp_relay.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "common/sys/file.hpp"
#include "integration/bus/test_broker.hpp"

namespace educloud::cc {
namespace {

using namespace std::chrono_literals;

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

sys::Fd connected_to(int port) {
  sys::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval patience{10, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const auto address = loopback(port);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fd.close();
  return fd;
}

/// Reads until `size` bytes are there, or the other end closes.
std::string read_some(const sys::Fd& fd, std::size_t size) {
  std::string all(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const auto got = ::recv(fd.get(), all.data() + done, size - done, 0);
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
  }
  all.resize(done);
  return all;
}

/// Answers each connection with what it says, until that is closed.
class Echo {
 public:
  Echo() : port_(test::free_port()), server_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const auto address = loopback(port_);
    const int yes = 1;
    ::setsockopt(server_.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    EXPECT_EQ(::bind(server_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(server_.get(), 16), 0);
    thread_ = std::jthread([this] {
      for (;;) {
        sys::Fd one(::accept(server_.get(), nullptr, nullptr));
        if (!one.is_open()) return;
        others_.emplace_back([fd = std::move(one)] {
          std::string buffer(65536, '\0');
          for (ssize_t got = 0; (got = ::recv(fd.get(), buffer.data(), buffer.size(), 0)) > 0;) {
            if (!sys::write_all(fd.get(), std::string_view(buffer).substr(0, static_cast<std::size_t>(got))))
              return;
          }
        });
      }
    });
  }
  ~Echo() {
    ::shutdown(server_.get(), SHUT_RDWR);
    thread_.join();
  }
  int port() const { return port_; }

 private:
  const int port_;
  sys::Fd server_;
  std::vector<std::jthread> others_;
  std::jthread thread_;
};

TcpRelay::Options options_to(int port) {
  TcpRelay::Options options;
  options.listen = "127.0.0.1";
  options.host = "127.0.0.1";
  options.to_port = port;
  return options;
}

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + 30s;
  while (std::chrono::steady_clock::now() < deadline) {
    if (condition()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

TEST(TcpRelay, PassesBytesBothWaysUntilOneEndCloses) {
  Echo echo;
  TcpRelay relay(options_to(echo.port()));
  ASSERT_TRUE(relay.start());
  {
    auto first = connected_to(relay.port()), second = connected_to(relay.port());
    ASSERT_TRUE(first.is_open() && second.is_open());
    const std::string much(4 << 20, 'x');
    std::jthread writer([&] { EXPECT_TRUE(sys::write_all(first.get(), much)); });
    EXPECT_TRUE(sys::write_all(second.get(), "hello"));
    EXPECT_EQ(read_some(second, 5), "hello");
    EXPECT_EQ(read_some(first, much.size()), much);
    EXPECT_EQ(relay.connections(), 2u);
  }
  EXPECT_TRUE(eventually([&] { return relay.connections() == 0; }));
  relay.stop();
}

TEST(TcpRelay, ClosesWhatItCannotPassOn) {
  TcpRelay relay(options_to(test::free_port()));
  ASSERT_TRUE(relay.start());
  const auto refused = connected_to(relay.port());
  EXPECT_EQ(read_some(refused, 1), "");
  EXPECT_TRUE(eventually([&] { return relay.connections() == 0; }));
}

TEST(TcpRelay, TakesNoMoreThanItsBound) {
  Echo echo;
  auto options = options_to(echo.port());
  options.max_connections = 1;
  TcpRelay relay(options);
  ASSERT_TRUE(relay.start());
  auto first = connected_to(relay.port());
  EXPECT_TRUE(sys::write_all(first.get(), "a"));
  EXPECT_EQ(read_some(first, 1), "a");
  EXPECT_EQ(read_some(connected_to(relay.port()), 1), "");
  EXPECT_TRUE(sys::write_all(first.get(), "b"));
  EXPECT_EQ(read_some(first, 1), "b");
}

TEST(TcpRelay, SaysThatItsPortIsTaken) {
  Echo echo;
  auto options = options_to(echo.port());
  options.port = echo.port();
  EXPECT_EQ(TcpRelay(options).start().error().code, ErrorCode::conflict);
}

}  // namespace
}  // namespace educloud::cc
