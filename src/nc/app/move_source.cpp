// instance/migrate at the node that the VM leaves (ADR 11).
#include "common/msg/codec.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "common/sys/pause.hpp"
#include "nc/app/lease_file.hpp"
#include "nc/app/operations.hpp"

namespace educloud::nc {

using task::Event;
using task::Phase;
using task::State;

namespace {

constexpr task::TaskState kMigrating{Phase::editing, State::migrating};
constexpr task::TaskState kRunning{Phase::editing, State::running};
constexpr unsigned kSecret = 0600;
constexpr std::size_t kMarkBytes = 4096;
constexpr std::chrono::minutes kAnswerPatience{5};  ///< less than clc's with an operation
constexpr std::chrono::milliseconds kAskAgain{500};

/// VMs/<insid>/move.json: how far a move got.
struct Mark {
  std::string cmdid;
  int handed = 0;  ///< 1: the other node may let it run from now on

  static constexpr auto fields() {
    using T = Mark;
    return std::make_tuple(msg::field("cmdid", &T::cmdid, msg::text(36, 36)),
                           msg::option("handed", &T::handed, msg::range(0, 1)));
  }
};

Result<std::optional<Mark>> read_mark(const Layout& layout, const InstanceId& insid) {
  auto text = sys::read_file(layout.move_mark(insid), kMarkBytes);
  if (!text && text.error().code == ErrorCode::not_found) return std::nullopt;
  if (!text) return fail(text.error());
  auto mark = msg::parse<Mark>(*text);
  if (!mark) return fail(mark.error(), layout.move_mark(insid).string());
  return std::optional(std::move(*mark));
}

Result<> write_mark(const Layout& layout, const InstanceId& insid, const Mark& mark) {
  return sys::write_file_atomically(layout.move_mark(insid), msg::serialize(mark), kSecret);
}

/// The command as the other node is to have it.
msg::Command for_target(const msg::Command& command, const VmInfo& vm) {
  const auto& to = *command.move;
  msg::Command out = command;
  out.move.reset();
  out.nid = to.nid;
  out.source_grant = to.source_grant;
  out.database_grant = to.database_grant;
  auto& option = *out.runtime_option;
  option.rdp_port = to.rdp_port;
  option.web_port = to.web_port;
  option.rdp_ip = option.web_ip = to.address;
  // As it is, whatever its type says by now: the two must be alike.
  option.memory_mib = vm.memory_mib;
  option.cpus = vm.cpus;
  return out;
}

}  // namespace

bool Operations::is_handed_over(const InstanceId& insid) const {
  const auto mark = read_mark(options_.layout, insid);
  // One that cannot be read may say so.
  return !mark || (*mark && (*mark)->handed == 1);
}

MovePlaces Operations::places(const InstanceId& insid) const {
  const auto folder = options_.layout.move_folder(insid);
  return {.folder = options_.layout.instance(insid), .memory = folder / "memory", .disks = folder / "disks"};
}

Result<> Operations::make_move_folder(const InstanceId& insid) const {
  const auto folder = options_.layout.move_folder(insid);
  if (auto ok = remove_tree(folder); !ok) return ok;
  if (auto ok = sys::make_directories(folder, 0770); !ok) return ok;
  const auto& group = options_.moves.socket_group;
  if (group && ::lchown(folder.c_str(), static_cast<uid_t>(-1), *group) != 0)
    return fail(errno_error("chown " + folder.string(), errno));
  return {};
}

/// What cannot go along.
Result<> Operations::may_leave(const Call& call) {
  const auto& insid = call.tid.instance;
  if (keeps_overlay(insid))
    return fail(ErrorCode::conflict, "an image that is being changed stays on its node: submit it first");
  const auto& option = *call.command.runtime_option;
  if (!option.folders.empty() && option.folder_protocol == "virtiofs") {
    return fail(ErrorCode::conflict,
                "a VM with folders by virtiofs cannot move: define it with --folders smb and start it again");
  }
  if (auto ok = has_no_copy(insid); !ok) return ok;
  auto record = read_record(options_.layout, insid);
  if (!record) return fail(record.error());
  if (*record && (*record)->lazy)
    return fail(ErrorCode::conflict, "its image is still arriving: try again when it is here");
  auto kept = hypervisor_.snapshots(insid, options_.layout.overlay(insid));
  if (!kept) return fail(kept.error());
  if (!kept->empty())
    return fail(ErrorCode::conflict, "it has snapshots, which cannot move: delete them first");
  return {};
}

Result<> Operations::leave(const Call& call, MoveLink& link) {
  const auto& insid = call.tid.instance;
  const auto& to = call.command.move->nid;
  auto vm = find_vm(insid);
  if (!vm) return fail(vm.error());
  if (!*vm) return fail(ErrorCode::not_found, "VM " + insid.str() + " does not run");
  const auto getting_ready = teller(call, Event::migrating, kMigrating, to + " gets ready");
  getting_ready(0, 0);
  if (auto ok = link.prepare(for_target(call.command, **vm), getting_ready, call.stop); !ok)
    return fail(ok.error(), "node " + to + " does not take it");
  if (auto ok = make_move_folder(insid); !ok) return ok;
  const auto at = places(insid);
  if (auto ok = link.open_channel(at.disks, "disks"); !ok) return ok;
  if (auto ok = link.open_channel(at.memory, "memory"); !ok) return ok;
  const auto disks = teller(call, Event::migrating, kMigrating, "copying its disks to " + to);
  const auto memory = teller(call, Event::migrating, kMigrating, "copying its memory to " + to);
  const auto moved = [&](const MoveProgress& now) {
    (now.step == MoveStep::disks ? disks : memory)(now.done, now.total);
  };
  link.show_life();
  return hypervisor_.send_away(insid, at, moved, call.stop);
}

/// The VM goes on here. Only while the other node cannot have it.
Result<> Operations::stay(const InstanceId& insid, MoveLink& link) {
  link.close();
  if (auto ok = link.drop(); !ok)
    obs::warn("move.not_dropped", {{"insid", insid.str()}, {"reason", ok.error().message}});
  if (auto ok = hypervisor_.keep_here(insid); !ok && ok.error().code != ErrorCode::not_found) return ok;
  if (auto ok = remove_tree(options_.layout.move_folder(insid)); !ok) return ok;
  return remove_file(options_.layout.move_mark(insid));
}

/// It is the other node's now.
Result<> Operations::let_go(const Call& call) {
  const auto& insid = call.tid.instance;
  if (auto ended = end_vm(call, std::chrono::milliseconds{0}); !ended) return fail(ended.error());
  disconnect_database(insid);
  const auto dropped = drop_overlay(insid);
  // The mark stays until the next start: whoever does this again finds that it was handed over.
  const auto removed = remove_tree(options_.layout.move_folder(insid));
  return dropped ? removed : dropped;
}

/// All of it is there, and it stands still here. From the first question on, only the other node knows
/// whether it runs there.
Operations::Final Operations::hand_over(const Call& call, MoveLink& link) {
  const auto& insid = call.tid.instance;
  const auto& to = call.command.move->nid;
  const auto deadline = std::chrono::steady_clock::now() + kAnswerPatience;
  for (;;) {
    auto taken = link.take_over(call.stop);
    if (taken) break;
    if (taken.error().code == ErrorCode::not_found) {
      if (auto ok = stay(insid, link); !ok) return fail(ok.error());
      return fail(ErrorCode::unavailable, "node " + to + " lost it on the way: it runs on here");
    }
    if (call.stop.stop_requested()) return fail(ErrorCode::cancelled, "interrupted");
    progress(call, Event::migrating, kMigrating, 100, 0, 0, "waiting for node " + to);
    if (std::chrono::steady_clock::now() > deadline) {
      return fail(ErrorCode::timeout, "node " + to + " has the VM and does not answer (" +
                                          taken.error().message +
                                          "): it stands still here; stop it and start it again");
    }
    (void)sys::pause(kAskAgain, call.stop);
  }
  link.close();
  if (auto ok = let_go(call); !ok) {
    if (call.stop.stop_requested()) return fail(ErrorCode::cancelled, "interrupted");
    // The move has not failed, else clc would end the one that runs. Its farewell does this again.
    obs::error("vm.not_let_go", {{"tid", call.tid.str()}, {"reason", ok.error().message}});
  }
  obs::info("vm.moved", {{"tid", call.tid.str()}, {"to", to}});
  return final_report(call, Event::running, kRunning, "it runs on " + to + " now");
}

Operations::Final Operations::move_vm(const Call& call) {
  const auto& command = call.command;
  const auto& insid = call.tid.instance;
  if (!command.move || !command.runtime_option || !command.source)
    return fail(ErrorCode::invalid_argument, "instance/migrate without its target", "move");
  MoveLink link(options_.moves, insid, *command.move);
  auto mark = read_mark(options_.layout, insid);
  if (!mark) return fail(mark.error());
  if (*mark && (*mark)->handed == 1) {
    if ((*mark)->cmdid == command.cmdid) return hand_over(call, link);
    return fail(ErrorCode::conflict, "another node may have the VM: stop it, and start it again");
  }
  if (*mark) {
    if (auto ok = stay(insid, link); !ok) return fail(ok.error());
    return fail(ErrorCode::unavailable, "the node's daemon was restarted meanwhile: it runs on here");
  }
  auto state = state_of(call);
  if (!state) return fail(state.error());
  if (*state != VmState::running) return fail(ErrorCode::conflict, "it is paused: resume it first");
  if (auto ok = may_leave(call); !ok) return fail(ok.error());
  if (auto ok = write_mark(options_.layout, insid, {command.cmdid, 0}); !ok) return fail(ok.error());
  auto left = leave(call, link);
  // Durable before the other node is asked for the first time.
  if (left) left = write_mark(options_.layout, insid, {command.cmdid, 1});
  if (left) return hand_over(call, link);
  if (auto ok = stay(insid, link); !ok)
    return fail(left.error(), "it may stand still (" + ok.error().message + ")");
  return fail(left.error());
}

}  // namespace educloud::nc
