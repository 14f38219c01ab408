// Mode copy: a server's database disk is a file of this node while its VM runs, and goes back afterwards
// (ADR 10). The ticket says at each step whether it may hold what the cc's disk does not: then it is never
// removed, only given back or set aside.
#include <fcntl.h>

#include "common/base/random.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "nc/app/operations.hpp"

namespace educloud::nc {
namespace {

constexpr std::size_t kGiveBytes = 8;
constexpr unsigned kPrivate = 0700;
constexpr int kMostNames = 1000;
constexpr const char* kGiving = "giving the database disk back to the cc";

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

/// What `before` tells of may be the copy that the cc means; else it is fetched. Writes the ticket.
Result<> Operations::have_copy(const Call& call, const DatabaseTicket& before, const CcDisks::Copy& copy,
                               const OnCopied& tell) {
  const auto& insid = call.tid.instance;
  const auto file = options_.layout.database_copy(insid);
  const bool is_here = is_there(file);
  if (is_here && before.copy == copy.name) return {};
  if (before.newer == 1 && is_here) {
    if (auto ok = set_aside(insid, before.epoch); !ok) return ok;
  } else if (before.newer == 1) {
    obs::error("database.copy_missing", {{"insid", insid.str()}, {"file", file.string()}});
  }
  if (auto ok = drop_copy(insid); !ok) return ok;
  DatabaseTicket ticket{call.command.epoch, call.command.database_grant, {}, 0, copy.name, 0, {}};
  // Before the file, which is this copy if it is there.
  if (auto ok = write_ticket(options_.layout, insid, ticket); !ok) return ok;
  if (auto ok = need_disk(copy.data_bytes, "the copy of a database disk"); !ok) return ok;
  auto disks = cc_disks();
  if (!disks) return fail(disks.error());
  tell(0, copy.data_bytes);
  const CcDisks::Leave leave{insid, ticket.epoch, ticket.grant};
  auto fetched = (*disks)->fetch({leave, copy.name, file}, copy.data_bytes, tell, call.stop);
  if (fetched) obs::info("database.copied", {{"insid", insid.str()}, {"bytes", copy.data_bytes}});
  return fetched;
}

/// From here on its guest may write.
Result<> Operations::note_newer(const InstanceId& insid) {
  auto ticket = read_ticket(options_.layout, insid);
  if (!ticket) return fail(ticket.error());
  if (!*ticket) return fail(ErrorCode::internal, "no ticket of a database disk that was just opened");
  (*ticket)->newer = 1;
  // What was sent of it is not what it will be.
  (*ticket)->give.clear();
  return write_ticket(options_.layout, insid, **ticket);
}

bool Operations::has_newer_copy(const InstanceId& insid) const {
  auto ticket = read_ticket(options_.layout, insid);
  // Of one that nobody can read, the file is worth keeping.
  if (!ticket) return is_there(options_.layout.database_copy(insid));
  return *ticket && !(*ticket)->copy.empty() && (*ticket)->newer == 1;
}

Result<> Operations::has_no_copy(const InstanceId& insid) const {
  auto ticket = read_ticket(options_.layout, insid);
  if (!ticket) return fail(ticket.error());
  if (!*ticket || (*ticket)->copy.empty()) return {};
  return fail(ErrorCode::conflict,
              "its database disk is a copy on this node and cannot move while it runs: stop it and start it "
              "elsewhere, or choose educloud cluster set CLUSTER --database-mode iscsi for its next start");
}

Result<> Operations::return_copy(const Call& call, const Telling& telling) {
  const auto& insid = call.tid.instance;
  if (!has_newer_copy(insid)) return {};
  Result<> given = fail(ErrorCode::cancelled, "its database disk has to be given back first");
  if (call.may_give_back) {
    given = bring_back(call, telling);
    if (given || call.stop.stop_requested()) return given;
    obs::warn("database.not_given_back", {{"insid", insid.str()}, {"reason", given.error().message}});
    if (telling)
      progress(call, telling->first, telling->second, 0, 0, 0,
               std::string(kGiving) + " does not succeed yet: " + given.error().message);
  }
  // Others' turn: an error of this one may never pass.
  if (call.is_put_off != nullptr) *call.is_put_off = true;
  return fail(ErrorCode::cancelled, given.error().message);
}

Result<> Operations::end_database(const Call& call, const Telling& telling) {
  if (auto ok = return_copy(call, telling); !ok) return ok;
  close_database(call);
  // The cc knew better whether what is here is newer.
  if (!has_newer_copy(call.tid.instance)) return {};
  if (auto ok = return_copy(call, telling); !ok) return ok;
  close_database(call);
  if (!has_newer_copy(call.tid.instance)) return {};
  return fail(ErrorCode::unavailable, "the cc still takes the copy of its database disk here for newer");
}

/// A start that came to nothing, though its guest may have written: other nodes would wait for that.
void Operations::end_start(const Call& call) {
  constexpr task::TaskState kBooting{task::Phase::editing, task::State::booting};
  if (auto ok = bring_back(call, std::pair(task::Event::booting, kBooting)); !ok)
    obs::warn("database.not_given_back",
              {{"insid", call.tid.instance.str()}, {"reason", ok.error().message}});
  close_database(call);
}

/// One try.
Result<> Operations::bring_back(const Call& call, const Telling& telling) {
  const auto& insid = call.tid.instance;
  const auto& layout = options_.layout;
  if (!has_newer_copy(insid)) return {};
  auto state = state_of(call);
  if (state) return fail(ErrorCode::conflict, "its VM writes to its database disk: stop it first");
  if (state.error().code != ErrorCode::not_found) return fail(state.error());
  auto read = read_ticket(layout, insid);
  if (!read || !*read) return set_aside(insid, 0);
  auto ticket = std::move(**read);
  const auto file = layout.database_copy(insid);
  const auto done = [&]() -> Result<> {
    ticket.newer = 0;
    ticket.give.clear();
    return write_ticket(layout, insid, ticket);
  };
  if (!is_there(file)) {
    obs::error("database.copy_missing", {{"insid", insid.str()}, {"file", file.string()}});
    return done();
  }
  if (ticket.give.empty()) {
    ticket.give = random_hex(kGiveBytes);
    if (auto ok = write_ticket(layout, insid, ticket); !ok) return ok;
  }
  auto disks = cc_disks();
  if (!disks) return fail(disks.error());
  const bool has_newer_leave = !call.command.database_grant.empty() && call.command.epoch >= ticket.epoch;
  const CcDisks::Leave leave{insid, has_newer_leave ? call.command.epoch : ticket.epoch,
                             has_newer_leave ? call.command.database_grant : ticket.grant};
  const auto tell =
      telling ? teller(call, telling->first, telling->second, kGiving) : OnCopied([](auto, auto) {});
  auto given = (*disks)->give_back({leave, ticket.copy, file}, ticket.give, tell, call.stop);
  if (given) obs::info("database.given_back", {{"insid", insid.str()}});
  if (!given && given.error().code != ErrorCode::conflict) return given;
  if (!given) {
    if (auto ok = set_aside(insid, ticket.epoch); !ok) return ok;
  }
  return done();
}

/// Another node has the disk, which began without what is in this copy: an operator decides what it is worth.
Result<> Operations::set_aside(const InstanceId& insid, std::int64_t epoch) {
  const auto& layout = options_.layout;
  const auto file = layout.database_copy(insid);
  if (auto ok = sys::make_directories(layout.lost(), kPrivate); !ok) return ok;
  for (int n = 1; n <= kMostNames; ++n) {
    const auto name = insid.str() + "-" + std::to_string(epoch) + (n == 1 ? "" : "." + std::to_string(n));
    const auto to = layout.lost() / (name + ".raw");
    if (::renameat2(AT_FDCWD, file.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) {
      obs::error("database.copy_set_aside",
                 {{"insid", insid.str()}, {"epoch", epoch}, {"file", to.string()}});
      if (auto ok = sys::sync_path(layout.lost()); !ok) return ok;
      return sys::sync_path(layout.instance(insid));
    }
    if (errno == ENOENT) return {};  // done already
    if (errno != EEXIST) return fail(errno_error("rename " + file.string() + " to " + to.string(), errno));
  }
  return fail(ErrorCode::exhausted, "too many copies of " + insid.str() + " in " + layout.lost().string());
}

/// One that holds nothing of its own.
Result<> Operations::drop_copy(const InstanceId& insid) const {
  const auto file = options_.layout.database_copy(insid);
  if (auto ok = remove_file(file); !ok) return ok;
  return remove_file(file.string() + ".part");
}

}  // namespace educloud::nc
