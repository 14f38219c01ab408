#pragma once

#include <boost/beast/http/basic_parser.hpp>

#include <functional>
#include <string>

#include "common/http/message.hpp"

namespace educloud::http {

inline constexpr std::uint32_t kMaxHeaderBytes = 16 * 1024;
inline constexpr std::size_t kMaxHeaderFields = 100;

/// Beast's HTTP/1.1 parser, collecting the head into our types and handing body bytes on without copying.
template <bool IsRequest>
class MessageParser : public boost::beast::http::basic_parser<IsRequest> {
  using string_view = boost::beast::string_view;
  using error_code = boost::beast::error_code;
  using field = boost::beast::http::field;

 public:
  MessageParser() {
    this->header_limit(kMaxHeaderBytes);
    this->body_limit(boost::none);  // the caller counts: the limit depends on the route
  }

  std::string method;
  std::string target;
  int status = 0;
  int version = 11;
  Headers headers;
  bool duplicate_header = false;  ///< a second Host, Content-Type, Authorization, ...
  bool too_many_headers = false;
  /// Receives body bytes; false stops the parser with `operation_canceled`.
  std::function<bool(std::string_view)> on_data;

 private:
  void on_request_impl(boost::beast::http::verb, string_view method_text, string_view target_text,
                       int version_number, error_code&) override {
    method.assign(method_text.data(), method_text.size());
    target.assign(target_text.data(), target_text.size());
    version = version_number;
  }

  void on_response_impl(int code, string_view, int version_number, error_code&) override {
    status = code;
    version = version_number;
  }

  void on_field_impl(field name, string_view name_text, string_view value, error_code&) override {
    if (this->is_header_done()) return;  // trailers are read and forgotten
    if (headers.size() >= kMaxHeaderFields) {
      too_many_headers = true;
      return;
    }
    const auto [it, inserted] =
        headers.try_emplace(std::string(name_text.data(), name_text.size()), value.data(), value.size());
    if (inserted) return;
    if (name == field::host || name == field::content_type || name == field::authorization ||
        name == field::expect || name == field::transfer_encoding || name == field::content_length ||
        name == field::range) {
      duplicate_header = true;
      return;
    }
    // RFC 9110, 5.3: a repeated field is one list.
    it->second.append(", ").append(value.data(), value.size());
  }

  void on_header_impl(error_code&) override {}
  void on_body_init_impl(boost::optional<std::uint64_t> const&, error_code&) override {}

  std::size_t on_body_impl(string_view body, error_code& ec) override {
    if (on_data && !on_data(std::string_view(body.data(), body.size()))) {
      ec = boost::system::errc::make_error_code(boost::system::errc::operation_canceled);
    }
    return body.size();
  }

  void on_chunk_header_impl(std::uint64_t, string_view, error_code&) override {}

  std::size_t on_chunk_body_impl(std::uint64_t, string_view body, error_code& ec) override {
    return on_body_impl(body, ec);
  }

  void on_finish_impl(error_code&) override {}
};

}  // namespace educloud::http
