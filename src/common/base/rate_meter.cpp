#include "common/base/rate_meter.hpp"

namespace educloud {
namespace {

constexpr std::int64_t kApartMs = 100;

}  // namespace

void RateMeter::add(std::uint64_t bytes_done, std::int64_t now_ms) {
  if (!samples_.empty() && bytes_done < samples_.back().second) samples_.clear();
  if (samples_.size() >= 2 && now_ms - samples_[samples_.size() - 2].first < kApartMs) samples_.pop_back();
  samples_.emplace_back(now_ms, bytes_done);
  while (samples_.size() > 2 && now_ms - samples_[1].first >= kWindowMs) samples_.erase(samples_.begin());
}

double RateMeter::bytes_per_second() const {
  if (samples_.size() < 2) return 0;
  const auto span_ms = samples_.back().first - samples_.front().first;
  if (span_ms <= 0) return 0;
  return static_cast<double>(samples_.back().second - samples_.front().second) * 1000.0 /
         static_cast<double>(span_ms);
}

}  // namespace educloud
