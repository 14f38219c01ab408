#include "walrus/store/chunk_service.hpp"

#include <algorithm>

#include "common/base/bytes.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/file.hpp"
#include "walrus/store/catalogue.hpp"

namespace educloud::walrus {
namespace {

constexpr std::int64_t kLookEvery = 8 << 20;

/// Frames that were all looked up when they were asked for.
class Found : public transfer::ChunkSource::Reading {
 public:
  Found(std::vector<chunk::ChunkId> ids, std::vector<std::optional<chunk::FrameSlice>> slices)
      : ids_(std::move(ids)), slices_(std::move(slices)) {}

  Result<transfer::Frame> frame(std::size_t i) override {
    if (i < slices_.size() && slices_[i]) return transfer::Frame(std::move(*slices_[i]));
    return fail(ErrorCode::not_found,
                "chunk " + (i < ids_.size() ? ids_[i].hex() : std::to_string(i)) + " is not in the store");
  }

 private:
  const std::vector<chunk::ChunkId> ids_;
  std::vector<std::optional<chunk::FrameSlice>> slices_;
};

}  // namespace

Result<std::string> StoreSource::manifest(const transfer::ChunkCaller& caller, std::stop_token) {
  auto info = versions_.find(caller.imgid, caller.version);
  if (!info) return fail(info.error());
  auto text =
      sys::read_file(versions_.file_path(caller.imgid, caller.version, "manifest"), chunk::kMaxManifestBytes);
  if (!text && text.error().code == ErrorCode::not_found) {
    return fail(ErrorCode::not_found, "image " + caller.imgid + " version " + std::to_string(caller.version) +
                                          " is of an older format: import it again");
  }
  if (!text) return fail(text.error());
  if (chunk::ChunkId::of(*text).hex() != info->digest) {
    return fail(ErrorCode::corrupt, "the manifest of image " + caller.imgid + " version " +
                                        std::to_string(caller.version) +
                                        " is damaged: run educloud walrus fsck");
  }
  return text;
}

Result<std::unique_ptr<transfer::ChunkSource::Reading>> StoreSource::read(const transfer::ChunkCaller&,
                                                                          std::vector<chunk::ChunkId> ids,
                                                                          std::stop_token) {
  auto found = chunks_.find(ids);
  if (!found) return fail(found.error());
  std::uint64_t bytes = 0;
  for (const auto& slice : *found) bytes += slice ? slice->length : 0;
  obs::metrics().count("educloud_walrus_download_bytes_total", "Bytes of images that were asked for",
                       static_cast<double>(bytes));
  return std::make_unique<Found>(std::move(ids), std::move(*found));
}

Result<std::vector<bool>> StoreSink::missing(const transfer::ChunkCaller&, std::vector<chunk::ChunkId> ids) {
  auto missing = chunks_.missing(ids, true);
  if (!missing) return missing;
  // The asker will not send what we say is here: it must be here after a power cut too, also what another
  // request has just put and will perhaps never finish.
  if (std::find(missing->begin(), missing->end(), false) != missing->end()) {
    if (auto ok = chunks_.flush(); !ok) return fail(ok.error());
  }
  return missing;
}

Result<> StoreSink::check_room() {
  auto space = sys::disk_space(options_.prefix);
  if (!space) return fail(space.error());
  if (space->free_bytes >= options_.reserve_bytes + std::uint64_t{kLookEvery}) return {};
  return fail(ErrorCode::exhausted, "the disk of " + options_.prefix.string() + " on walrus has only " +
                                        to_string(Bytes{space->free_bytes}) +
                                        " free: prune old versions or enlarge it, then submit again");
}

Result<> StoreSink::store(const transfer::ChunkCaller& caller, const chunk::FrameHeader& header,
                          std::span<const char> stored) {
  if (until_look_.fetch_sub(static_cast<std::int64_t>(header.frame_bytes())) <= 0) {
    if (auto ok = check_room(); !ok) return ok;
    until_look_ = kLookEvery;
  }
  thread_local chunk::FrameDecoder decoder;
  thread_local std::string raw(chunk::kChunkBytes, '\0');
  if (auto ok = decoder.decode(header, stored, raw); !ok) {
    obs::metrics().count("educloud_walrus_refused_chunks_total", "Chunks that were not what they claimed", 1,
                         {{"node", caller.node}});
    return fail(ok.error(), "from " + caller.node);
  }
  received_ += header.frame_bytes();
  return chunks_.put(header, stored);
}

Result<> StoreSink::stored(const transfer::ChunkCaller&) {
  obs::metrics().count("educloud_walrus_upload_bytes_total", "Bytes of images received",
                       static_cast<double>(received_.exchange(0)));
  return chunks_.flush();
}

Result<std::string> StoreSink::publish(const transfer::ChunkCaller& caller, const Publish& request,
                                       std::stop_token stop) {
  PublishRequest made;
  made.imgid = caller.imgid;
  made.version = caller.version;
  made.manifest = request.manifest;
  made.parent = request.parent;
  made.if_current = request.if_current;
  made.cmdid = request.cmdid;
  auto receipt = publisher_.publish(made, std::move(stop));
  if (!receipt) return fail(receipt.error());
  if (options_.on_published) options_.on_published(*receipt);
  return transfer::sign_receipt(options_.data_key, *receipt);
}

}  // namespace educloud::walrus
