#include "nc/app/snapshots.hpp"

#include <algorithm>

#include "common/msg/codec.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "nc/app/instance_record.hpp"
#include "nc/domain/vm_spec.hpp"
#include "nc/hypervisor/disk_snapshots.hpp"

namespace educloud::nc {
namespace {

constexpr std::size_t kMostNames = 64;  // clc allows fewer
constexpr std::size_t kFileBytes = 256 * 1024;
constexpr unsigned kSecret = 0600;

struct Order {
  std::vector<std::string> names;  ///< oldest first
  static constexpr auto fields() {
    return std::make_tuple(msg::field("names", &Order::names, msg::list(kMostNames)));
  }
};

const DiskSnapshot* find(const std::vector<DiskSnapshot>& all, const std::string& name) {
  const auto at =
      std::find_if(all.begin(), all.end(), [&](const DiskSnapshot& one) { return one.name == name; });
  return at == all.end() ? nullptr : &*at;
}

void note(std::string& why, const std::string& name, const std::string& reason) {
  obs::warn("snapshot.not_sound", {{"snapshot", name}, {"reason", reason}});
  why += (why.empty() ? "" : "; ") + name + " " + reason;
}

bool passes(const Error& error) {
  return error.code == ErrorCode::cancelled || error.code == ErrorCode::unavailable ||
         error.code == ErrorCode::timeout || error.code == ErrorCode::not_found;
}

std::string told(const std::string& name, const std::string& wanted, const std::string& why,
                 std::string how) {
  if (name == wanted) return "restored " + name + how;
  return "restored the older " + name + how + ", since " + why;
}

tl::unexpected<Error> none_sound(const std::string& wanted, const std::string& why) {
  return fail(ErrorCode::corrupt, "neither " + wanted + " nor an older snapshot can be used: " + why);
}

}  // namespace

Result<> check_snapshot_name(std::string_view name) {
  constexpr std::string_view kPrefix = "snap-";
  const auto digits = name.substr(std::min(name.size(), kPrefix.size()));
  const bool hex = digits.find_first_not_of("0123456789abcdef") == digits.npos;
  if (name.starts_with(kPrefix) && digits.size() == 8 && hex) return {};
  return fail(ErrorCode::invalid_argument, "a snapshot is named snap- and 8 hex digits", "snapshot");
}

Result<std::optional<VmState>> Snapshots::state_of(const InstanceId& insid) {
  auto state = hypervisor_.state(insid);
  if (state) return std::optional(*state);
  if (state.error().code == ErrorCode::not_found) return std::nullopt;
  return fail(state.error());
}

Result<> Snapshots::need_overlay(const InstanceId& insid) const {
  std::error_code ignored;
  if (std::filesystem::exists(layout_.overlay(insid), ignored)) return {};
  return fail(ErrorCode::conflict,
              keeps_overlay(insid)
                  ? insid.str() + " was not started yet: there is no disk of its own"
                  : insid.str() + " does not run: what a desktop wrote, and its snapshots, end with its run");
}

Result<std::vector<std::string>> Snapshots::order(const InstanceId& insid) const {
  auto text = sys::read_file(layout_.snapshots(insid), kFileBytes);
  if (!text && text.error().code == ErrorCode::not_found) return std::vector<std::string>{};
  if (!text) return fail(text.error());
  auto known = msg::parse<Order>(*text);
  if (!known) return fail(known.error(), layout_.snapshots(insid).string());
  return std::move(known->names);
}

Result<> Snapshots::keep_order(const InstanceId& insid, const std::vector<std::string>& names) const {
  return sys::write_file_atomically(layout_.snapshots(insid), msg::serialize(Order{names}), kSecret);
}

Result<std::vector<std::string>> Snapshots::candidates(const InstanceId& insid,
                                                       const std::string& name) const {
  auto names = order(insid);
  if (!names) return names;
  const auto at = std::find(names->begin(), names->end(), name);
  if (at == names->end()) return std::vector{name};
  names->erase(at + 1, names->end());
  std::reverse(names->begin(), names->end());
  return names;
}

Result<SnapshotDone> Snapshots::take(const InstanceId& insid, const std::string& name, bool with_memory,
                                     const std::stop_token& stop) {
  if (auto ok = need_overlay(insid); !ok) return fail(ok.error());
  auto names = order(insid);
  if (!names) return fail(names.error());
  auto state = state_of(insid);
  if (!state) return fail(state.error());
  const auto overlay = layout_.overlay(insid);
  SnapshotDone done{*state, name, "kept as " + name};
  if (*state) {
    if (auto ok = hypervisor_.take_snapshot(insid, overlay, name, with_memory, stop); !ok)
      return fail(ok.error());
    if (with_memory) done.prompt += ", with the guest's memory";
  } else {
    auto known = list_snapshots(overlay);
    if (!known) return fail(known.error());
    if (find(*known, name) == nullptr) {
      if (auto ok = create_snapshot(overlay, name); !ok) return fail(ok.error());
    }
    if (with_memory) done.prompt += "; the VM does not run, so there was no memory to keep";
  }
  if (std::find(names->begin(), names->end(), name) == names->end()) names->push_back(name);
  if (names->size() > kMostNames) names->erase(names->begin());
  if (auto ok = keep_order(insid, *names); !ok) return fail(ok.error());
  return done;
}

Result<std::string> Snapshots::apply_first(const InstanceId& insid, std::vector<std::string> names,
                                           std::string& why) {
  const auto overlay = layout_.overlay(insid);
  auto known = list_snapshots(overlay);
  if (!known) return fail(known.error());
  for (const auto& name : names) {
    if (find(*known, name) == nullptr) {
      note(why, name, "is not in the disk any more");
      continue;
    }
    auto applied = apply_snapshot(overlay, name);
    if (applied) return name;
    note(why, name, "cannot be read (" + applied.error().message + ")");
  }
  return none_sound(names.front(), why);
}

Result<SnapshotDone> Snapshots::restore_stopped(const InstanceId& insid, std::vector<std::string> names,
                                                std::string why) {
  const std::string wanted = names.front();
  auto applied = apply_first(insid, std::move(names), why);
  if (!applied) return fail(applied.error());
  return SnapshotDone{std::nullopt, *applied, told(*applied, wanted, why, " to the disk of the stopped VM")};
}

Result<SnapshotDone> Snapshots::restore_off_and_on(const InstanceId& insid, std::vector<std::string> names,
                                                   std::string why) {
  const std::string wanted = names.front();
  const auto file = layout_.recipe(insid);
  auto recipe = is_between(insid) ? sys::read_file(file, kFileBytes) : hypervisor_.recipe(insid);
  if (!recipe) return fail(recipe.error());
  // From here on a kill leaves what it takes to switch the VM on again.
  if (auto ok = sys::write_file_atomically(file, *recipe, kSecret); !ok) return fail(ok.error());
  if (auto ok = hypervisor_.destroy(insid); !ok) return fail(ok.error());
  auto applied = apply_first(insid, std::move(names), why);
  auto started = hypervisor_.start_again(*recipe);
  if (started || !passes(started.error())) {
    if (auto ok = remove_file(file); !ok) return fail(ok.error());
  }
  if (!started) return fail(started.error());
  if (!applied) return fail(applied.error());
  return SnapshotDone{VmState::running, *applied,
                      told(*applied, wanted, why, "; the VM was switched off and on for it")};
}

Result<SnapshotDone> Snapshots::restore(const InstanceId& insid, const std::string& name,
                                        const std::stop_token& stop) {
  if (auto ok = need_overlay(insid); !ok) return fail(ok.error());
  auto names = candidates(insid, name);
  if (!names) return fail(names.error());
  auto state = state_of(insid);
  if (!state) return fail(state.error());
  std::string why;
  if (!*state && is_between(insid)) return restore_off_and_on(insid, std::move(*names), why);
  if (!*state) return restore_stopped(insid, std::move(*names), why);
  const auto overlay = layout_.overlay(insid);
  auto known = hypervisor_.snapshots(insid, overlay);
  if (!known) return fail(known.error());
  bool is_broken = false;
  for (auto at = names->begin(); at != names->end(); ++at) {
    const auto* one = find(*known, *at);
    if (one == nullptr) {
      note(why, *at, "is not in the disk any more");
      continue;
    }
    if (!one->with_memory) {
      auto done = restore_off_and_on(insid, {at, names->end()}, why);
      if (done && *at != name)
        done->prompt = told(done->snapshot, name, why, "; the VM was switched off and on");
      return done;
    }
    auto loaded = hypervisor_.load_snapshot(insid, overlay, *at, stop);
    if (loaded) {
      state = state_of(insid);
      if (!state) return fail(state.error());
      return SnapshotDone{*state, *at, told(*at, name, why, ", with the guest's memory")};
    }
    if (passes(loaded.error())) return fail(loaded.error());
    is_broken = true;
    note(why, *at, "cannot be read (" + loaded.error().message + ")");
  }
  if (is_broken) {
    // Its memory may be half of then and half of now.
    if (auto ok = hypervisor_.reset(insid); !ok) return fail(ok.error());
    if (auto ok = hypervisor_.resume(insid); !ok) return fail(ok.error());
    why += "; the VM was reset";
  }
  return none_sound(name, why);
}

Result<SnapshotDone> Snapshots::remove(const InstanceId& insid, const std::string& name) {
  auto state = state_of(insid);
  if (!state) return fail(state.error());
  SnapshotDone done{*state, name, "snapshot " + name + " is gone"};
  std::error_code ignored;
  const auto overlay = layout_.overlay(insid);
  if (!std::filesystem::exists(overlay, ignored)) return done;
  if (*state) {
    if (auto ok = hypervisor_.drop_snapshot(insid, overlay, name); !ok) return fail(ok.error());
  } else {
    auto known = list_snapshots(overlay);
    if (!known) return fail(known.error());
    if (find(*known, name) != nullptr) {
      if (auto ok = delete_snapshot(overlay, name); !ok) return fail(ok.error());
    }
  }
  auto names = order(insid);
  if (!names) return fail(names.error());
  if (std::erase(*names, name) == 0) return done;
  if (auto ok = keep_order(insid, *names); !ok) return fail(ok.error());
  return done;
}

Result<> Snapshots::clear(const InstanceId& insid) {
  std::error_code ignored;
  const auto overlay = layout_.overlay(insid);
  // Most never had one: that costs no process.
  if (!std::filesystem::exists(layout_.snapshots(insid), ignored)) return {};
  if (std::filesystem::exists(overlay, ignored)) {
    auto known = list_snapshots(overlay);
    if (!known) return fail(known.error());
    for (const auto& one : *known) {
      if (auto ok = delete_snapshot(overlay, one.name); !ok) return ok;
    }
  }
  return forget(insid);
}

Result<> Snapshots::forget(const InstanceId& insid) const {
  if (auto ok = remove_file(layout_.recipe(insid)); !ok) return ok;
  return remove_file(layout_.snapshots(insid));
}

bool Snapshots::is_between(const InstanceId& insid) const {
  std::error_code ignored;
  return std::filesystem::exists(layout_.recipe(insid), ignored);
}

}  // namespace educloud::nc
