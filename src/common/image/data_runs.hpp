#pragma once

#include <cstdint>
#include <functional>

#include "common/base/result.hpp"

namespace educloud::image {

/// Calls `data(offset, length)` for each run of data of `fd` in order and skips the holes. A file
/// system that knows no holes makes it one run. Ends at the first error, which it returns.
Result<> for_each_data_run(int fd, std::uint64_t file_size,
                           const std::function<Result<>(std::uint64_t offset, std::uint64_t length)>& data);

}  // namespace educloud::image
