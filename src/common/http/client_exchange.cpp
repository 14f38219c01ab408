#include <boost/beast/http/error.hpp>

#include "common/http/client_impl.hpp"
#include "common/http/tunnel.hpp"

namespace educloud::http {
namespace {

constexpr std::size_t kUploadPiece = 256 * 1024;
constexpr std::size_t kReadBytes = 256 * 1024;

bool is_clean(std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) return false;
  }
  return true;
}

bool carries_body(std::string_view method) {
  return method == "POST" || method == "PUT" || method == "PATCH";
}

}  // namespace

Result<std::string> Client::Impl::format_request(const ClientCall& call) const {
  const ClientRequest& request = call.request;
  std::string target = base.path;
  if (target.ends_with('/') && request.target.starts_with('/')) target.pop_back();
  target += request.target;
  if (target.empty() || target.front() != '/') target.insert(0, "/");
  if (!is_clean(target) || target.find(' ') != std::string::npos || !is_clean(request.method)) {
    return fail(ErrorCode::invalid_argument, "the request target holds a blank or a control character");
  }
  std::string out = request.method + " " + target + " HTTP/1.1\r\nHost: " + base.authority() + "\r\n";
  for (const auto& [name, value] : request.headers) {
    if (!is_clean(name) || !is_clean(value)) {
      return fail(ErrorCode::invalid_argument, "the request header " + name + " holds a control character");
    }
    out += name + ": " + value + "\r\n";
  }
  const std::uint64_t length = call.read != nullptr ? call.upload_bytes : request.body.size();
  if (length > 0 || carries_body(request.method)) out += "Content-Length: " + std::to_string(length) + "\r\n";
  out += "\r\n";
  return out;
}

net::awaitable<Result<>> Client::Impl::exchange(ClientCall* call) {
  Result<> sent = co_await send_request(call);
  const bool broken = !sent;
  // A server that refuses an upload answers before it has read everything; the answer says why.
  if (broken && (call->read == nullptr || sent.error().code != ErrorCode::unavailable)) co_return sent;
  Result<> answer = co_await read_answer(call);
  if (broken && !answer && !call->answered) co_return sent;
  if (!call->request_sent) transport->close();
  if (answer && call->near != nullptr && call->response.status == 101) {
    // A peer that speaks first may have done so already.
    const auto early = buffer.cdata();
    std::string first(static_cast<const char*>(early.data()), early.size());
    buffer.clear();
    co_await carry(transport, call->near->release(), std::move(first));
  }
  co_return answer;
}

net::awaitable<Result<>> Client::Impl::send_request(ClientCall* call) {
  Result<std::string> head = format_request(*call);
  if (!head) co_return fail(std::move(head.error()));
  if (call->read == nullptr) *head += call->request.body;
  const net::const_buffer bytes = net::buffer(*head);
  const IoResult io_result = co_await transport->write_all(bytes, options.io_timeout);
  if (io_result.ec) co_return fail(transport_error("send to " + base.authority(), io_result.ec));
  if (call->read != nullptr) {
    Result<> uploaded = co_await send_upload(call);
    co_return uploaded;
  }
  call->request_sent = true;
  co_return Result<>{};
}

net::awaitable<Result<>> Client::Impl::send_upload(ClientCall* call) {
  const auto piece = std::make_unique<char[]>(kUploadPiece);
  std::uint64_t left = call->upload_bytes;
  while (left > 0) {
    error_code ec;
    const bool answer_waits = !transport->is_tls() && transport->socket().available(ec) > 0;
    if (answer_waits) co_return Result<>{};
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(left, kUploadPiece));
    Result<std::size_t> got = (*call->read)(std::span<char>(piece.get(), want));
    if (!got) co_return fail(std::move(got.error()));
    if (*got == 0 || *got > want)
      co_return fail(ErrorCode::invalid_argument, "the upload's source ended early");
    const net::const_buffer bytes(piece.get(), *got);
    const IoResult io_result = co_await transport->write_all(bytes, options.io_timeout);
    if (io_result.ec) co_return fail(transport_error("upload to " + base.authority(), io_result.ec));
    left -= *got;
  }
  call->request_sent = true;
  co_return Result<>{};
}

net::awaitable<Result<bool>> Client::Impl::read_step(ClientCall* call, Parser* parser) {
  const std::string where = "answer of " + base.authority();
  if (parser->is_done()) co_return Result<bool>(false);
  bool need_more = buffer.size() == 0;
  const bool in_head = !parser->is_header_done();
  // Of a chunked body one put() takes one chunk at most: all that is here goes through before the next read.
  while (!need_more && buffer.size() > 0 && !parser->is_done()) {
    error_code ec;
    const std::size_t used = parser->put(buffer.data(), ec);
    buffer.consume(used);
    need_more = ec == boost::beast::http::error::need_more;
    if (ec && !need_more) co_return fail(ErrorCode::corrupt, where + ": " + ec.message());
    if (need_more && buffer.size() > kMaxHeaderBytes) {
      co_return fail(ErrorCode::corrupt, where + ": the head of a chunk does not end");
    }
    if (in_head && parser->is_header_done()) break;
  }
  if (!need_more || parser->is_done()) co_return Result<bool>(!parser->is_done());

  const std::size_t room = std::min(kReadBytes, buffer.max_size() - buffer.size());
  if (room == 0) co_return fail(ErrorCode::corrupt, where + ": its header is too large");
  transport->expires_after(options.io_timeout);
  const net::mutable_buffer space = buffer.prepare(room);
  const IoResult io_result = co_await transport->read_some(space);
  transport->expires_never();
  buffer.commit(io_result.count);
  if (io_result.count > 0) call->answered = true;
  if (!io_result.ec) co_return Result<bool>(true);
  if (io_result.ec == net::error::eof && parser->is_header_done() && parser->need_eof()) {
    error_code ec;
    parser->put_eof(ec);
    if (!ec) co_return Result<bool>(false);
  }
  co_return fail(transport_error(where, io_result.ec));
}

net::awaitable<Result<>> Client::Impl::read_answer(ClientCall* call) {
  std::unique_ptr<Parser> parser;
  bool interim = true;
  while (interim) {
    parser = std::make_unique<Parser>();
    if (call->request.method == "HEAD") parser->skip(true);
    while (!parser->is_header_done()) {
      Result<bool> step = co_await read_step(call, parser.get());
      if (!step) co_return fail(std::move(step.error()));
    }
    interim = parser->status >= 100 && parser->status < 200 && parser->status != 101;
  }
  ClientResponse& response = call->response;
  response.status = parser->status;
  response.headers = std::move(parser->headers);
  const bool to_caller = call->on_data != nullptr && response.status < 300;
  if (to_caller && call->on_head != nullptr && *call->on_head) {
    if (auto accepted = (*call->on_head)(response); !accepted) {
      transport->close();
      co_return accepted;
    }
  }
  std::optional<Error> refused;
  const std::uint64_t limit = options.body_limit;
  parser->on_data = [call, &refused, to_caller, limit](std::string_view data) {
    if (to_caller) {
      auto taken = (*call->on_data)(std::span<const char>(data.data(), data.size()));
      if (!taken) refused = std::move(taken.error());
    } else if (call->response.body.size() + data.size() > limit) {
      refused =
          Error{ErrorCode::too_large, "the answer is larger than " + std::to_string(limit) + " bytes", {}};
    } else {
      call->response.body.append(data);
    }
    return !refused.has_value();
  };
  bool more = true;
  while (more) {
    Result<bool> step = co_await read_step(call, parser.get());
    if (refused) {
      transport->close();
      co_return fail(std::move(*refused));
    }
    if (!step) co_return fail(std::move(step.error()));
    more = *step;
  }
  const bool upgraded = response.status == 101;
  if (!upgraded && (!parser->keep_alive() || parser->need_eof() || !call->request_sent)) transport->close();
  co_return Result<>{};
}

}  // namespace educloud::http
