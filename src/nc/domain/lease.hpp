#pragma once

#include <cstdint>
#include <optional>

namespace educloud::nc {

/// What this node may do by its lease: clc grants it anew every 5 s while it hears of the node. All times are
/// CLOCK_BOOTTIME in milliseconds, so neither a wrong clock nor a suspended host prolongs it. Pure.
class Lease {
 public:
  /// Without a grant for so long nothing new starts: clc may soon start it elsewhere (after 60 s).
  static constexpr std::int64_t kStartMs = 30'000;
  /// Nor may anything run whose disk must have one writer.
  static constexpr std::int64_t kRunMs = 45'000;

  /// `remembered`: of the last grant before our own restart. Without one the node gets kStartMs to hear.
  Lease(std::int64_t now_ms, std::optional<std::int64_t> remembered_ms) : heard_at_(now_ms) {
    // A later one is of a boot before this one.
    if (remembered_ms && *remembered_ms >= 0 && *remembered_ms <= now_ms) heard_at_ = *remembered_ms;
  }

  /// False: it is older than one we have seen, and does not count.
  bool granted(std::int64_t epoch, std::int64_t now_ms) {
    if (epoch < epoch_) return false;
    epoch_ = epoch;
    heard_at_ = now_ms;
    return true;
  }
  std::int64_t age_ms(std::int64_t now_ms) const { return now_ms - heard_at_; }
  bool may_start(std::int64_t now_ms) const { return age_ms(now_ms) <= kStartMs; }
  bool may_run_exclusive(std::int64_t now_ms) const { return age_ms(now_ms) <= kRunMs; }
  /// Of the last grant; 0: none since our start.
  std::int64_t epoch() const { return epoch_; }

 private:
  std::int64_t heard_at_;
  std::int64_t epoch_ = 0;
};

}  // namespace educloud::nc
