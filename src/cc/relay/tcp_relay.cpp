#include "cc/relay/tcp_relay.hpp"

#include <netinet/tcp.h>

#include <array>
#include <atomic>
#include <thread>

#include <boost/asio.hpp>

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::cc {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::chrono::seconds kConnectDeadline{10};
constexpr std::chrono::milliseconds kAcceptPause{200};
/// A peer that does not acknowledge for so long is gone.
constexpr int kSilenceMs = 30'000;

void watch_peer(tcp::socket& socket) {
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  (void)::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &kSilenceMs, sizeof kSilenceMs);
  constexpr int kIdleSeconds = 15, kEverySeconds = 5;
  (void)::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_KEEPIDLE, &kIdleSeconds, sizeof kIdleSeconds);
  (void)::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_KEEPINTVL, &kEverySeconds,
                     sizeof kEverySeconds);
}

/// One connection and where it goes; lives as long as an operation of it is pending. The first end that
/// closes or fails ends both.
class Pair : public std::enable_shared_from_this<Pair> {
 public:
  Pair(tcp::socket client, std::atomic<std::size_t>& count)
      : client_(std::move(client)),
        server_(client_.get_executor()),
        deadline_(client_.get_executor()),
        count_(count) {
    ++count_;
  }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;
  ~Pair() { --count_; }

  void begin(const tcp::endpoint& to) {
    auto self = shared_from_this();
    deadline_.expires_after(kConnectDeadline);
    deadline_.async_wait([self](error_code error) {
      if (!error) self->close();
    });
    server_.async_connect(to, [self](error_code error) {
      self->deadline_.cancel();
      if (error) return self->close();
      watch_peer(self->client_);
      watch_peer(self->server_);
      self->pass(self->client_, self->server_, self->up_);
      self->pass(self->server_, self->client_, self->down_);
    });
  }

 private:
  using Buffer = std::array<char, 32 * 1024>;

  void pass(tcp::socket& from, tcp::socket& to, Buffer& buffer) {
    auto self = shared_from_this();
    from.async_read_some(asio::buffer(buffer),
                         [self, &from, &to, &buffer](error_code error, std::size_t size) {
                           if (error) return self->close();
                           asio::async_write(to, asio::buffer(buffer, size),
                                             [self, &from, &to, &buffer](error_code failed, std::size_t) {
                                               if (failed) return self->close();
                                               self->pass(from, to, buffer);
                                             });
                         });
  }

  void close() {
    error_code ignored;
    client_.close(ignored);
    server_.close(ignored);
  }

  tcp::socket client_, server_;
  asio::steady_timer deadline_;
  std::atomic<std::size_t>& count_;
  Buffer up_{}, down_{};
};

}  // namespace

struct TcpRelay::Impl {
  explicit Impl(Options o) : options(std::move(o)) {}

  void accept() {
    acceptor.async_accept([this](error_code error, tcp::socket client) {
      if (error == asio::error::operation_aborted) return;
      if (error) {
        // No descriptors left: asked again at once it would only fail again.
        obs::warn("relay.not_accepted", {{"why", error.message()}});
        pause.expires_after(kAcceptPause);
        pause.async_wait([this](error_code stopped) {
          if (!stopped) accept();
        });
        return;
      }
      if (count < options.max_connections) std::make_shared<Pair>(std::move(client), count)->begin(to);
      obs::metrics().gauge("educloud_cc_folder_connections_number", "Nodes' connections to walrus' folders",
                           static_cast<double>(count));
      accept();
    });
  }

  const Options options;
  std::atomic<std::size_t> count{0};  // before the context, whose handlers hold the pairs
  asio::io_context context{1};
  tcp::acceptor acceptor{context};
  asio::steady_timer pause{context};
  tcp::endpoint to;
  int port = 0;
  std::jthread thread;
};

TcpRelay::TcpRelay(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}

TcpRelay::~TcpRelay() {
  stop();
}

Result<> TcpRelay::start() {
  const auto& options = impl_->options;
  error_code error;
  const auto from = asio::ip::make_address(options.listen.empty() ? "0.0.0.0" : options.listen, error);
  if (error) return fail(ErrorCode::invalid_argument, "listen " + options.listen + ": " + error.message());
  tcp::resolver resolver(impl_->context);
  const auto found = resolver.resolve(options.host, std::to_string(options.to_port), error);
  if (error || found.empty()) return fail(ErrorCode::unavailable, options.host + ": " + error.message());
  impl_->to = *found.begin();
  const tcp::endpoint here(from, static_cast<std::uint16_t>(options.port));
  impl_->acceptor.open(here.protocol(), error);
  if (!error) impl_->acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) impl_->acceptor.bind(here, error);
  if (!error) impl_->acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return fail(ErrorCode::conflict, "folders.port " + std::to_string(options.port) + ": " + error.message(),
                "folders.port");
  }
  impl_->port = impl_->acceptor.local_endpoint().port();
  impl_->accept();
  impl_->thread = std::jthread([this] { impl_->context.run(); });
  return {};
}

void TcpRelay::stop() {
  impl_->context.stop();
  if (impl_->thread.joinable()) impl_->thread.join();
}

int TcpRelay::port() const {
  return impl_->port;
}

std::size_t TcpRelay::connections() const {
  return impl_->count;
}

}  // namespace educloud::cc
