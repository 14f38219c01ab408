#include "common/image/data_runs.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace educloud::image {

Result<> for_each_data_run(int fd, std::uint64_t file_size,
                           const std::function<Result<>(std::uint64_t offset, std::uint64_t length)>& data) {
  std::uint64_t position = 0;
  while (position < file_size) {
    const off_t start = ::lseek(fd, static_cast<off_t>(position), SEEK_DATA);
    if (start < 0 && errno == ENXIO) return {};  // only a hole is left
    if (start < 0) {
      if (errno != EINVAL && errno != EOPNOTSUPP) return fail(errno_error("seek data", errno));
      return data(position, file_size - position);  // this file system knows no holes
    }
    const off_t end = ::lseek(fd, start, SEEK_HOLE);
    if (end < 0) return fail(errno_error("seek hole", errno));
    const auto from = static_cast<std::uint64_t>(start);
    if (from >= file_size) return {};  // grown since
    const auto to = std::min(static_cast<std::uint64_t>(end), file_size);
    if (auto ok = data(from, to - from); !ok) return ok;
    position = to;
  }
  return {};
}

}  // namespace educloud::image
