#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>

#include "cli/image/signed_version.hpp"

namespace educloud::cli {

struct DownloadRequest {
  SignedVersion version;
  std::filesystem::path file;  ///< made or continued; holes of the disk become holes of the file
  int connections = 4;
  std::chrono::seconds patience{60};  ///< without any chunk, until it gives up
};
struct DownloadReport {
  std::uint64_t disk_bytes = 0;     ///< length of the file
  std::uint64_t data_bytes = 0;     ///< of it that is no hole
  std::uint64_t kept_bytes = 0;     ///< were there already and right
  std::uint64_t fetched_bytes = 0;  ///< came over the network, unpacked
};

/// Brings a version's disk into `file`: the manifest is proven by its digest, every chunk by the manifest,
/// and what the file holds already is read and kept only where it is right. So a call that was cut, even by a
/// power cut, is simply made again. Synced to disk when it returns. `on_bytes(done, total)`: of the data, a
/// few times a second, on the calling thread. Errors: corrupt, permission_denied (the URL expired),
/// not_found, exhausted (disk full), unavailable, timeout.
Result<DownloadReport> download_disk(const DownloadRequest& request,
                                     const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes,
                                     std::stop_token stop = {});

}  // namespace educloud::cli
