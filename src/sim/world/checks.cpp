#include "sim/world/checks.hpp"

#include <set>

#include "clc/store/tasks.hpp"
#include "common/task/table.hpp"

namespace educloud::sim {
namespace {

/// A desktop whose old node was cut off may run twice for a while; so long after the last fault it must not.
constexpr std::int64_t kTwiceMs = 90'000;

bool is_exclusive(const std::string& insid) {
  return insid.starts_with("TMP") || insid.starts_with("VS");
}

template <class T>
std::optional<T> read(World& world, std::function<Result<T>(clc::store::Sql&)> work) {
  if (!world.clc->is_up()) return std::nullopt;
  auto out = world.clc->store().read(std::move(work));
  if (!out) world.surroundings.defect("the database cannot be read: " + out.error().message);
  return out ? std::optional(std::move(*out)) : std::nullopt;
}

}  // namespace

void Checks::now() {
  look_at_nodes();
  look_at_clc();
}

void Checks::look_at_nodes() {
  const auto now = world_.timeline.now_ms();
  std::map<std::string, std::string> where;
  std::set<std::string> twice;
  for (const auto& nc : world_.ncs) {
    std::map<int, std::string> ports;
    for (const auto& vm : nc->vms()) {
      const auto [at, fresh] = where.emplace(vm.insid, nc->name());
      if (!fresh) {
        if (is_exclusive(vm.insid)) {
          world_.surroundings.defect(vm.insid + " runs on " + at->second + " and on " + nc->name());
        }
        twice.insert(vm.insid);
      }
      for (const int port : {vm.display_port, vm.web_port}) {
        const auto [other, free] = ports.emplace(port, vm.insid);
        if (port != 0 && !free) {
          world_.surroundings.defect("port " + std::to_string(port) + " of " + nc->name() + " is used by " +
                                     other->second + " and " + vm.insid);
        }
      }
    }
  }
  std::erase_if(twice_since_, [&](const auto& one) { return !twice.contains(one.first); });
  for (const auto& insid : twice) {
    const auto since = std::max(twice_since_.try_emplace(insid, now).first->second, healed_at_.value_or(now));
    if (healed_at_ && now - since > kTwiceMs)
      world_.surroundings.defect(insid + " runs on two nodes for more than 90 s");
  }
}

void Checks::look_at_clc() {
  const auto reserved = read<std::vector<clc::Reservation>>(
      world_, [](clc::store::Sql& sql) -> Result<std::vector<clc::Reservation>> {
        auto all = clc::store::reservations(sql);
        // Counted until the node has answered, though a task that was stopped holds nothing there.
        std::erase_if(all, [&](const auto& one) {
          const auto task = clc::store::open_task_of_instance(sql, one.insid);
          return !task || task->state.state == task::State::deleting;
        });
        return all;
      });
  if (!reserved) return;
  for (const auto& nc : world_.ncs) {
    std::int64_t memory_mib = 0;
    int cpus = 0;
    for (const auto& one : *reserved) {
      if (one.node != nc->name()) continue;
      memory_mib += one.memory_mib;
      cpus += one.cpus;
    }
    const auto& limits = world_.clc->cloud().options().placement;
    if (memory_mib + limits.reserve_mib > nc->options().memory_mib ||
        cpus > static_cast<double>(nc->options().cpus) * limits.cpu_overcommit) {
      world_.surroundings.defect("clc promised " + std::to_string(memory_mib) + " MiB and " +
                                 std::to_string(cpus) + " cpus of node " + nc->name());
    }
  }
}

std::string Checks::difference() {
  if (!world_.users->are_content()) return "users want something else: " + world_.users->complaint();
  const auto open = read<std::vector<clc::Task>>(
      world_,
      [](clc::store::Sql& sql) -> Result<std::vector<clc::Task>> { return clc::store::open_tasks(sql); });
  if (!open) return "clc is down";
  std::map<std::string, std::string> wanted;  // insid -> node
  constexpr task::TaskState kRunning{task::Phase::editing, task::State::running};
  for (const auto& task : *open) {
    if (task.state == kRunning) wanted[task.insid] = task.node;
    if (task::is_transient(task.state) && !task.failed)
      return "task " + task.tid + " is at " + std::string(to_string(task.state.state));
  }
  for (const auto& nc : world_.ncs) {
    for (const auto& vm : nc->vms()) {
      const auto at = wanted.find(vm.insid);
      if (at == wanted.end()) return vm.insid + " runs on " + nc->name() + ", which clc does not know";
      if (at->second != nc->name()) return vm.insid + " runs on " + nc->name() + " and not on " + at->second;
      wanted.erase(at);
    }
  }
  if (!wanted.empty()) return wanted.begin()->first + " should run on " + wanted.begin()->second;
  return {};
}

std::string Checks::leftovers() {
  if (!world_.users->desks().empty() || !world_.users->edits().empty())
    return "users wait: " + world_.users->complaint();
  struct Counts {
    std::int64_t tasks = 0, ports = 0, instances = 0, outbox = 0;
  };
  const auto counts = read<Counts>(world_, [](clc::store::Sql& sql) -> Result<Counts> {
    return Counts{sql.number("SELECT COUNT(*) FROM tasks WHERE state <> 'gone'"),
                  sql.number("SELECT COUNT(*) FROM ports"), sql.number("SELECT COUNT(*) FROM instances"),
                  sql.number("SELECT COUNT(*) FROM outbox")};
  });
  if (!counts) return "clc is down";
  if (counts->tasks > 0) return std::to_string(counts->tasks) + " tasks are open";
  if (counts->ports > 0) return std::to_string(counts->ports) + " ports are taken";
  if (counts->instances > 0) return std::to_string(counts->instances) + " instances are there";
  if (counts->outbox > 0) return std::to_string(counts->outbox) + " messages are in the outbox";
  for (const auto& nc : world_.ncs) {
    if (!nc->vms().empty()) return nc->vms().front().insid + " runs on " + nc->name();
    if (!nc->folders().empty()) return nc->folders().front() + " is left on the disk of " + nc->name();
    if (nc->unfinished() > 0) return "node " + nc->name() + " has unfinished commands";
  }
  if (world_.broker.waiting() > 0) return "messages wait in the broker";
  return {};
}

void Checks::at_the_end() {
  const auto versions =
      read<std::vector<clc::Version>>(world_, [&](clc::store::Sql& sql) -> Result<std::vector<clc::Version>> {
        std::vector<clc::Version> all;
        for (const auto& imgid : world_.images) {
          for (auto& one : clc::store::list_versions(sql, imgid)) all.push_back(std::move(one));
        }
        return all;
      });
  if (!versions) return;
  for (const auto& one : *versions) {
    const auto& held = world_.walrus.images().at(one.imgid).versions;
    const auto at = held.find(one.version);
    if (at == held.end() || at->second.digest != one.digest)
      world_.surroundings.defect(one.imgid + " version " + std::to_string(one.version) + " is not at walrus");
  }
}

}  // namespace educloud::sim
