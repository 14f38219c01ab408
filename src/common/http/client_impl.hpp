#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/core/flat_buffer.hpp>

#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "common/http/client.hpp"
#include "common/http/parser.hpp"
#include "common/http/transport.hpp"

namespace educloud::http {

/// One call of a client, while it runs.
struct ClientCall {
  const ClientRequest& request;
  std::stop_token stop;
  std::uint64_t upload_bytes = 0;
  const ReadData* read = nullptr;  ///< the body is streamed from here
  const OnHead* on_head = nullptr;
  const OnData* on_data = nullptr;  ///< the answer's body goes here if its status is below 300
  sys::Fd* near = nullptr;          ///< after an upgrade the connection is carried on to here

  ClientResponse response = {};
  std::optional<Error> error = {};
  bool cancelled = false;
  bool request_sent = false;  ///< completely
  bool answered = false;      ///< at least one byte came back
};

struct Client::Impl {
  using Parser = MessageParser<false>;

  Impl(Url base_url, ClientOptions client_options);
  Result<ClientResponse> execute(ClientCall call);

  net::awaitable<void> perform(ClientCall* call);
  net::awaitable<Result<>> connect(const ClientCall* call);
  net::awaitable<Result<>> exchange(ClientCall* call);
  net::awaitable<Result<>> send_request(ClientCall* call);
  net::awaitable<Result<>> send_upload(ClientCall* call);
  net::awaitable<Result<>> read_answer(ClientCall* call);
  /// One read and parse step. False: the answer is complete.
  net::awaitable<Result<bool>> read_step(ClientCall* call, Parser* parser);
  Result<> load_trust();
  Result<std::string> format_request(const ClientCall& call) const;
  /// True if the kept-alive connection can carry another request.
  bool is_reusable();

  Url base;
  ClientOptions options;
  net::io_context io{1};
  std::optional<net::ssl::context> tls;
  std::shared_ptr<Transport> transport;
  boost::beast::flat_buffer buffer;
};

/// Addresses of a host name, within `timeout`; getaddrinfo(3) itself can be neither cut short nor
/// cancelled, so it runs on a thread of its own that is left behind.
/// Errors: unavailable (no such name), timeout, cancelled.
Result<std::vector<net::ip::tcp::endpoint>> resolve(const std::string& host, int port,
                                                    std::chrono::milliseconds timeout,
                                                    const std::stop_token& stop);

}  // namespace educloud::http
