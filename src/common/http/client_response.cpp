#include "common/http/client.hpp"

namespace educloud::http {
namespace {

constexpr std::size_t kMaxMessageBytes = 2000;

ErrorCode parse_code(std::string_view name, int status) {
  for (int i = 0; i <= static_cast<int>(ErrorCode::internal); ++i) {
    const auto code = static_cast<ErrorCode>(i);
    if (to_string(code) == name) return code;
  }
  return from_http_status(status);
}

std::string text_at(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>().substr(0, kMaxMessageBytes)
                                               : std::string{};
}

}  // namespace

std::string_view ClientResponse::header(std::string_view name) const {
  const auto it = headers.find(name);
  return it == headers.end() ? std::string_view{} : std::string_view{it->second};
}

Result<> ClientResponse::ok() const {
  if (status < 400) return {};
  Error error{from_http_status(status), "HTTP status " + std::to_string(status), {}};
  const auto json = nlohmann::json::parse(body, nullptr, false);
  if (json.is_object()) {
    const auto inner = json.find("error");
    if (inner != json.end() && inner->is_object()) {
      error.code = parse_code(text_at(*inner, "code"), status);
      const std::string message = text_at(*inner, "message");
      if (!message.empty()) error.message = message;
      error.key = text_at(*inner, "key");
    }
  }
  return tl::unexpected<Error>(std::move(error));
}

Result<nlohmann::json> ClientResponse::json() const {
  if (auto good = ok(); !good) return fail(std::move(good.error()));
  auto parsed = nlohmann::json::parse(body, nullptr, false);
  if (parsed.is_discarded()) return fail(ErrorCode::corrupt, "the server's answer is not valid JSON");
  return parsed;
}

}  // namespace educloud::http
