#include "common/http/server.hpp"

#include <signal.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "common/http/session.hpp"
#include "common/obs/log.hpp"

namespace educloud::http {
namespace {

using net::ip::tcp;

/// Connections past the limit that still get a 503; beyond, they are closed without a word.
constexpr std::size_t kRefusedConnections = 64;
constexpr std::chrono::milliseconds kAcceptPause{100};

std::string describe(std::exception_ptr failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "not a std::exception";
  }
}

net::awaitable<void> run_session(std::shared_ptr<Session> session) {
  co_await session->run();
}

}  // namespace

struct Server::Impl {
  Impl(ServerOptions options, Router router) : core{std::move(options), std::move(router), std::nullopt} {}

  Result<> load_certificate();
  Result<> listen();
  void run_thread();
  net::awaitable<void> accept_loop();
  void admit(tcp::socket socket);

  ServerCore core;
  net::io_context io;
  tcp::acceptor acceptor{net::make_strand(io)};
  std::optional<net::executor_work_guard<net::io_context::executor_type>> work;
  std::vector<std::thread> threads;
  int port = 0;

  std::mutex stop_mutex;  ///< serialises start and stop
  std::mutex mutex;       ///< what follows
  std::condition_variable ended;
  std::unordered_map<Session*, std::weak_ptr<Session>> sessions;
  bool stopping = false;
};

Result<> Server::Impl::load_certificate() {
  const ServerOptions& options = core.options;
  if (options.tls_certificate_file.empty() && options.tls_key_file.empty()) return {};
  if (options.tls_certificate_file.empty() || options.tls_key_file.empty()) {
    return fail(ErrorCode::invalid_argument, "TLS needs both a certificate file and a key file");
  }
  core.tls.emplace(net::ssl::context::tls_server);
  error_code ec;
  core.tls->set_options(net::ssl::context::default_workarounds | net::ssl::context::no_sslv2 |
                            net::ssl::context::no_sslv3 | net::ssl::context::no_tlsv1 |
                            net::ssl::context::no_tlsv1_1 | net::ssl::context::no_compression,
                        ec);
  if (!ec) core.tls->use_certificate_chain_file(options.tls_certificate_file, ec);
  if (ec) {
    return fail(ErrorCode::invalid_argument,
                "cannot read the TLS certificate " + options.tls_certificate_file + ": " + ec.message());
  }
  core.tls->use_private_key_file(options.tls_key_file, net::ssl::context::pem, ec);
  if (ec) {
    return fail(ErrorCode::invalid_argument,
                "cannot read the TLS key " + options.tls_key_file + ": " + ec.message());
  }
  return {};
}

Result<> Server::Impl::listen() {
  const std::string where = core.options.address + ":" + std::to_string(core.options.port);
  error_code ec;
  const auto address = net::ip::make_address(core.options.address, ec);
  if (ec || core.options.port < 0 || core.options.port > 65535) {
    return fail(ErrorCode::invalid_argument, "'" + where + "' is no address to listen on");
  }
  const tcp::endpoint endpoint(address, static_cast<std::uint16_t>(core.options.port));
  acceptor.open(endpoint.protocol(), ec);
  if (!ec) acceptor.set_option(net::socket_base::reuse_address(true), ec);
  if (!ec) acceptor.bind(endpoint, ec);
  if (!ec) acceptor.listen(net::socket_base::max_listen_connections, ec);
  if (ec) {
    error_code ignored;
    acceptor.close(ignored);
    return fail(ErrorCode::unavailable, "cannot listen on " + where + ": " + ec.message());
  }
  port = acceptor.local_endpoint().port();
  return {};
}

void Server::Impl::run_thread() {
  // sendfile(2) has no MSG_NOSIGNAL: a peer that went away must be an error, not the end of the process.
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
  while (true) {
    try {
      io.run();
      return;
    } catch (...) {
      obs::error("http.thread_failed", {{"what", describe(std::current_exception())}});
    }
  }
}

net::awaitable<void> Server::Impl::accept_loop() {
  error_code ec;
  auto token = net::redirect_error(net::use_awaitable, ec);
  net::steady_timer pause(acceptor.get_executor());
  while (acceptor.is_open()) {
    tcp::socket socket(net::make_strand(io));
    co_await acceptor.async_accept(socket, token);
    if (!acceptor.is_open()) break;
    if (ec) {
      // Out of file descriptors, or a peer that was gone before we looked.
      obs::warn("http.accept_failed", {{"error", ec.message()}});
      pause.expires_after(kAcceptPause);
      co_await pause.async_wait(token);
      continue;
    }
    admit(std::move(socket));
  }
}

void Server::Impl::admit(tcp::socket socket) {
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  std::shared_ptr<Session> session;
  auto executor = socket.get_executor();
  {
    std::lock_guard lock(mutex);
    const auto limit = static_cast<std::size_t>(std::max(core.options.max_connections, 1));
    if (stopping || sessions.size() >= limit + kRefusedConnections) return;
    const bool refuse = sessions.size() >= limit;
    auto transport = std::make_shared<Transport>(std::move(socket), core.tls ? &*core.tls : nullptr);
    session = std::make_shared<Session>(std::move(transport), core, refuse);
    sessions.emplace(session.get(), session);
  }
  auto on_end = [this, session](std::exception_ptr failure) {
    if (failure) obs::error("http.connection_failed", {{"what", describe(failure)}});
    std::lock_guard lock(mutex);
    sessions.erase(session.get());
    ended.notify_all();
  };
  net::co_spawn(executor, run_session(session), std::move(on_end));
}

Server::Server(ServerOptions options, Router router)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(router))) {}

Server::~Server() {
  stop();
}

Result<> Server::start() {
  std::lock_guard lock(impl_->stop_mutex);
  if (impl_->work || impl_->stopping) return fail(ErrorCode::conflict, "the HTTP server was started before");
  if (auto loaded = impl_->load_certificate(); !loaded) return loaded;
  if (auto listening = impl_->listen(); !listening) return listening;
  impl_->work.emplace(net::make_work_guard(impl_->io));
  Impl* impl = impl_.get();
  auto on_end = [](std::exception_ptr failure) {
    if (failure) obs::error("http.accept_ended", {{"what", describe(failure)}});
  };
  net::co_spawn(impl->acceptor.get_executor(), impl->accept_loop(), std::move(on_end));
  for (int i = 0; i < std::max(impl->core.options.threads, 1); ++i) {
    impl->threads.emplace_back([impl] { impl->run_thread(); });
  }
  return {};
}

void Server::stop(std::chrono::seconds grace) {
  std::lock_guard stop_lock(impl_->stop_mutex);
  if (impl_->threads.empty()) return;
  net::post(impl_->acceptor.get_executor(), [impl = impl_.get()] {
    error_code ignored;
    impl->acceptor.close(ignored);
  });
  std::unique_lock lock(impl_->mutex);
  impl_->stopping = true;
  for (const auto& [key, weak] : impl_->sessions) {
    if (const auto session = weak.lock()) session->drain();
  }
  impl_->ended.wait_for(lock, grace, [this] { return impl_->sessions.empty(); });
  for (const auto& [key, weak] : impl_->sessions) {
    if (const auto session = weak.lock()) session->abort();
  }
  lock.unlock();
  // Every socket is closed now, so every coroutine ends and run() returns.
  impl_->work.reset();
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->threads.clear();
}

int Server::port() const {
  return impl_->port;
}

}  // namespace educloud::http
