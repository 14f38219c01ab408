#include "cc/relay/peers.hpp"

#include <charconv>

#include "common/base/ids.hpp"
#include "common/http/client.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::cc {
namespace {

/// A node asks again every few seconds while it fills; its last answer may serve a slow chunk for a while.
constexpr std::int64_t kGrantSeconds = 15 * 60;

Result<int> parse_version(const std::string& text) {
  int version = 0;
  const auto [end, errc] = std::from_chars(text.data(), text.data() + text.size(), version);
  const bool whole = errc == std::errc{} && end == text.data() + text.size();
  if (whole && version >= 1 && version <= 1'000'000'000 && std::to_string(version) == text) return version;
  return fail(ErrorCode::invalid_argument, "version must be a number from 1", "version");
}

}  // namespace

Peers::Peers(Options options, PeerTable& table, const NodeRegistry& nodes, const ManifestCache& manifests,
             const Clock& clock)
    : options_(std::move(options)), table_(table), nodes_(nodes), manifests_(manifests), clock_(clock) {}

void Peers::add_routes(http::Router& router) {
  router.add({.method = "GET",
              .pattern = "/images/{id}/versions/{version}/peers",
              .handler = [this](const http::Request& request) {
                auto json = answer(request);
                return json ? http::json_response(*json) : http::error_response(json.error());
              }});
}

Result<nlohmann::json> Peers::answer(const http::Request& request) {
  auto imgid = ImageId::parse(request.param("id"));
  if (!imgid) return fail(imgid.error());
  auto version = parse_version(request.param("version"));
  if (!version) return fail(version.error());
  const std::string path = transfer::version_path(imgid->str(), *version);
  const std::int64_t now_s = clock_.wall_ms() / 1000;
  auto asker = transfer::verify_grant(options_.data_key, "GET", path, request.query, now_s);
  if (!asker) return fail(asker.error());
  auto members = nlohmann::json::array();
  if (!options_.enabled || !HostName::parse(*asker) || *asker == transfer::kUserNode) {
    return nlohmann::json{{"enabled", options_.enabled}, {"members", members}};
  }
  const auto complete = request.query.find("complete");
  const bool has_all = complete != request.query.end() && complete->second == "1";
  const std::int64_t now = clock_.boot_ms();
  if (nodes_.find(*asker, now)) table_.join(imgid->str(), *version, *asker, has_all, now);
  const auto digest = manifests_.digest(imgid->str(), *version);
  for (const auto& member : table_.members(imgid->str(), *version, digest, *asker, now)) {
    auto address = nodes_.find(member.node, now);
    if (!address) continue;
    http::Url url;
    url.host = address->ip;
    url.port = address->port;
    const auto key = transfer::derive_node_key(options_.data_key, member.node);
    members.push_back({{"node", member.node},
                       {"url", "http://" + url.authority()},
                       {"complete", member.complete},
                       {"grant", transfer::sign_grant(key, {"GET", path, *asker, now_s + kGrantSeconds})}});
  }
  return nlohmann::json{{"enabled", true}, {"members", members}};
}

}  // namespace educloud::cc
