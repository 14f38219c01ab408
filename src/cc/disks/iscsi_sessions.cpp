// Who is logged in at a target.
#include <algorithm>
#include <chrono>
#include <thread>

#include "cc/disks/iscsi_targets.hpp"
#include "common/obs/log.hpp"

namespace educloud::cc {
namespace {

using Mode = TgtRequest::Mode;
using Op = TgtRequest::Op;

/// Sessions kicked in one round; each initiator of ours has one.
constexpr int kMaxKicked = 64;
constexpr std::chrono::seconds kLeaveDeadline{5};
constexpr std::chrono::milliseconds kPoll{20};

struct Session {
  std::uint64_t sid = 0;
  std::uint32_t cid = 0;
  std::string address;
};

std::optional<std::string> after(std::string_view line, std::string_view label) {
  const auto at = line.find(label);
  if (at == std::string_view::npos) return std::nullopt;
  return std::string(line.substr(at + label.size(), 64));
}

/// tgtd's list: a line "Session: N", below it "Connection: N" and "IP Address: A".
std::vector<Session> parse_sessions(std::string_view shown) {
  std::vector<Session> all;
  std::uint64_t sid = 0;
  while (!shown.empty() && all.size() < kMaxKicked) {
    const auto end = std::min(shown.find('\n'), shown.size());
    const auto line = shown.substr(0, end);
    shown.remove_prefix(std::min(end + 1, shown.size()));
    if (auto number = after(line, "Session: ")) sid = std::strtoull(number->c_str(), nullptr, 10);
    if (auto number = after(line, "Connection: "))
      all.push_back({sid, static_cast<std::uint32_t>(std::strtoul(number->c_str(), nullptr, 10)), {}});
    if (auto address = after(line, "IP Address: "); address && !all.empty()) all.back().address = *address;
  }
  return all;
}

}  // namespace

void IscsiTargets::kick_sessions(const Made& made, const std::vector<std::string>& keep) {
  auto shown = control_.call({.mode = Mode::connection, .op = Op::show, .tid = made.tid});
  if (!shown) return;
  for (const auto& session : parse_sessions(*shown)) {
    if (std::ranges::find(keep, session.address) != keep.end()) continue;
    (void)control_.call({.mode = Mode::connection,
                         .op = Op::remove,
                         .tid = made.tid,
                         .sid = session.sid,
                         .cid = session.cid});
  }
}

Result<> IscsiTargets::admit(Made& made, const std::vector<std::string>& keep) {
  const auto tell = [&](Op op, const std::string& one) {
    return control_.call({.op = op, .tid = made.tid, .parameters = "initiator-address=" + one});
  };
  const auto is_kept = [&](const std::string& one) { return std::ranges::find(keep, one) != keep.end(); };
  for (const auto& one : keep) {
    const auto known = made.bound.find(one);
    if (one.empty() || (known != made.bound.end() && known->second)) continue;
    // A request without an answer may have been carried out, and tgtd takes nobody twice.
    if (known != made.bound.end()) (void)tell(Op::unbind, one);
    made.bound[one] = false;
    if (auto bound = tell(Op::bind, one); !bound)
      return fail(ErrorCode::unavailable, "let " + one + " in: " + bound.error().message);
    made.bound[one] = true;
  }
  for (auto it = made.bound.begin(); it != made.bound.end();) {
    if (is_kept(it->first)) {
      ++it;
      continue;
    }
    it->second = false;
    auto gone = tell(Op::unbind, it->first);
    // Refused: it is not there.
    if (!gone && gone.error().code != ErrorCode::conflict)
      return fail(ErrorCode::unavailable, "shut " + it->first + " out: " + gone.error().message);
    it = made.bound.erase(it);
  }
  const auto deadline = std::chrono::steady_clock::now() + kLeaveDeadline;
  for (;;) {
    kick_sessions(made, keep);
    auto shown = control_.call({.mode = Mode::connection, .op = Op::show, .tid = made.tid});
    if (!shown) return fail(ErrorCode::unavailable, shown.error().message);
    const auto left = parse_sessions(*shown);
    if (std::ranges::all_of(left, [&](const Session& one) { return is_kept(one.address); })) return {};
    if (std::chrono::steady_clock::now() > deadline)
      return fail(ErrorCode::unavailable, "tgtd does not end a session of " + made.target.instance.str());
    std::this_thread::sleep_for(kPoll);
  }
}

Result<> IscsiTargets::set_initiators(const InstanceId& instance, const std::string& address,
                                      const std::string& also) {
  const std::lock_guard control(control_mutex_);
  {
    const std::lock_guard lock(mutex_);
    const auto it = wanted_.find(instance);
    if (it == wanted_.end())
      return fail(ErrorCode::not_found, "the disk of " + instance.str() + " is not exported");
    it->second.target.address = address;
    it->second.target.also = also;
  }
  return admit_wanted(instance);
}

Result<> IscsiTargets::admit_wanted(const InstanceId& instance) {
  Made now;
  {
    const std::lock_guard lock(mutex_);
    const auto it = wanted_.find(instance);
    // A tgtd that is away is told all of it when it comes.
    if (it == wanted_.end() || !runs_ || !it->second.is_made) return {};
    now = it->second;
  }
  auto done = admit(now, {now.target.address, now.target.also});
  const std::lock_guard lock(mutex_);
  // A tgtd that was started meanwhile is not made anything yet: that sets it again.
  if (const auto it = wanted_.find(instance); it != wanted_.end()) it->second.bound = std::move(now.bound);
  return done;
}

}  // namespace educloud::cc
