#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "common/image/qcow2_layer.hpp"
#include "nc/cache/chunk_index.hpp"
#include "nc/cache/chunk_marks.hpp"
#include "nc/cache/fill_plan.hpp"
#include "nc/cache/fill_target.hpp"
#include "nc/cache/work_queue.hpp"

namespace educloud::nc {

/// A fill once it is known what is to be had from where: shared by its workers, by readers that do not want
/// to wait, and by neighbours that are served from it. All but the marks and the queue stays as it is.
struct FillState {
  FillState(chunk::DiskMap wanted_map, FillPlan the_plan, std::string self)
      : wanted(std::move(wanted_map)),
        plan(std::move(the_plan)),
        in_data(chunk::group_count(plan.disk_bytes), 0),
        queue(chunk::group_count(plan.disk_bytes), std::move(self)) {
    for (const auto at : plan.data) set_bit(in_data, at);
  }

  const chunk::DiskMap wanted;
  const FillPlan plan;
  ChunkBits in_data;
  std::optional<image::LayeredDisk> base;  ///< what is copied from or stood on
  std::unique_ptr<FillTarget> target;
  std::unique_ptr<ChunkMarks> marks;
  WorkQueue queue;

  /// True if the chunk can be read now.
  bool has(std::uint64_t chunk) const {
    return wanted.at(chunk).is_hole() || !has_bit(in_data, chunk) || marks->test(chunk);
  }
  /// Bytes of a chunk that is here, from `skip` on.
  Result<> read(std::uint64_t chunk, std::uint32_t skip, std::span<char> out) const {
    if (wanted.at(chunk).is_hole()) {
      std::fill(out.begin(), out.end(), '\0');
      return {};
    }
    if (has_bit(in_data, chunk) || plan.kind == TargetKind::clone) return target->read(chunk, skip, out);
    return base->read(chunk * chunk::kChunkBytes + skip, out);
  }
  /// Where the version has this content. The index is made when it is first asked for.
  std::optional<std::uint64_t> find(const chunk::ChunkId& id) const {
    std::call_once(indexed_, [this] { index_.emplace(wanted); });
    return index_->find(wanted, id);
  }

 private:
  mutable std::once_flag indexed_;
  mutable std::optional<ChunkIndex> index_;
};

}  // namespace educloud::nc
