#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "common/base/result.hpp"

namespace educloud::image {

/// Calls `data(offset, length)` for each run of data of `fd` in order and skips the holes. A file
/// system that knows no holes makes it one run. Ends at the first error, which it returns.
Result<> for_each_data_run(int fd, std::uint64_t file_size,
                           const std::function<Result<>(std::uint64_t offset, std::uint64_t length)>& data);

struct DataPiece {
  std::uint64_t at = 0;  ///< where the bytes are; none: the end of the file
  std::string bytes;
};
/// The first data of `fd` from `from` on, at most `most` bytes of it. Errors: corrupt (it becomes shorter).
Result<DataPiece> next_data(int fd, std::uint64_t file_size, std::uint64_t from, std::size_t most);

}  // namespace educloud::image
