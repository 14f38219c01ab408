#pragma once

#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "nc/app/cc_disks.hpp"

namespace educloud::nc {

/// A cc's database disks in memory, with its rules about epochs.
class FakeCcDisks : public CcDisks {
 public:
  struct Disk {
    std::int64_t epoch = 0;
    bool is_open = false;
  };

  Result<Opened> open(const Opening& request, const OnCopied& progress, std::stop_token) override {
    if (error) return fail(*error);
    const auto name = request.leave.instance.str();
    auto& disk = disks[name];
    if (request.leave.epoch < disk.epoch) return fail(ErrorCode::conflict, "a higher epoch has it");
    disk = {request.leave.epoch, true};
    last = request;
    ++opens;
    progress(1, 2);
    if (request.mode == "copy") return open_copy(request);
    return Opened{{"10.0.0.1", 3260, "iqn.2026-11.educloud:" + name, 1, name},
                  "secret" + std::to_string(disk.epoch)};
  }
  /// Its content, and who has it.
  struct Master {
    std::string text = "made";
    std::string copy, given;
    bool is_out = false;
  };
  Result<Opened> open_copy(const Opening& request) {
    auto& master = masters[request.leave.instance.str()];
    if (master.copy.empty() || (request.writes && std::exchange(forgets, false)))
      master.copy = "00000000000000c" + std::to_string(++copies);
    master.is_out = master.is_out || request.writes;
    Opened out;
    out.copy = Copy{master.copy, 4096, master.text.size(), master.is_out};
    out.left = left;
    return out;
  }
  Result<> fetch(const Held& held, std::uint64_t, const OnCopied& progress, std::stop_token) override {
    if (error) return fail(*error);
    std::ofstream(held.file) << masters[held.leave.instance.str()].text;
    ++fetches;
    progress(1, 1);
    return {};
  }
  Result<> give_back(const Held& held, const std::string& give, const OnCopied& progress,
                     std::stop_token) override {
    if (away > 0) {
      --away;
      return fail(ErrorCode::unavailable, "the cc is away");
    }
    if (error) return fail(*error);
    auto& master = masters[held.leave.instance.str()];
    const auto at = disks.find(held.leave.instance.str());
    if (at == disks.end() || held.leave.epoch < at->second.epoch || master.copy != held.copy)
      return fail(ErrorCode::conflict, "a higher epoch has it");
    std::ifstream in(held.file);
    master.text = {std::istreambuf_iterator<char>(in), {}};
    master.given = give;
    master.is_out = false;
    progress(1, 1);
    return {};
  }
  Result<Opened> join(const Leave& leave, std::stop_token) override {
    if (error) return fail(*error);
    const auto name = leave.instance.str();
    if (!is_open(name) || leave.epoch <= disks[name].epoch)
      return fail(ErrorCode::conflict, "not to be joined");
    joined = leave.epoch;
    return Opened{{"10.0.0.1", 3260, "iqn.2026-11.educloud:" + name, 1, name},
                  "secret" + std::to_string(disks[name].epoch)};
  }
  Result<> keep(const Leave& leave, std::stop_token) override {
    if (error) return fail(*error);
    auto& disk = disks[leave.instance.str()];
    if (disk.epoch != leave.epoch && joined != leave.epoch) return fail(ErrorCode::conflict, "not joined");
    disk = {leave.epoch, true};
    joined = 0;
    return {};
  }
  Result<> leave(const Leave& leave, std::stop_token) override {
    if (error) return fail(*error);
    if (joined == leave.epoch) joined = 0;
    return {};
  }
  Result<> close(const Leave& leave, std::stop_token) override {
    if (error) return fail(*error);
    last_close = leave;
    const auto at = disks.find(leave.instance.str());
    const bool is_theirs = at != disks.end() && leave.epoch >= at->second.epoch;
    if (is_theirs && masters[leave.instance.str()].is_out)
      return fail(ErrorCode::conflict, "its copy is out");
    if (is_theirs) masters[leave.instance.str()].copy.clear();
    if (is_theirs) at->second.is_open = false;
    return {};
  }
  Result<std::string> submit(const Submission& request, const OnCopied& progress, std::stop_token) override {
    if (error) return fail(*error);
    if (disks[request.leave.instance.str()].is_open) return fail(ErrorCode::conflict, "it is open");
    submits.push_back(request);
    progress(4 << 20, 4 << 20);
    return "receipt of the database disk";
  }
  Result<> remove(const Leave& leave, std::stop_token) override {
    if (error) return fail(*error);
    const auto at = disks.find(leave.instance.str());
    if (at == disks.end()) return {};
    if (leave.epoch < at->second.epoch) return fail(ErrorCode::conflict, "a higher epoch has it");
    disks.erase(at);
    return {};
  }
  bool is_open(const std::string& insid) const {
    const auto at = disks.find(insid);
    return at != disks.end() && at->second.is_open;
  }

  std::map<std::string, Disk> disks;
  std::map<std::string, Master> masters;  ///< mode copy
  std::string left;
  int copies = 0, fetches = 0;
  bool forgets = false;     ///< the next start is handed another copy than it was before
  int away = 0;             ///< so many attempts to give back fail
  std::int64_t joined = 0;  ///< epoch of the node that a VM moves to
  std::optional<Error> error;
  std::optional<Opening> last;
  std::optional<Leave> last_close;
  std::vector<Submission> submits;
  int opens = 0;
};

}  // namespace educloud::nc
