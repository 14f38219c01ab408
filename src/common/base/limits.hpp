#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

/// Every bound that two parts must agree on. A bound only one file needs lives in that file.
namespace educloud::limits {

/// A message on any queue (CONTRACT.md). Larger ones are dead-lettered unread.
inline constexpr std::size_t kMessageBytes = 64 * 1024;
/// A JSON body on any HTTP route that does not say otherwise.
inline constexpr std::size_t kJsonBodyBytes = 256 * 1024;
/// One chunk of a resumable upload; a client sends several.
inline constexpr std::uint64_t kUploadChunkBytes = 64ull << 20;
/// The largest image file, and the largest virtual disk, that walrus accepts unless configured lower.
inline constexpr std::uint64_t kImageBytes = 2ull << 40;
/// How deep nested JSON may be: deeper input is refused before a recursive reader sees it.
inline constexpr int kJsonDepth = 32;
/// Entries of any list inside a message (VMs of a node, images of a cache, rules of an instance).
inline constexpr std::size_t kListEntries = 1000;

inline constexpr std::chrono::seconds kHeartbeat{5};

}  // namespace educloud::limits
