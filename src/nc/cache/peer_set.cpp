#include "nc/cache/peer_set.hpp"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "common/base/ids.hpp"

namespace educloud::nc {
namespace {

constexpr std::size_t kMaxMembers = 64;
constexpr std::size_t kMaxGrant = 512;

std::uint64_t fnv1a64(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

/// The finalizer of splitmix64.
std::uint64_t mix64(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

/// It becomes part of a request line.
bool is_query(std::string_view text) {
  return !text.empty() && text.size() <= kMaxGrant && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '&' ||
           c == '=' || c == '.' || c == '_' || c == '-' || c == '~' || c == '%';
  });
}

std::optional<Peer> parse_peer(const nlohmann::json& member) {
  if (!member.is_object()) return std::nullopt;
  const auto text = [&](const char* key) {
    const auto found = member.find(key);
    return found != member.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  Peer peer{text("node"), {}, text("grant"), false};
  auto url = http::Url::parse(text("url"));
  if (!HostName::parse(peer.node) || !url || !is_query(peer.grant)) return std::nullopt;
  peer.url = std::move(*url);
  const auto complete = member.find("complete");
  peer.complete = complete != member.end() && complete->is_boolean() && complete->get<bool>();
  return peer;
}

}  // namespace

Result<PeerAnswer> parse_peers(const nlohmann::json& answer, std::string_view self) {
  const auto wrong = [] { return fail(ErrorCode::corrupt, "the cc's list of peers can not be read"); };
  if (!answer.is_object()) return wrong();
  const auto enabled = answer.find("enabled");
  const auto members = answer.find("members");
  if (enabled == answer.end() || !enabled->is_boolean()) return wrong();
  PeerAnswer parsed;
  parsed.enabled = enabled->get<bool>();
  if (!parsed.enabled) return parsed;
  if (members == answer.end() || !members->is_array()) return wrong();
  std::set<std::string> seen{std::string(self)};
  for (const auto& member : *members) {
    if (parsed.members.size() == kMaxMembers) break;
    auto peer = parse_peer(member);
    if (peer && seen.insert(peer->node).second) parsed.members.push_back(std::move(*peer));
  }
  return parsed;
}

const std::string& home_of(const std::vector<std::string>& nodes, std::uint32_t group) {
  const std::string* best = nullptr;
  std::uint64_t best_weight = 0;
  for (const auto& node : nodes) {
    const auto weight = mix64(fnv1a64(node) ^ (group * 0x9E3779B97F4A7C15ULL));
    if (best == nullptr || weight > best_weight || (weight == best_weight && node < *best)) {
      best = &node;
      best_weight = weight;
    }
  }
  return *best;
}

bool PeerSet::update(PeerAnswer answer) {
  const auto before = live();
  {
    const std::lock_guard lock(mutex_);
    enabled_ = answer.enabled;
    peers_ = std::move(answer.members);
    std::erase_if(peers_, [&](const Peer& peer) { return dropped_.contains(peer.node); });
  }
  return live() != before;
}

void PeerSet::drop(const std::string& node) {
  const std::lock_guard lock(mutex_);
  dropped_.insert(node);
  std::erase_if(peers_, [&](const Peer& peer) { return peer.node == node; });
}

std::vector<std::string> PeerSet::live() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> nodes;
  for (const auto& peer : peers_) nodes.push_back(peer.node);
  std::sort(nodes.begin(), nodes.end());
  return nodes;
}

std::optional<Peer> PeerSet::find(const std::string& node) const {
  const std::lock_guard lock(mutex_);
  for (const auto& peer : peers_) {
    if (peer.node == node) return peer;
  }
  return std::nullopt;
}

bool PeerSet::enabled() const {
  const std::lock_guard lock(mutex_);
  return enabled_;
}

}  // namespace educloud::nc
