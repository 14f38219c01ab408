#include "cli/image/signed_version.hpp"

#include "common/base/ids.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::cli {
namespace {

constexpr std::size_t kQueryBytes = 1024;

tl::unexpected<Error> unusable(const char* what) {
  return fail(ErrorCode::internal,
              std::string("the cloud's answer names no usable place to read from (") + what + ")");
}

std::string text_of(const nlohmann::json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
}

std::uint64_t size_of(const nlohmann::json& object, const char* key) {
  const auto at = object.find(key);
  if (at == object.end() || !at->is_number_integer() || *at < 0) return 0;
  return at->get<std::uint64_t>();
}

}  // namespace

Result<SignedVersion> parse_signed_version(const nlohmann::json& answer) {
  if (!answer.is_object()) return unusable("no object");
  const std::string imgid = text_of(answer, "imgid"), query = text_of(answer, "query");
  const std::string url = text_of(answer, "url"), manifest_url = text_of(answer, "manifest_url");
  const std::uint64_t version = size_of(answer, "version");
  if (!ImageId::parse(imgid)) return unusable("imgid");
  if (version < 1 || version > 1'000'000'000) return unusable("version");
  const bool is_plain =
      query.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=&-_.~%") ==
      std::string::npos;
  if (query.empty() || query.size() > kQueryBytes || !is_plain) return unusable("query");
  const std::string path = transfer::version_path(imgid, static_cast<int>(version));
  if (!url.ends_with(path + "/raw")) return unusable("url");
  const std::string base_text = url.substr(0, url.size() - path.size() - 4);
  auto base = http::Url::parse(base_text);
  if (!base) return unusable("url");
  if (manifest_url != base_text + path + "/manifest") return unusable("manifest_url");
  auto digest = chunk::ChunkId::parse(text_of(answer, "digest"));
  if (!digest) return unusable("digest");
  SignedVersion out;
  out.remote.base = std::move(*base);
  out.remote.imgid = imgid;
  out.remote.version = static_cast<int>(version);
  out.remote.grant = query;
  out.digest = *digest;
  out.disk_bytes = size_of(answer, "virtual_size_bytes");
  out.data_bytes = size_of(answer, "size_bytes");
  out.url = url + "?" + query;
  out.manifest_url = manifest_url + "?" + query;
  return out;
}

}  // namespace educloud::cli
