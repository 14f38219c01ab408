#include "sim/world/cc_host.hpp"

namespace educloud::sim {
namespace {

constexpr std::int64_t kHeartbeatMs = 5000;

}  // namespace

Result<> CcHost::boot() {
  parts_ = std::make_unique<Parts>(broker_, *this);
  auto& parts = *parts_;
  parts.bridge.subscribe();
  const auto beat = [this, &parts] {
    msg::CcStatus status;
    status.host = name();
    status.ccid = "cc#52:54:00:00:00:02#status";
    status.ts = clock_.wall_ms();
    status.hardware_data = {4, 1.0, 8192, 1024, 100'000, 1000};
    status.net_data.ip0 = "10.0.0.2";
    parts.bridge.send_heartbeat(status);
  };
  parts.bus->start(beat);
  every(kHeartbeatMs, beat);
  return {};
}

}  // namespace educloud::sim
