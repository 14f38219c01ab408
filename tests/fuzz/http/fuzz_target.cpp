#include <cstdint>
#include <cstdlib>
#include <string>

#include "common/http/client.hpp"
#include "common/http/range.hpp"
#include "common/http/target.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

bool has_control(std::string_view text) {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return true;
  }
  return false;
}

void check_target(std::string_view text) {
  const auto target = educloud::http::parse_target(text);
  if (!target) return;
  const std::string& path = target->path;
  require(path.starts_with('/') && !has_control(path));
  require(path.find("//") == std::string::npos);
  require((path + "/").find("/../") == std::string::npos && (path + "/").find("/./") == std::string::npos);
  for (const auto& [key, value] : target->query) require(!has_control(key) && !has_control(value));
}

void check_range(std::string_view text, std::uint64_t size) {
  const auto range = educloud::http::parse_range(text, size);
  if (range.kind == educloud::http::Range::Kind::unsatisfiable) return;
  require(range.offset <= size && range.length <= size - range.offset);
  require(range.kind == educloud::http::Range::Kind::whole || range.length > 0);
}

void check_url(std::string_view text) {
  const auto url = educloud::http::Url::parse(text);
  if (!url) return;
  require(!url->host.empty() && url->port > 0 && url->port < 65536);
  require(url->path.empty() || url->path.front() == '/');
  require(!has_control(url->path));
}

}  // namespace

/// The first byte chooses how large the file of a range is.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t length) {
  if (length == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, length - 1);
  check_target(text);
  check_target("/" + std::string(text));
  check_url("http://" + std::string(text));
  check_range("bytes=" + std::string(text), data[0] == 255 ? UINT64_MAX : data[0]);
  educloud::http::etag_matches(text, "v1");
  const auto decoded = educloud::http::percent_decode(educloud::http::url_encode(text), true);
  require(has_control(text) ? !decoded.has_value() : decoded.has_value() && *decoded == text);
  return 0;
}
