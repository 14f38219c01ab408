#include "common/image/data_runs.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace educloud::image {
namespace {

struct Run {
  std::uint64_t from = 0, to = 0;  ///< both `file_size`: only a hole is left
};

Result<Run> next_run(int fd, std::uint64_t file_size, std::uint64_t position) {
  const Run none{file_size, file_size};
  const off_t start = ::lseek(fd, static_cast<off_t>(position), SEEK_DATA);
  if (start < 0 && errno == ENXIO) return none;
  if (start < 0) {
    if (errno != EINVAL && errno != EOPNOTSUPP) return fail(errno_error("seek data", errno));
    return Run{position, file_size};  // this file system knows no holes
  }
  const off_t end = ::lseek(fd, start, SEEK_HOLE);
  if (end < 0) return fail(errno_error("seek hole", errno));
  const auto from = static_cast<std::uint64_t>(start);
  if (from >= file_size) return none;  // grown since
  return Run{from, std::min(static_cast<std::uint64_t>(end), file_size)};
}

}  // namespace

Result<> for_each_data_run(int fd, std::uint64_t file_size,
                           const std::function<Result<>(std::uint64_t offset, std::uint64_t length)>& data) {
  std::uint64_t position = 0;
  while (position < file_size) {
    auto run = next_run(fd, file_size, position);
    if (!run) return fail(run.error());
    if (run->from == run->to) return {};
    if (auto ok = data(run->from, run->to - run->from); !ok) return ok;
    position = run->to;
  }
  return {};
}

Result<DataPiece> next_data(int fd, std::uint64_t file_size, std::uint64_t from, std::size_t most) {
  if (from >= file_size) return DataPiece{file_size, {}};
  auto run = next_run(fd, file_size, from);
  if (!run) return fail(run.error());
  DataPiece out{run->from, std::string(std::min<std::uint64_t>(most, run->to - run->from), '\0')};
  for (std::size_t done = 0; done < out.bytes.size();) {
    const auto got =
        ::pread(fd, out.bytes.data() + done, out.bytes.size() - done, static_cast<off_t>(out.at + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error("read a disk", errno));
    if (got == 0) return fail(ErrorCode::corrupt, "a disk became shorter while it was read");
    done += static_cast<std::size_t>(got);
  }
  return out;
}

}  // namespace educloud::image
