#include "nc/cache/flattener.hpp"

#include <unistd.h>

#include <thread>

#include "common/obs/log.hpp"
#include "nc/cache/chunk_writer.hpp"

namespace educloud::nc {
namespace {

constexpr std::uint64_t kMargin = 64ull << 20;
constexpr std::size_t kLookUpEvery = 64;
constexpr std::chrono::milliseconds kPause{100};

Result<> copy_all(FillState& state, const std::function<bool()>& may_go_on, const std::stop_token& stop) {
  FillCounters counters;
  ChunkWriter writer(state, counters);
  std::size_t done = 0;
  for (const auto at : state.plan.fetch) {
    while (done++ % kLookUpEvery == 0 && !may_go_on() && !stop.stop_requested())
      std::this_thread::sleep_for(kPause);
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "stopped");
    if (auto copied = writer.add_copy(at, at); !copied) return copied;
  }
  if (auto flushed = writer.flush(); !flushed) return flushed;
  return state.target->sync();
}

}  // namespace

Result<> flatten(LocalVersions& local, const image::VersionInfo& info, const std::function<bool()>& may_go_on,
                 std::stop_token stop) {
  auto map = local.map(info.image, info.version);
  if (!map) return fail(map.error());
  auto disk = local.open_disk(info.image, info.version);
  if (!disk) return fail(disk.error());
  auto staged = local.store().staging(info.image + "-" + std::to_string(info.version) + ".flat");
  if (!staged) return fail(staged.error());
  auto space = sys::disk_space(staged->parent_path());
  if (space && space->free_bytes < map->data_bytes() + kMargin)
    return fail(ErrorCode::exhausted, "no room to flatten " + info.image);

  auto plan = make_plan(*map, nullptr, TargetKind::sparse);
  FillState state(std::move(*map), std::move(plan), "flattener");
  state.base = std::move(*disk);
  state.marks = std::make_unique<ChunkMarks>(ChunkBits(state.in_data.size(), 0));
  auto target = FillTarget::create(*staged, state.plan, {});
  if (!target) return fail(target.error());
  state.target = std::move(*target);
  auto done = copy_all(state, may_go_on, stop);
  if (done && state.marks->snapshot() != state.in_data)
    done = fail(ErrorCode::internal, "flattening left chunks out");
  if (done) {
    auto flat = info;
    flat.format = "raw";
    flat.stands_on.clear();
    done = local.replace(*staged, flat, {{LocalVersions::kManifestFile, state.wanted.serialize()}});
  }
  if (!done) ::unlink(staged->c_str());
  if (done) obs::info("cache.flattened", {{"image", info.image}, {"version", info.version}});
  return done;
}

}  // namespace educloud::nc
