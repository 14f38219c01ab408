#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "common/base/clock.hpp"
#include "common/http/message.hpp"
#include "nc/app/operations.hpp"

namespace educloud::nc {

struct MoveDeskOptions {
  std::string host;
  std::string node_key;
};

/// Where VMs that move to this node are announced by the one that has them. All routes want clc's grant for
/// PUT "/migrations/<insid>", signed with this node's key:
/// - `PUT /migrations/{insid}`, body: the command that runs it here. Makes everything ready in the
/// background;
///   answers {"state": preparing | ready, "bytes_done", "bytes_total"}, or why not. Repeated: the same again.
/// - `GET /migrations/{insid}`: that answer; and the sign that the other node lives.
/// - `GET /migrations/{insid}/memory` and `.../disks`, upgrade to "educloud-move": tunnels to QEMU.
/// - `POST /migrations/{insid}/take-over`: it runs here from now on. 404: it is not here, for good.
/// - `DELETE /migrations/{insid}`: it does not come.
/// Nothing here survives a restart of ours but the VM; the last two need no more than that.
class MoveDesk {
 public:
  static constexpr std::size_t kMaxArrivals = 4;
  /// Without a word of the other node one that has not arrived is given up.
  static constexpr std::int64_t kSilenceMs = 60'000;

  MoveDesk(MoveDeskOptions options, Operations& operations, Hypervisor& hypervisor, const Clock& clock)
      : options_(std::move(options)), operations_(operations), hypervisor_(hypervisor), clock_(clock) {}
  ~MoveDesk() { stop(); }

  void add_routes(http::Router& router);
  /// Ends what is being made ready. Idempotent.
  void stop();

 private:
  struct Arrival;
  Result<InstanceId> admit(const http::Request& request) const;
  http::Response announce(const http::Request& request);
  http::Response look(const http::Request& request);
  http::Response open_channel(const http::Request& request, bool memory);
  http::Response take_over(const http::Request& request);
  http::Response drop(const http::Request& request);
  std::shared_ptr<Arrival> find(const InstanceId& insid);
  Result<std::shared_ptr<Arrival>> find_or_begin(const InstanceId& insid, msg::Command command);
  void attend(Arrival& arrival, const std::stop_token& stop);
  void give_up(const InstanceId& insid, std::string_view why);

  const MoveDeskOptions options_;
  Operations& operations_;
  Hypervisor& hypervisor_;
  const Clock& clock_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Arrival>> arrivals_;  // under mutex_
};

}  // namespace educloud::nc
