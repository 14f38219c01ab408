#pragma once

#include <sqlite3.h>

#include <string>

#include <SQLiteCpp/SQLiteCpp.h>

#include "common/chunk/chunk_index.hpp"

// Private to chunk_index_{reader,writer}.cpp.
namespace educloud::chunk::sql {

/// Library exceptions end here.
template <class Work>
auto guarded(const std::string& file, const Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const SQLite::Exception& e) {
    const int code = e.getErrorCode() & 0xff;
    const std::string text = file + ": " + e.what();
    if (code == SQLITE_FULL) return fail(ErrorCode::exhausted, text + "; make room on this file system");
    if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) return fail(ErrorCode::corrupt, text);
    // Told by write(2) as an error of the disk although the quota or a limit is at an end.
    if (code == SQLITE_IOERR) return fail(ErrorCode::exhausted, text + "; is the disk full or failing?");
    return fail(ErrorCode::internal, text);
  }
}

inline Place place_of(std::int64_t key, std::uint32_t length, std::uint32_t raw_bytes) {
  const auto bits = static_cast<std::uint64_t>(key);
  return {.pack = static_cast<std::uint32_t>(bits >> Place::kOffsetBits),
          .offset = bits & ((std::uint64_t{1} << Place::kOffsetBits) - 1),
          .length = length,
          .raw_bytes = raw_bytes};
}

/// First 8 bytes of an id: a number is found faster than a text and takes less room.
inline std::int64_t prefix_of(const ChunkId& id) {
  std::int64_t prefix = 0;
  std::memcpy(&prefix, id.bytes.data(), sizeof prefix);
  return prefix;
}
inline constexpr int kRestBytes = static_cast<int>(ChunkId::kBytes - sizeof(std::int64_t));

}  // namespace educloud::chunk::sql
