#include "nc/app/disk_transfer.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstring>

#include "common/chunk/chunk_id.hpp"
#include "common/image/data_runs.hpp"
#include "common/sys/file.hpp"
#include "common/sys/pause.hpp"
#include "nc/app/instance_record.hpp"

namespace educloud::nc {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kBlockBytes = 1 << 20;
constexpr std::chrono::milliseconds kAgain{300};
constexpr unsigned kSecret = 0600;
constexpr int kAccepted = 202;
/// A cc that was started again wants all of it again; one that is killed over and over is down.
constexpr int kMostTries = 20;

Result<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto* end = text.data() + text.size();
  const auto [at, errc] = std::from_chars(text.data(), end, value);
  if (errc == std::errc{} && at == end) return value;
  return fail(ErrorCode::corrupt, "the cc's answer about a copy of a database disk has no number");
}

bool is_zero(const std::string& data) {
  return data.empty() || (data[0] == 0 && std::memcmp(data.data(), data.data() + 1, data.size() - 1) == 0);
}

tl::unexpected<Error> lost_again() {
  return fail(ErrorCode::unavailable, "the cc does not keep what it is sent of a copy of a database disk");
}

bool may_pass(const Error& error) {
  return error.code == ErrorCode::unavailable || error.code == ErrorCode::timeout;
}

Result<> finish(const sys::Fd& fd, const std::filesystem::path& part, const std::filesystem::path& file) {
  if (::fdatasync(fd.get()) != 0) return fail(errno_error("sync " + part.string(), errno));
  if (::rename(part.c_str(), file.c_str()) != 0) return fail(errno_error("rename " + part.string(), errno));
  return sys::sync_path(file.parent_path());
}

}  // namespace

struct DiskTransfer::Sending {
  sys::Fd file;
  std::string give;
  std::uint64_t size = 0, data = 0;
  std::uint64_t end = 0;  ///< where the cc has all that is before
  int turns = 0;          ///< how often it had something else

  std::string query(std::uint64_t at) const {
    return "&give=" + give + "&size=" + std::to_string(size) + "&data=" + std::to_string(data) +
           "&after=" + std::to_string(end) + "&at=" + std::to_string(at);
  }
  /// Data before `position`.
  Result<std::uint64_t> data_before(std::uint64_t position) const {
    std::uint64_t sum = 0;
    auto ok = image::for_each_data_run(file.get(), size, [&](std::uint64_t from, std::uint64_t length) {
      if (from < position) sum += std::min(length, position - from);
      return Result<>{};
    });
    return ok ? Result<std::uint64_t>(sum) : fail(ok.error());
  }
};

DiskTransfer::DiskTransfer(Options options)
    : options_(std::move(options)), client_(options_.cc, options_.client) {}

Result<http::ClientResponse> DiskTransfer::insist(const http::ClientRequest& request,
                                                  const std::stop_token& stop) {
  const auto deadline = Clock::now() + options_.patience;
  for (;;) {
    auto sent = client_.send(request, stop);
    auto good = sent ? sent->ok() : Result<>(fail(sent.error()));
    if (good) return sent;
    if (!may_pass(good.error())) return fail(good.error());
    if (Clock::now() > deadline) {
      return fail(ErrorCode::unavailable, "the copy of the database disk gets nowhere: cc " +
                                              options_.cc.authority() + ": " + good.error().message);
    }
    if (!sys::pause(kAgain, stop)) return fail(ErrorCode::cancelled, "interrupted");
  }
}

Result<http::ClientResponse> DiskTransfer::insist_until_done(const http::ClientRequest& request,
                                                             const std::function<void()>& tell,
                                                             const std::stop_token& stop) {
  for (;;) {
    auto answer = insist(request, stop);
    if (!answer || answer->status != kAccepted) return answer;
    // It syncs, for minutes perhaps: who waits for it must not take it for dead.
    tell();
    if (!sys::pause(kAgain, stop)) return fail(ErrorCode::cancelled, "interrupted");
  }
}

Result<> DiskTransfer::fetch(const std::filesystem::path& file, std::uint64_t data_bytes,
                             const OnCopied& progress, const std::stop_token& stop) {
  const std::filesystem::path part = file.string() + ".part";
  if (auto ok = remove_file(part); !ok) return ok;
  auto fd = sys::open_file(part, O_RDWR | O_CREAT | O_EXCL, kSecret);
  if (!fd) return fail(fd.error());
  std::uint64_t at = 0, done = 0;
  for (int changed = 0; changed < kMostTries;) {
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "interrupted");
    http::ClientRequest request;
    request.target =
        options_.path + "/data?" + options_.grant + "&copy=" + options_.copy + "&at=" + std::to_string(at);
    auto answer = insist(request, stop);
    if (!answer) return fail(answer.error());
    auto where = number(answer->header("Disk-At"));
    auto size = number(answer->header("Disk-Bytes"));
    if (!where || !size) return fail(where ? size.error() : where.error());
    const auto& bytes = answer->body;
    if (*where < at || *where > *size || bytes.size() > *size - *where || (bytes.empty() && *where != *size))
      return fail(ErrorCode::corrupt, "the cc tells of another piece of the disk than it was asked for");
    if (answer->header("Block-SHA256") != chunk::ChunkId::of(bytes).hex()) {
      ++changed;
      continue;
    }
    if (auto ok = sys::pwrite_all(fd->get(), bytes, *where); !ok) return fail(ok.error(), part.string());
    at = *where + bytes.size();
    done += bytes.size();
    progress(done, std::max(done, data_bytes));
    if (at < *size) continue;
    if (::ftruncate(fd->get(), static_cast<off_t>(*size)) != 0)
      return fail(errno_error("finish " + part.string(), errno));
    return finish(*fd, part, file);
  }
  return fail(ErrorCode::corrupt, "pieces of the database disk come changed from the cc");
}

Result<> DiskTransfer::send_blocks(Sending& sending, const OnCopied& progress, const std::stop_token& stop) {
  std::uint64_t from = sending.end;
  auto done = sending.data_before(from);
  if (!done) return fail(done.error());
  for (;;) {
    progress(*done, sending.data);
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "interrupted");
    auto piece = image::next_data(sending.file.get(), sending.size, from, kBlockBytes);
    if (!piece) return fail(piece.error());
    if (piece->bytes.empty()) return {};
    const std::uint64_t length = piece->bytes.size(), to = piece->at + length;
    *done += length;
    from = to;
    if (is_zero(piece->bytes)) continue;
    http::ClientRequest request;
    request.method = "PUT";
    request.target =
        options_.path + "/data?" + options_.grant + "&copy=" + options_.copy + sending.query(piece->at);
    request.headers["Block-SHA256"] = chunk::ChunkId::of(piece->bytes).hex();
    request.body = std::move(piece->bytes);
    request.repeatable = true;
    auto answer = insist(request, stop);
    if (!answer) return fail(answer.error());
    auto body = answer->json();
    if (!body) return fail(body.error());
    const auto end = body->find("end");
    if (end == body->end() || !end->is_number_unsigned() || end->get<std::uint64_t>() > sending.size)
      return fail(ErrorCode::corrupt, "the cc's answer to a block of a disk names no end");
    sending.end = end->get<std::uint64_t>();
    if (sending.end == to) continue;
    // It has more than we thought, since we began before, or less, since it was started again.
    if (++sending.turns > kMostTries) return lost_again();
    from = sending.end;
    done = sending.data_before(from);
    if (!done) return fail(done.error());
  }
}

Result<> DiskTransfer::give_back(const std::filesystem::path& file, const std::string& give,
                                 const OnCopied& progress, const std::stop_token& stop) {
  Sending sending;
  auto fd = sys::open_file(file, O_RDONLY);
  if (!fd) return fail(fd.error());
  sending.file = std::move(*fd);
  struct stat status {};
  if (::fstat(sending.file.get(), &status) != 0) return fail(errno_error("stat " + file.string(), errno));
  sending.give = give;
  sending.size = static_cast<std::uint64_t>(status.st_size);
  auto data = sending.data_before(sending.size);
  if (!data) return fail(data.error());
  sending.data = *data;
  for (int tries = 0; tries < kMostTries; ++tries) {
    if (auto ok = send_blocks(sending, progress, stop); !ok) return ok;
    http::ClientRequest request;
    request.method = "POST";
    request.target =
        options_.path + "/back?" + options_.grant + "&copy=" + options_.copy + sending.query(sending.end);
    request.repeatable = true;
    auto answer = insist_until_done(
        request, [&] { progress(sending.data, sending.data); }, stop);
    if (!answer) return fail(answer.error());
    auto body = answer->json();
    if (!body) return fail(body.error());
    if (body->value("state", "") == "back") return {};
    sending.end = 0;
  }
  return lost_again();
}

}  // namespace educloud::nc
