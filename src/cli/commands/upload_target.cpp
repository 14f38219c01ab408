#include "cli/commands/upload_target.hpp"

#include <charconv>

#include "common/base/ids.hpp"

namespace educloud::cli {
namespace {

constexpr std::size_t kQueryBytes = 1024;

tl::unexpected<Error> unusable(const char* what) {
  return fail(ErrorCode::internal,
              std::string("the cloud's answer names no usable place for the upload (") + what + ")");
}

}  // namespace

Result<transfer::UploadRequest> parse_upload_target(const nlohmann::json& target) {
  constexpr std::string_view kUploads = "/uploads";
  const auto text = [&](const char* key) -> std::string {
    const auto at = target.find(key);
    return at != target.end() && at->is_string() ? at->get<std::string>() : std::string();
  };
  std::string url = text("url");
  const std::string query = text("query");
  if (!url.ends_with(kUploads)) return unusable("url");
  url.resize(url.size() - kUploads.size());
  auto base = http::Url::parse(url);
  if (!base) return unusable("url");
  const bool is_plain =
      query.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=&-_.~%") ==
      std::string::npos;
  if (query.empty() || query.size() > kQueryBytes || !is_plain) return unusable("query");

  transfer::UploadRequest request{.base = *base};
  for (std::size_t at = 0; at <= query.size();) {
    const std::size_t end = std::min(query.find('&', at), query.size());
    const std::string pair = query.substr(at, end - at);
    at = end + 1;
    const std::string value = pair.substr(std::min(pair.find('=') + 1, pair.size()));
    if (pair.starts_with("image=")) {
      request.imgid = value;
    } else if (pair.starts_with("version=")) {
      std::from_chars(value.data(), value.data() + value.size(), request.version);
    } else if (!pair.empty()) {
      request.grant += (request.grant.empty() ? "" : "&") + pair;
    }
  }
  if (!ImageId::parse(request.imgid) || request.version < 1 || request.grant.empty())
    return unusable("query");
  request.cmdid = text("cmdid");
  request.format = text("format");
  return request;
}

}  // namespace educloud::cli
