#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>

#include "common/base/result.hpp"
#include "common/image/progress.hpp"

namespace educloud::image {

/// How a copy was made, cheapest first.
enum class CopyMethod {
  reflink,     ///< FICLONE: shares the blocks; XFS and btrfs
  in_kernel,   ///< copy_file_range of each run of data
  read_write,  ///< through our memory
};

/// Copies `source` to `destination` with its holes, and syncs it. `destination` must not exist: give
/// a temporary name and rename it yourself. It gets mode 0600. After an error nothing is left of it.
/// Errors: not_found, conflict (`destination` exists), exhausted (disk full), cancelled, corrupt if the
/// source shrinks meanwhile, internal (I/O).
Result<CopyMethod> copy_sparse(const std::filesystem::path& source, const std::filesystem::path& destination,
                               const OnBytes& on_bytes = {}, std::stop_token stop = {});

/// Calls `data(offset, length)` for each run of data of `fd` in order and skips the holes. A file
/// system that knows no holes makes it one run. Ends at the first error, which it returns.
Result<> for_each_data_run(int fd, std::uint64_t file_size,
                           const std::function<Result<>(std::uint64_t offset, std::uint64_t length)>& data);

}  // namespace educloud::image
