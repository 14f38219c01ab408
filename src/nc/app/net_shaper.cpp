#include "nc/app/net_shaper.hpp"

#include <charconv>

#include "common/obs/log.hpp"
#include "common/sys/file.hpp"

namespace educloud::nc {
namespace {

constexpr std::int64_t kMbit = 1'000'000;
constexpr std::size_t kFileBytes = 32;
constexpr std::chrono::seconds kPause{15};  ///< after a try that failed

std::optional<std::int64_t> read_rate(const std::filesystem::path& file) {
  const auto text = sys::read_file(file, kFileBytes);
  if (!text) return std::nullopt;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc{} || value <= 0) return std::nullopt;
  return value;
}

}  // namespace

Result<> NetShaper::limit(const InstanceId& insid, std::int64_t mbit_s) {
  const std::lock_guard lock(mutex_);
  const auto file = layout_.net_limit(insid);
  std::error_code ignored;
  if (mbit_s == 0) {
    const bool was = std::filesystem::remove(file, ignored) || lanes_.contains(insid);
    if (!was) return {};
    auto done = hypervisor_.undivert_network(insid);
    lanes_.erase(insid);
    return done;
  }
  if (auto ok = sys::write_file_atomically(file, std::to_string(mbit_s)); !ok) return ok;
  const auto lane = lanes_.find(insid);
  if (lane != lanes_.end() && !lane->second->is_over()) {
    lane->second->set_rate(mbit_s * kMbit);
    return {};
  }
  return divert(insid, mbit_s);
}

Result<> NetShaper::divert(const InstanceId& insid, std::int64_t mbit_s) {
  auto lane = NetLane::open(mbit_s * kMbit);
  if (!lane) return fail(lane.error());
  const auto ends = (*lane)->take_ends();
  if (auto ok = hypervisor_.divert_network(insid, ends.sockets()); !ok) return ok;
  lanes_[insid] = std::move(*lane);
  obs::info("net.limited", {{"insid", insid.str()}, {"mbit_s", mbit_s}});
  return {};
}

void NetShaper::drop(const InstanceId& insid) {
  const std::lock_guard lock(mutex_);
  std::error_code ignored;
  std::filesystem::remove(layout_.net_limit(insid), ignored);
  lanes_.erase(insid);
}

std::map<InstanceId, std::int64_t> NetShaper::wanted() const {
  std::map<InstanceId, std::int64_t> out;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(layout_.instances(), error), end; !error && entry != end;
       entry.increment(error)) {
    auto insid = InstanceId::parse(entry->path().filename().string());
    if (!insid) continue;
    if (const auto rate = read_rate(layout_.net_limit(*insid))) out.emplace(std::move(*insid), *rate);
  }
  return out;
}

void NetShaper::tend() {
  const std::lock_guard lock(mutex_);
  if (stopped_) return;
  const auto all = wanted();
  std::erase_if(lanes_, [&](const auto& one) { return !all.contains(one.first); });
  std::erase_if(again_at_, [&](const auto& one) { return !all.contains(one.first); });
  for (const auto& [insid, mbit_s] : all) {
    const auto lane = lanes_.find(insid);
    if (lane != lanes_.end() && !lane->second->is_over()) continue;
    if (std::chrono::steady_clock::now() < again_at_[insid]) continue;
    if (!hypervisor_.state(insid)) continue;  // it is not there, or not yet
    auto diverted = divert(insid, mbit_s);
    if (diverted) continue;
    again_at_[insid] = std::chrono::steady_clock::now() + kPause;
    obs::warn("net.not_limited", {{"insid", insid.str()}, {"reason", diverted.error().message}});
  }
}

void NetShaper::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  for (const auto& [insid, lane] : lanes_) {
    if (lane->is_over()) continue;
    if (auto ok = hypervisor_.undivert_network(insid); !ok)
      obs::warn("net.not_undiverted", {{"insid", insid.str()}, {"reason", ok.error().message}});
  }
  lanes_.clear();
}

}  // namespace educloud::nc
