#pragma once

#include <cstdint>

#include "common/chunk/manifest.hpp"

namespace educloud::cli {

/// How disk `b` differs from disk `a`, in bytes of the guest's disk, counted by whole chunks.
struct DiskDiff {
  std::uint64_t same_bytes = 0;     ///< data that both have at the same place
  std::uint64_t changed_bytes = 0;  ///< other data than in `a`
  std::uint64_t added_bytes = 0;    ///< data where `a` has a hole, or had ended
  std::uint64_t removed_bytes = 0;  ///< holes, or nothing any more, where `a` has data
};
DiskDiff diff_disks(const chunk::DiskMap& a, const chunk::DiskMap& b);

}  // namespace educloud::cli
