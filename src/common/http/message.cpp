#include "common/http/message.hpp"

#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "common/base/limits.hpp"
#include "common/http/range.hpp"

namespace educloud::http {
namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

/// True if brackets outside of strings nest deeper than the limit. Checked on the text, before any parser
/// sees it.
bool too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if ((c == '{' || c == '[') && ++depth > limits::kJsonDepth) return true;
    if (c == '}' || c == ']') --depth;
  }
  return false;
}

}  // namespace

bool HeaderLess::operator()(std::string_view a, std::string_view b) const {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                      [](char x, char y) { return lower(x) < lower(y); });
}

std::string_view Request::header(std::string_view name) const {
  const auto it = headers.find(name);
  return it == headers.end() ? std::string_view{} : std::string_view{it->second};
}

const std::string& Request::param(std::string_view name) const {
  const auto it = params.find(std::string(name));
  if (it == params.end()) throw std::logic_error("the route has no {" + std::string(name) + "}");
  return it->second;
}

Result<nlohmann::json> Request::json() const {
  if (body.size() > limits::kJsonBodyBytes) return fail(ErrorCode::too_large, "the JSON body is too large");
  if (too_deep(body)) return fail(ErrorCode::invalid_argument, "the JSON body is nested too deeply");
  auto parsed = nlohmann::json::parse(body, nullptr, false);
  if (parsed.is_discarded()) return fail(ErrorCode::invalid_argument, "the body is not valid JSON");
  if (!parsed.is_object()) return fail(ErrorCode::invalid_argument, "the body must be a JSON object");
  return parsed;
}

Response json_response(const nlohmann::json& json, int status) {
  Response response;
  response.status = status;
  response.headers["Content-Type"] = "application/json";
  // Names from disk or from a guest may be no UTF-8; they must not turn an answer into an exception.
  response.body = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return response;
}

Response error_response(const Error& error) {
  nlohmann::json inner = {{"code", to_string(error.code)}, {"message", error.message}};
  if (!error.key.empty()) inner["key"] = error.key;
  return json_response({{"error", std::move(inner)}}, http_status(error.code));
}

Response upgrade_response(const Request& request, std::string_view protocol, sys::Fd peer) {
  Response response;
  response.headers["Connection"] = "Upgrade";
  response.headers["Upgrade"] = protocol;
  if (request.header("Upgrade") == protocol) {
    response.status = 101;
    response.body = Upgrade{std::make_shared<sys::Fd>(std::move(peer))};
    return response;
  }
  response.status = 426;
  response.body = "this is for connections that become " + std::string(protocol) + "\n";
  return response;
}

RangeHead range_head(const Request& request, std::uint64_t size, std::string_view etag,
                     std::string_view content_type) {
  RangeHead out;
  Response& response = out.response;
  const std::string quoted = "\"" + std::string(etag) + "\"";
  response.headers["Accept-Ranges"] = "bytes";
  if (!etag.empty()) response.headers["ETag"] = quoted;

  const std::string_view if_none_match = request.header("If-None-Match");
  if (!if_none_match.empty() && !etag.empty() && etag_matches(if_none_match, etag)) {
    response.status = 304;
    return out;
  }
  Range range{Range::Kind::whole, 0, size};
  const std::string_view if_range = request.header("If-Range");
  // Strong comparison; a date never matches because we send no Last-Modified.
  const bool range_applies = if_range.empty() || (!etag.empty() && if_range == quoted);
  if ((request.method == "GET") && range_applies) range = parse_range(request.header("Range"), size);

  if (range.kind == Range::Kind::unsatisfiable) {
    response =
        error_response({ErrorCode::invalid_argument,
                        "the range is outside of the file's " + std::to_string(size) + " bytes", "Range"});
    response.status = 416;
    response.headers["Content-Range"] = "bytes */" + std::to_string(size);
    return out;
  }
  response.headers["Content-Type"] = std::string(content_type);
  if (range.kind == Range::Kind::part) {
    response.status = 206;
    response.headers["Content-Range"] = "bytes " + std::to_string(range.offset) + "-" +
                                        std::to_string(range.offset + range.length - 1) + "/" +
                                        std::to_string(size);
  }
  out.wants_body = true;
  out.offset = range.offset;
  out.length = range.length;
  return out;
}

Response file_response(const Request& request, int fd, std::uint64_t size, std::string_view etag,
                       std::string_view content_type) {
  RangeHead head = range_head(request, size, etag, content_type);
  if (head.wants_body) {
    head.response.body = FileBody{fd, head.offset, head.length};
  } else {
    ::close(fd);
  }
  return std::move(head.response);
}

}  // namespace educloud::http
