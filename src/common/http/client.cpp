#include "common/http/client.hpp"

#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>

#include <cerrno>
#include <exception>

#include "common/http/client_impl.hpp"

namespace educloud::http {
namespace {

/// A request's body up to here is sent with its head.
constexpr std::size_t kOnePiece = 256 * 1024;

/// RFC 9110, 9.2.2: sending these twice has the effect of once.
bool is_idempotent(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "PUT" || method == "DELETE" || method == "OPTIONS";
}

}  // namespace

Client::Impl::Impl(Url base_url, ClientOptions client_options)
    : base(std::move(base_url)), options(std::move(client_options)), buffer(256 * 1024) {}

Result<> Client::Impl::load_trust() {
  if (!base.tls || tls) return {};
  net::ssl::context context(net::ssl::context::tls_client);
  error_code ec;
  context.set_options(net::ssl::context::default_workarounds | net::ssl::context::no_sslv2 |
                          net::ssl::context::no_sslv3 | net::ssl::context::no_tlsv1 |
                          net::ssl::context::no_tlsv1_1,
                      ec);
  if (options.tls_ca_file.empty()) {
    context.set_default_verify_paths(ec);
  } else {
    context.load_verify_file(options.tls_ca_file, ec);
  }
  if (ec) {
    return fail(ErrorCode::invalid_argument,
                "cannot read the CA file " + options.tls_ca_file + ": " + ec.message());
  }
  tls.emplace(std::move(context));
  return {};
}

bool Client::Impl::is_reusable() {
  if (!transport || !transport->is_open() || buffer.size() > 0) return false;
  char byte = 0;
  const ssize_t got = ::recv(transport->socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  // Bytes nobody asked for are a good-bye (TLS close_notify) or nonsense; a new connection is safe for both.
  return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

net::awaitable<Result<>> Client::Impl::connect(const ClientCall* call) {
  if (auto trust = load_trust(); !trust) co_return trust;
  const auto begin = std::chrono::steady_clock::now();
  const std::string where = "connect to " + base.authority();
  auto endpoints = resolve(base.host, base.port, options.connect_timeout, call->stop);
  if (!endpoints) co_return fail(std::move(endpoints.error()), where);
  Error last{ErrorCode::unavailable, where + ": no address", {}};
  for (const auto& endpoint : *endpoints) {
    const auto spent =
        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
    const auto left = std::chrono::milliseconds(options.connect_timeout) - spent;
    if (call->cancelled || left.count() <= 0) break;
    net::ip::tcp::socket socket(io);
    transport = std::make_shared<Transport>(std::move(socket), tls ? &*tls : nullptr);
    // The deadline needs an open socket to act on.
    error_code opened;
    transport->socket().open(endpoint.protocol(), opened);
    transport->expires_after(left);
    IoResult io_result = co_await transport->connect(endpoint);
    if (!io_result.ec && base.tls) {
      std::string host = base.host;
      io_result = co_await transport->handshake_client(std::move(host));
    }
    if (!io_result.ec) {
      transport->expires_never();
      buffer.clear();
      co_return Result<>{};
    }
    transport->close();
    last = transport_error(where, io_result.ec);
  }
  co_return fail(std::move(last));
}

net::awaitable<void> Client::Impl::perform(ClientCall* call) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    const bool reused = is_reusable();
    if (!reused) {
      Result<> connected = co_await connect(call);
      if (!connected) {
        call->error = std::move(connected.error());
        co_return;
      }
    }
    Result<> done = co_await exchange(call);
    if (done) co_return;
    transport->close();
    const bool gone = done.error().code == ErrorCode::unavailable;
    const bool harmless =
        !call->request_sent || call->request.repeatable || is_idempotent(call->request.method);
    if (!gone || !reused || call->answered || call->read != nullptr || call->cancelled || !harmless) {
      call->error = std::move(done.error());
      co_return;
    }
    call->response = {};
    call->request_sent = false;
  }
  call->error =
      Error{ErrorCode::unavailable, "the connection to " + base.authority() + " was closed twice", {}};
}

Result<ClientResponse> Client::Impl::execute(ClientCall call) {
  if (call.stop.stop_requested()) return fail(ErrorCode::cancelled, "cancelled");
  bool done = false;
  std::exception_ptr failure;
  {
    const std::stop_callback on_stop(call.stop, [this, &call] {
      net::post(io, [this, &call] {
        call.cancelled = true;
        if (transport) transport->close();
      });
    });
    io.restart();
    net::co_spawn(io, perform(&call), [&done, &failure](std::exception_ptr thrown) {
      failure = std::move(thrown);
      done = true;
    });
    while (!done && io.run_one() > 0) {
    }
  }
  // What a late stop request has posted refers to this call.
  io.restart();
  io.poll();
  if (call.cancelled) {
    if (transport) transport->close();
    return fail(ErrorCode::cancelled, "cancelled");
  }
  if (failure || !done) {
    if (transport) transport->close();
    if (!failure) return fail(ErrorCode::internal, "the HTTP client stopped early");
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& e) {
      return fail(ErrorCode::internal, std::string("HTTP client: ") + e.what());
    } catch (...) {
      return fail(ErrorCode::internal, "HTTP client: a callback threw");
    }
  }
  if (call.error) return fail(std::move(*call.error));
  return std::move(call.response);
}

Client::Client(Url base, ClientOptions options)
    : impl_(std::make_unique<Impl>(std::move(base), std::move(options))) {}
Client::~Client() = default;
Client::Client(Client&&) noexcept = default;

Result<ClientResponse> Client::send(const ClientRequest& request, std::stop_token stop) {
  if (request.body.size() <= kOnePiece) {
    return impl_->execute(ClientCall{.request = request, .stop = std::move(stop)});
  }
  // In pieces, so that a server that refuses the body is heard before all of it is sent.
  const ReadData read = [&body = request.body, at = std::size_t{0}](std::span<char> out) mutable {
    const std::size_t count = body.copy(out.data(), out.size(), at);
    at += count;
    return Result<std::size_t>(count);
  };
  return impl_->execute(ClientCall{
      .request = request, .stop = std::move(stop), .upload_bytes = request.body.size(), .read = &read});
}

Result<ClientResponse> Client::download(const ClientRequest& request, const OnHead& on_head,
                                        const OnData& on_data, std::stop_token stop) {
  return impl_->execute(
      ClientCall{.request = request, .stop = std::move(stop), .on_head = &on_head, .on_data = &on_data});
}

Result<ClientResponse> Client::upload(const ClientRequest& request, std::uint64_t length,
                                      const ReadData& read, std::stop_token stop) {
  return impl_->execute(
      ClientCall{.request = request, .stop = std::move(stop), .upload_bytes = length, .read = &read});
}

Result<> Client::tunnel(ClientRequest request, std::string_view protocol, sys::Fd near,
                        std::stop_token stop) {
  request.headers["Connection"] = "Upgrade";
  request.headers["Upgrade"] = protocol;
  auto answer = impl_->execute(ClientCall{.request = request, .stop = std::move(stop), .near = &near});
  if (!answer) return fail(answer.error());
  if (answer->status == 101) return {};
  if (auto ok = answer->ok(); !ok) return ok;
  return fail(ErrorCode::unavailable, impl_->base.authority() + " does not upgrade the connection");
}

const Url& Client::base() const {
  return impl_->base;
}

}  // namespace educloud::http
