#pragma once

#include <cstdint>
#include <stop_token>
#include <string>

#include "common/chunk/frame.hpp"
#include "common/transfer/chunk_routes.hpp"

namespace educloud::transfer {

/// The bytes of the chunk `id` from its frame, proven. Errors: corrupt, internal.
Result<std::string> unpack(const Frame& frame, const chunk::ChunkId& id, chunk::FrameDecoder& decoder);

/// What of a disk is asked for, in bytes; within the disk.
struct DiskPart {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

/// Pushes a part of the disk that `manifest` describes to `stream`, holes as zeros; groups and chunks come
/// from `source`, some ahead of what is sent. Does not end the stream. Memory: a few MiB whatever the size.
/// Errors: cancelled if the client is gone; what `source` says; corrupt.
Result<> push_disk(ChunkSource& source, const ChunkCaller& caller, const chunk::Manifest& manifest,
                   DiskPart part, http::BodyStream& stream, const std::stop_token& stop);

}  // namespace educloud::transfer
