#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "cli/commands/context.hpp"

namespace educloud::cli {

/// Instance ids of the VMs, as /vms lists them, that begin, run, are paused or move away on `host`.
std::set<std::string> at_work_on(const nlohmann::json& vms, const std::string& host);

/// Those of `of` that the drain of `host` stops or has stopped, with their names.
std::map<std::string, std::string> stopped_by_drain(const nlohmann::json& vms, const std::string& host,
                                                    const std::set<std::string>& of);

/// VMs that do not move from a node that is emptied before its host is restarted: named when it is known
/// which, and started again afterwards.
class StayingVms {
 public:
  struct Refused {
    std::string insid, reason;
  };

  StayingVms(Context& context, Session& session, std::string host)
      : context_(context), session_(session), host_(std::move(host)) {}

  /// Before the node is drained.
  Result<> remember();
  /// Names those that are known to stay and were not yet.
  void look();
  /// Starts them, and waits until they run. What could not be started is told by refused().
  void start(int timeout_s);

  const std::vector<std::string>& started() const { return started_; }
  /// Temporary desktops, which are gone when they are stopped.
  const std::vector<std::string>& ended() const { return ended_; }
  const std::vector<Refused>& refused() const { return refused_; }
  /// "; stopped and not started again: VD1, VD2"; empty if there are none.
  std::string left() const;

 private:
  Result<std::string> run(const std::string& insid);

  Context& context_;
  Session& session_;
  std::string host_;
  std::set<std::string> at_work_;
  std::map<std::string, std::string> staying_;  ///< names by id
  std::vector<std::string> started_, ended_;
  std::vector<Refused> refused_;
};

}  // namespace educloud::cli
