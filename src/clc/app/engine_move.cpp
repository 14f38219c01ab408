// A VM that runs goes on on another node (ADR 11).
#include "clc/app/engine.hpp"
#include "clc/domain/vm_disks.hpp"
#include "clc/store/accounts.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::clc {

using task::Event;

namespace {

constexpr std::int64_t kFarewellMs = 3'600'000;
constexpr std::int64_t kMoveSeconds = 6 * 3600;  // an image may have to arrive there first

/// Under which a VM's ports on the node that it goes to are booked meanwhile.
constexpr std::string_view kDisplayTo = "display.to", kWebTo = "web.to";

/// `port` of `node`, of which another node tells, if it may be one of `insid`; else 0.
int adoptable_port(store::Sql& sql, std::string_view node, std::string_view insid, int port, int first,
                   int last) {
  if (port < first || port > last) return 0;
  const auto taken =
      sql.one("SELECT 1 FROM ports WHERE node = ? AND port = ? AND insid <> ?", {node, port, insid});
  return taken ? 0 : port;
}

}  // namespace

/// What cannot go along.
Result<> Engine::may_move(store::Sql& sql, const Task& task) const {
  if (auto row = user_transition(task, Event::operate); !row) return fail(row.error());
  if (task.kind != TaskKind::run)
    return fail(ErrorCode::conflict, "an image that is being changed stays on its node: submit it first");
  if (task.state.state == task::State::paused)
    return fail(ErrorCode::conflict, "instance " + task.insid + " is paused: resume it first");
  const auto instance = store::find_instance(sql, task.insid);
  const auto image = store::find_image(sql, task.src);
  if (!instance || !image)
    return fail(ErrorCode::not_found, "instance " + task.insid + " is not there any more");
  const auto ostype = store::find_ostype(sql, image->ostype);
  const bool as_os = instance->folder_protocol.empty();
  if ((as_os && ostype && ostype->folder_protocol == "virtiofs") || instance->folder_protocol == "virtiofs") {
    return fail(ErrorCode::conflict,
                "instance " + task.insid +
                    " has its folders by virtiofs, which cannot move: educloud vm set " + task.insid +
                    " --folders smb, for its next start; or stop it and start it elsewhere");
  }
  return {};
}

/// Among the other nodes of its cluster: those reach each other.
Result<NodeFacts> Engine::choose_target(store::Sql& sql, const Task& task, const std::string& wanted) const {
  const auto instance = store::find_instance(sql, task.insid);
  const auto version = store::find_version(sql, task.src, task.source_version);
  if (!instance || !version)
    return fail(ErrorCode::not_found, "the instance or version of " + task.tid + " is not there any more");
  if (wanted == task.node)
    return fail(ErrorCode::conflict, "instance " + task.insid + " runs on " + wanted + " already", "node");
  if (!wanted.empty() && !store::find_node(sql, wanted))
    return fail(ErrorCode::not_found, "there is no node " + wanted, "node");
  if (wanted.empty() && !instance->node_pin.empty())
    return fail(ErrorCode::conflict, "instance " + task.insid + " is pinned to node " + instance->node_pin);
  const auto limits = outlives_its_task(task.insid) && has_database_disk(task, "")
                          ? server_limits(options_.placement)
                          : options_.placement;
  PlacementRequest request;
  request.insid = task.insid;
  request.memory_mib = instance->memory_mib;
  request.cpus = instance->cpus;
  request.image_mib = version->size_bytes >> 20;
  request.cluster_pin = task.cluster;
  request.node_pin = wanted;
  request.disk_cluster = instance->disk_cluster;
  const auto snapshots =
      heartbeats_.snapshots(store::list_nodes(sql), task.src, task.source_version, limits.max_age_ms);
  for (const auto& one : snapshots) {
    const auto real = one.sizes.find(task.insid);
    if (one.host != task.node || real == one.sizes.end()) continue;
    // It comes along as it runs, also if its definition is another for its next start.
    const auto size = started_size(real->second, {request.memory_mib, request.cpus}, true);
    request.memory_mib = size.memory_mib;
    request.cpus = size.cpus;
  }
  auto nodes = facts_of(snapshots, store::reservations(sql), task.insid);
  std::erase_if(nodes, [&](const NodeFacts& one) { return one.host == task.node; });
  if (const auto* chosen = choose(nodes, request, limits)) return *chosen;
  return fail(refusal(decide(nodes, request, limits), request));
}

Result<msg::Move> Engine::move_to(store::Sql& sql, const Task& task, const NodeFacts& target) {
  msg::Move move;
  move.nid = target.host;
  const auto beat = heartbeats_.node(target.host, target.cluster);
  if (!beat || beat->status.net_data.ip0.empty() || beat->status.service_data.data_port == 0)
    return fail(ErrorCode::unavailable, "node " + target.host + " has not told yet where it is reached");
  move.address = beat->status.net_data.ip0;
  move.port = beat->status.service_data.data_port;
  const std::int64_t expires_s = now() / 1000 + kMoveSeconds;
  // With the key that only this one node and we have: it lets in whom we send.
  move.grant = transfer::sign_grant(transfer::derive_node_key(options_.data_key, target.host),
                                    {"PUT", "/migrations/" + task.insid, target.host, expires_s});
  move.source_grant = transfer::sign_grant(
      options_.data_key,
      {"GET", transfer::version_path(task.src, task.source_version), target.host, expires_s});
  if (has_database_disk(task, "")) move.database_grant = disk_move_grant(task.insid, task.epoch, target.host);
  move.rdp_port = store::take_port(sql, target.host, kDisplayTo, task.insid, options_.display_port_first,
                                   options_.display_port_last);
  move.web_port =
      store::take_port(sql, target.host, kWebTo, task.insid, options_.web_port_first, options_.web_port_last);
  if (move.rdp_port != 0 && move.web_port != 0) return move;
  leave_ports(sql, task.insid);
  return fail(ErrorCode::exhausted, "node " + target.host + " has no free display or web port");
}

Result<Task> Engine::move_vm(store::Sql& sql, Task task, const std::string& wanted) {
  if (auto ok = may_move(sql, task); !ok) return fail(ok.error());
  auto target = choose_target(sql, task, wanted);
  if (!target) return fail(target.error());
  // Of whatever comes after a move that failed, the one that was to run there is older.
  ++task.epoch;
  auto move = move_to(sql, task, *target);
  if (!move) return fail(move.error());
  Operation operation;
  operation.op = "instance/migrate";
  operation.move = std::move(*move);
  const std::string insid = task.insid;
  auto done = operate(sql, std::move(task), std::move(operation));
  if (!done) leave_ports(sql, insid);
  return done;
}

/// True if it is on its way to another node. One that was refused there once is not sent again.
bool Engine::move_off(store::Sql& sql, const Task& task) {
  if (task.state.state != task::State::running || task.prompt == kStays) return false;
  auto moving = move_vm(sql, task, "");
  if (moving) {
    obs::info("task.drained", {{"tid", task.tid}, {"node", task.node}, {"how", "moves"}});
    return true;
  }
  obs::info("task.not_moved", {{"tid", task.tid}, {"node", task.node}, {"reason", moving.error().message}});
  return false;
}

/// The move of `task` is over, and it is where it was.
void Engine::end_move(store::Sql& sql, Task& task, Event event) {
  leave_ports(sql, task.insid);
  if (event == Event::refused && leaves(sql, task)) task.prompt = kStays;
}

/// What the node of that order has of the VM, which does not come to it, goes.
void Engine::turn_away(store::Sql& sql, const std::string& order) {
  const auto command = msg::parse<msg::Command>(order);
  if (!command || !command->move) return;
  farewell(sql, {command->tid, command->move->nid, command->ccid, command->epoch, command->attempt + 1});
}

/// A move that began before our database was restored, as the node that has the VM tells of it.
msg::Move Engine::adopt_move(store::Sql& sql, const Task& task, const msg::InventoryTask& told) {
  msg::Move move;
  move.nid = told.moves_to;
  move.rdp_port = adoptable_port(sql, move.nid, task.insid, told.rdp_port, options_.display_port_first,
                                 options_.display_port_last);
  move.web_port = adoptable_port(sql, move.nid, task.insid, told.web_port, options_.web_port_first,
                                 options_.web_port_last);
  if (move.rdp_port != 0) store::hold_port(sql, move.nid, kDisplayTo, task.insid, move.rdp_port);
  if (move.web_port != 0) store::hold_port(sql, move.nid, kWebTo, task.insid, move.web_port);
  // With what leave, and where, that node has from the order itself.
  move.address = "0.0.0.0";
  move.port = 1;
  move.grant = "-";
  // Of another run since then?
  const bool is_next = told.epoch == task.epoch + 1 && told.attempt == task.attempt + 1;
  if (!is_next) store::set_display_password(sql, task.insid, "");
  return move;
}

/// The ports on the node that it did not go to are free again.
void Engine::leave_ports(store::Sql& sql, const std::string& insid) {
  store::free_port(sql, insid, kDisplayTo);
  store::free_port(sql, insid, kWebTo);
}

Result<> Engine::moved(store::Sql& sql, Task task, const task::Transition& row,
                       const msg::TaskStatus& status) {
  const auto command = msg::parse<msg::Command>(task.command);
  const auto to = command && command->move ? *command->move : msg::Move{};
  const auto node = store::find_node(sql, to.nid);
  if (!node || node->cluster != task.cluster) {
    const auto failed = task::step(task.state, Event::failed);
    if (!failed) return fail(ErrorCode::internal, "no way to fail from here");
    msg::TaskStatus told = status;
    told.errormsg = "it went on on another node, which is not known here" +
                    (to.nid.empty() ? "" : " (" + to.nid + ")") + ": start it again, and it begins afresh";
    return apply(sql, task, *failed, &told);
  }
  const Task old = task;
  task = after_event(std::move(task), row, &status, now());
  say_farewell(sql, old, kFarewellMs);
  task.node = to.nid;
  task.leaves_at = 0;
  task.placement = to.nid + ": it moved here from " + old.node + " while it ran\n";
  // Without one, send() takes the next that is free.
  if (to.rdp_port != 0) store::hold_port(sql, to.nid, "display", task.insid, to.rdp_port);
  if (to.web_port != 0) store::hold_port(sql, to.nid, "web", task.insid, to.web_port);
  // It runs there; that node takes the task over with this, and keeps the VM as it is.
  adopts_ = true;
  auto sent = send(sql, task, "image/run");
  adopts_ = false;
  if (!sent) return sent;
  store::update_task(sql, task);
  changed(sql, task);
  store::audit(sql, now(), "clc", "vm.moved", task.insid, old.node + " to " + task.node);
  obs::info("task.moved", {{"tid", task.tid}, {"from", old.node}, {"to", task.node}});
  obs::metrics().count("educloud_clc_tasks_moved_total", "VMs that went on on another node while they ran");
  return {};
}

}  // namespace educloud::clc
