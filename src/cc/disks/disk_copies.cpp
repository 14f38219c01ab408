// Mode copy: the disk goes to its node as a whole and comes back when its VM has ended.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "cc/disks/disk_job.hpp"
#include "common/image/data_runs.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"

namespace educloud::cc {
namespace {

constexpr const char* kCopy = "copy";
constexpr std::size_t kPieceBytes = 1 << 20;

}  // namespace

/// Nobody may begin from the disk here while a node has a newer one, unless clc has given that node up.
Result<> DiskStore::check_copy(DiskRecord& record, const Opening& request) const {
  if (!record.is_out) return {};
  const auto name = "the newest copy of the database disk of " + record.instance.str();
  if (record.node == request.node) {
    if (request.mode == kCopy) return {};
    return fail(ErrorCode::conflict, name + " is at the node itself: give it back first");
  }
  if (std::ranges::find(request.lost, record.node) == request.lost.end()) {
    return fail(ErrorCode::unavailable,
                name + " is still at node " + record.node + ", which gives it back when it can: start " +
                    record.node +
                    ", or wait until it counts as lost, and what was written there is given up");
  }
  obs::error("disk.copy_given_up",
             {{"insid", record.instance.str()}, {"node", record.node}, {"epoch", record.epoch}});
  record.left = record.node;
  record.is_out = false;
  return {};
}

/// The record, if the caller has its copy.
Result<DiskRecord> DiskStore::held(const Holder& holder) const {
  auto record = files_.load(holder.instance);
  if (!record) return fail(record.error());
  const bool is_held = *record && (*record)->is_open && (*record)->mode == kCopy &&
                       (*record)->node == holder.node && (*record)->copy == holder.copy &&
                       holder.epoch >= (*record)->epoch;
  if (is_held) return std::move(**record);
  return fail(ErrorCode::conflict, "node " + holder.node + " has no copy of the database disk of " +
                                       holder.instance.str() + " that counts any more");
}

Result<DiskStore::Piece> DiskStore::read(const Holder& holder, std::uint64_t at) {
  auto record = held(holder);
  if (!record) return fail(record.error());
  auto fd = sys::open_file(files_.disk(*record), O_RDONLY);
  if (!fd) return fail(fd.error());
  struct stat status {};
  if (::fstat(fd->get(), &status) != 0) return fail(errno_error("stat a database disk", errno));
  const auto size = static_cast<std::uint64_t>(status.st_size);
  auto piece = image::next_data(fd->get(), size, at, kPieceBytes);
  if (!piece) return fail(piece.error());
  return Piece{piece->at, size, std::move(piece->bytes)};
}

Result<std::uint64_t> DiskStore::put(const Holder& holder, const std::string& give,
                                     DiskReturns::Block block) {
  auto record = held(holder);
  if (!record) return fail(record.error());
  block.disk = files_.disk(*record);
  return returns_.put({holder.instance, give}, block);
}

Result<DiskStore::Answer<bool>> DiskStore::take_back(const Holder& holder, const std::string& give,
                                                     DiskReturns::Block last) {
  const auto what = "take-back " + std::to_string(holder.epoch) + " " + holder.node + " " + holder.copy +
                    " " + give + " " + std::to_string(last.after);
  auto seen = run(copying_, holder.instance, what, [=, this](Job& job, const std::stop_token&) {
    return do_take_back(job, holder, give, last);
  });
  if (!seen) return fail(seen.error());
  Answer<bool> answer{std::nullopt, seen->progress};
  if (seen->outcome) answer.done = seen->job->is_taken_back;
  return answer;
}

Result<> DiskStore::do_take_back(Job& job, const Holder& holder, const std::string& give,
                                 DiskReturns::Block last) {
  auto record = held(holder);
  if (!record) return fail(record.error());
  last.disk = files_.disk(*record);
  if (record->returned == give) {
    // Sent once more by one that had not been told.
    returns_.drop(holder.instance, last.disk);
    return {};
  }
  // It would be without what its VM writes now; one of nothing but holes even replaces the disk.
  if (record->spent == give) return fail(ErrorCode::invalid_argument, "that copy came back earlier", "give");
  auto taken = returns_.finish({holder.instance, give}, last);
  if (!taken) return fail(taken.error());
  job.is_taken_back = *taken;
  if (!*taken) return {};
  // Killed before this, it comes back once more.
  record->returned = give;
  record->is_out = false;
  if (auto saved = files_.save(*record); !saved) return saved;
  obs::info("disk.taken_back", {{"insid", holder.instance.str()}, {"node", holder.node}});
  return {};
}

}  // namespace educloud::cc
