// The disks of a VM beside c:: a server's database disk, which the cc keeps, and a scratch disk.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "common/transfer/receipt.hpp"
#include "nc/app/operations.hpp"

namespace educloud::nc {

using task::Event;
using task::Phase;
using task::State;

namespace {

constexpr task::TaskState kBooting{Phase::editing, State::booting};
constexpr task::TaskState kCloning{Phase::preparing, State::cloning};
constexpr task::TaskState kUploading{Phase::submitting, State::uploading};
constexpr unsigned kReadable = 0644;  // QEMU may run as another user

using Ticket = DatabaseTicket;

CcDisks::Leave leave_of(const InstanceId& insid, const msg::Command& command) {
  return {insid, command.epoch, command.database_grant};
}

/// Sparse, and as long as `bytes`. An overlay that stands on it does not mind another length.
Result<> make_empty_disk(const std::filesystem::path& file, std::uint64_t bytes) {
  if (auto ok = sys::make_directories(file.parent_path()); !ok) return ok;
  auto fd = sys::open_file(file, O_RDWR | O_CREAT, kReadable);
  if (!fd) return fail(fd.error());
  struct stat status {};
  if (::fstat(fd->get(), &status) != 0) return fail(errno_error("stat " + file.string(), errno));
  if (static_cast<std::uint64_t>(status.st_size) == bytes) return {};
  if (::ftruncate(fd->get(), static_cast<off_t>(bytes)) == 0) return {};
  return fail(errno_error("make " + file.string(), errno));
}

/// What the VM's user will miss on it; empty: nothing.
std::string missing_rows(const CcDisks::Opened& opened, bool was_newer) {
  if (!opened.left.empty())
    return "d: lacks what was written on node " + opened.left +
           " since its VM started there: that node was lost with the newest copy and keeps it below lost/ "
           "when it is back";
  if (opened.copy && opened.copy->is_out && !was_newer)
    return "d: lacks what was written on this node since its VM last started here: the newest copy is not "
           "here any more";
  return {};
}

}  // namespace

Result<CcDisks*> Operations::cc_disks() const {
  if (options_.disks != nullptr) return options_.disks;
  return fail(ErrorCode::internal, "this node has no way to the database disks of its cc");
}

Result<CcDisks::Opened> Operations::open_database(const Call& call, const OnCopied& tell, bool writes) {
  const auto& command = call.command;
  auto disks = cc_disks();
  if (!disks) return fail(disks.error());
  if (!command.database || command.database_grant.empty())
    return fail(ErrorCode::invalid_argument, "no leave to open the database disk", "database_grant");
  const auto& insid = call.tid.instance;
  auto found = read_ticket(options_.layout, insid);
  // One that cannot be read may be of a copy that is newer.
  if (!found && has_newer_copy(insid)) return fail(found.error());
  Ticket before = found && *found ? **found : Ticket{};
  const bool copies = command.database_mode == "copy";
  if (!copies && !before.copy.empty()) {
    // Its cluster does it another way by now.
    const bool boots = command.op == "image/run";
    const auto telling = boots ? std::pair(Event::booting, kBooting) : std::pair(Event::cloning, kCloning);
    if (auto ok = bring_back(call, telling); !ok) return fail(ok.error());
    if (auto ok = drop_copy(insid); !ok) return fail(ok.error());
    before = {};
  }
  Ticket ticket{command.epoch, command.database_grant, {}, 0, before.copy, before.newer, before.give};
  // First: whoever finds it closes what was opened.
  if (auto ok = write_ticket(options_.layout, insid, ticket); !ok) return fail(ok.error());
  CcDisks::Opening request{.leave = leave_of(insid, command),
                           .source = *command.database,
                           .source_grant = command.database_source_grant,
                           .build_imgid = call.tid.is_build() ? call.tid.target.str() : "",
                           .mode = command.database_mode,
                           .writes = writes,
                           .lost = command.database_lost};
  auto opened = (*disks)->open(request, tell, call.stop);
  if (!opened) return opened;
  if (copies != opened->copy.has_value())
    return fail(ErrorCode::corrupt, "the cc opened the database disk in another way than it was asked to");
  if (copies) {
    auto here = have_copy(call, before, *opened->copy, tell);
    return here ? opened : fail(here.error());
  }
  if (!opened->nbd) ticket.secret = opened->secret;
  if (auto ok = write_ticket(options_.layout, insid, ticket); !ok) return fail(ok.error());
  return opened;
}

/// So that the first start has nothing left to copy.
Result<> Operations::prepare_database(const Call& call) {
  if (!call.command.database) return {};
  const auto& source = *call.command.database;
  const auto name = source.imgid + " version " + std::to_string(source.version);
  const auto tell = teller(call, Event::cloning, kCloning, "making the database disk from " + name);
  tell(0, 0);
  auto opened = open_database(call, tell);
  return opened ? Result<>{} : fail(opened.error());
}

Result<std::string> Operations::connect_database(const Call& call, VmSpec& spec) {
  if (!has_database(spec)) return std::string();
  const auto tell = teller(call, Event::booting, kBooting, "opening the database disk");
  const bool was_newer = has_newer_copy(spec.insid);
  auto opened = open_database(call, tell);
  if (!opened) return fail(opened.error());
  const auto& layout = options_.layout;
  const auto warning = missing_rows(*opened, was_newer);
  const auto at = std::ranges::find(spec.extra, ExtraDisk::Kind::database, &ExtraDisk::kind);
  Result<> ready;
  if (opened->copy) {
    at->layers = {{layout.database_copy(spec.insid), "raw"}};
    // Here before there, so that what the cc waits for is known here.
    ready = note_newer(spec.insid);
    if (ready) {
      auto again = open_database(call, tell, true);
      // The cc may have handed out another copy.
      ready = again ? note_newer(spec.insid) : fail(again.error());
    }
  } else if (opened->nbd) {
    const auto socket = layout.database_socket(spec.insid);
    at->layers = {{socket, "raw", true}};
    ready = start_nbd_disk(*opened->nbd, opened->secret, layout.database_keys(spec.insid), socket,
                           options_.lazy.group);
  } else {
    at->iscsi = opened->disk;
    ready = hypervisor_.set_disk_secret(spec.insid, opened->secret);
  }
  return ready ? Result<std::string>(warning) : fail(ready.error());
}

/// connect_database() for a VM that is on its way here.
Result<> Operations::join_database(const Call& call, VmSpec& spec) {
  if (!has_database(spec)) return {};
  if (has_newer_copy(spec.insid))
    return fail(ErrorCode::conflict, "this node still has a copy of its database disk to give back");
  auto disks = cc_disks();
  if (!disks) return fail(disks.error());
  if (call.command.database_grant.empty())
    return fail(ErrorCode::invalid_argument, "no leave to open the database disk", "database_grant");
  Ticket ticket{call.command.epoch, call.command.database_grant, {}, 1, {}, 0, {}};
  if (auto ok = write_ticket(options_.layout, spec.insid, ticket); !ok) return ok;
  auto opened = (*disks)->join(leave_of(spec.insid, call.command), call.stop);
  if (!opened) return fail(opened.error());
  ticket.secret = opened->secret;
  if (auto ok = write_ticket(options_.layout, spec.insid, ticket); !ok) return ok;
  const auto at = std::ranges::find(spec.extra, ExtraDisk::Kind::database, &ExtraDisk::kind);
  at->iscsi = opened->disk;
  return hypervisor_.set_disk_secret(spec.insid, opened->secret);
}

/// The other node's VM stands still for good: from here its disk is ours alone.
Result<> Operations::keep_database(const InstanceId& insid) {
  auto ticket = read_ticket(options_.layout, insid);
  if (!ticket) return fail(ticket.error());
  if (!*ticket || (*ticket)->joining == 0) return {};
  auto disks = cc_disks();
  if (!disks) return fail(disks.error());
  if (auto ok = (*disks)->keep({insid, (*ticket)->epoch, (*ticket)->grant}, {}); !ok)
    return fail(ErrorCode::unavailable, "keep the database disk: " + ok.error().message);
  (*ticket)->joining = 0;
  return write_ticket(options_.layout, insid, **ticket);
}

/// A VM that came from another node is here for good: now there is leave to close its disk too.
void Operations::note_leave(const Call& call) {
  const auto& insid = call.tid.instance;
  const auto& grant = call.command.database_grant;
  auto ticket = read_ticket(options_.layout, insid);
  const bool is_ours = ticket && *ticket && (*ticket)->joining == 0 && (*ticket)->epoch == call.command.epoch;
  if (!is_ours || grant.empty() || (*ticket)->grant == grant) return;
  (*ticket)->grant = grant;
  // It runs all the same, and its stop brings leave of its own.
  if (auto ok = write_ticket(options_.layout, insid, **ticket); !ok)
    obs::warn("database.leave_not_kept", {{"insid", insid.str()}, {"reason", ok.error().message}});
}

/// What this host has for it, whichever way it came.
void Operations::disconnect_database(const InstanceId& insid) {
  end_nbd_proxy(options_.layout.database_socket(insid));
  auto gone = remove_tree(options_.layout.database_keys(insid));
  if (gone) gone = hypervisor_.drop_disk_secret(insid);
  if (!gone) obs::warn("database.secret_kept", {{"insid", insid.str()}, {"reason", gone.error().message}});
}

/// The guest is gone: from here nobody may reach its disk any more. That it ended is told all the same if the
/// cc is away, since a higher epoch, a submit and a delete close it too.
void Operations::close_database(const Call& call) {
  close_database(call.tid.instance, call.command, call.stop);
}

void Operations::close_database(const InstanceId& insid, const msg::Command& command,
                                const std::stop_token& stop) {
  auto ticket = read_ticket(options_.layout, insid);
  if (ticket && !*ticket) return;
  disconnect_database(insid);
  if (has_newer_copy(insid)) return obs::warn("database.copy_kept", {{"insid", insid.str()}});
  auto disks = cc_disks();
  Result<> closed = disks ? Result<>{} : fail(disks.error());
  if (closed && ticket && (*ticket)->joining == 1) {
    closed = (*disks)->leave({insid, (*ticket)->epoch, (*ticket)->grant}, stop);
  } else if (closed && !command.database_grant.empty()) {
    closed = (*disks)->close(leave_of(insid, command), stop);
  } else if (closed && ticket) {
    closed = (*disks)->close({insid, (*ticket)->epoch, (*ticket)->grant}, stop);
  } else if (closed) {
    closed = fail(ticket.error());
  }
  if (closed) closed = drop_copy(insid);
  if (closed) closed = remove_file(options_.layout.database_ticket(insid));
  std::error_code ignored;
  const bool is_copy_here = ticket && std::filesystem::exists(options_.layout.database_copy(insid), ignored);
  // Only the newest copy makes the cc refuse this: it is here, whatever was known of it.
  if (!closed && closed.error().code == ErrorCode::conflict && is_copy_here) (void)note_newer(insid);
  if (!closed) obs::warn("database.not_closed", {{"insid", insid.str()}, {"reason", closed.error().message}});
}

/// Only who is given leave for it: a farewell to a node whose server is elsewhere now brings none.
Result<> Operations::remove_database(const Call& call) {
  if (call.command.database_grant.empty()) {
    return end_database(call, std::nullopt);
  }
  auto disks = cc_disks();
  if (!disks) return fail(disks.error());
  disconnect_database(call.tid.instance);
  return (*disks)->remove(leave_of(call.tid.instance, call.command), call.stop);
}

Result<> Operations::check_database_target(const msg::Command& command) const {
  if (command.database_target_imgid.empty()) return {};
  if (auto id = ImageId::parse(command.database_target_imgid); !id) return fail(id.error());
  if (command.database_target_version >= 1 && !command.database_grant.empty() &&
      !command.database_target_grant.empty())
    return {};
  return fail(ErrorCode::invalid_argument, "no leave to submit the database disk", "database_target_grant");
}

/// Its receipt.
Result<std::string> Operations::submit_database(const Call& call) {
  const auto& command = call.command;
  auto disks = cc_disks();
  if (!disks) return fail(disks.error());
  const auto& insid = call.tid.instance;
  const auto leave = leave_of(insid, command);
  const auto tell = teller(call, Event::uploading, kUploading, "uploading the database disk");
  tell(0, 0);
  if (auto ok = bring_back(call, std::pair(Event::uploading, kUploading)); !ok) return fail(ok.error());
  // It may be open still since it was prepared, or since a stop while the cc was away.
  if (auto ok = (*disks)->close(leave, call.stop); !ok) return fail(ok.error());
  if (auto ok = drop_copy(insid); !ok) return fail(ok.error());
  if (auto ok = remove_file(options_.layout.database_ticket(insid)); !ok) return fail(ok.error());
  const auto parent =
      command.database ? transfer::make_parent(command.database->imgid, command.database->version) : "";
  return (*disks)->submit({.leave = leave,
                           .imgid = command.database_target_imgid,
                           .version = command.database_target_version,
                           .grant = command.database_target_grant,
                           .parent = parent,
                           .cmdid = command.cmdid},
                          tell, call.stop);
}

bool Operations::has_open_database(const InstanceId& insid) const {
  std::error_code ignored;
  return std::filesystem::exists(options_.layout.database_ticket(insid), ignored);
}

/// libvirt may have been restarted since the VM began, and is about to start it again.
Result<> Operations::renew_disk_secret(const InstanceId& insid) {
  auto ticket = read_ticket(options_.layout, insid);
  if (!ticket) return fail(ticket.error());
  if (!*ticket || (*ticket)->secret.empty()) return {};
  return hypervisor_.set_disk_secret(insid, (*ticket)->secret);
}

Result<> Operations::make_scratch(VmSpec& spec) {
  const auto& layout = options_.layout;
  for (auto& extra : spec.extra) {
    if (extra.kind != ExtraDisk::Kind::data) continue;
    const DiskLayer base{layout.data_disk(), "raw"};
    if (auto ok = make_empty_disk(base.file, options_.limits.data_disk_bytes); !ok) return ok;
    const auto overlay = layout.data_overlay(spec.insid);
    if (auto ok = remove_file(overlay); !ok) return ok;
    if (auto ok = images_.make_overlay(base, options_.limits.data_disk_bytes, overlay); !ok) return ok;
    extra.layers = {{overlay, "qcow2"}, base};
  }
  return {};
}

}  // namespace educloud::nc
