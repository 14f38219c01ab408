#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>

#include "common/base/result.hpp"
#include "common/image/inspector.hpp"

namespace educloud::image {

/// Percent of a qemu-img run, 0..100, as it prints it.
using OnPercent = std::function<void(int percent)>;

enum class Isolation {
  required,     ///< not root, or no `user`: refused with permission_denied
  best_effort,  ///< not root: runs as our own user; ConvertResult.isolated says which it was
};

/// An uploaded image, to become a raw disk.
struct ConvertRequest {
  std::filesystem::path input;  ///< inspected before; becomes readable (not writable) for `user`'s group
  Format input_format = Format::raw;
  std::filesystem::path output;  ///< must not exist; on the same file system as `input` and `workspace`
  std::filesystem::path
      workspace;          ///< made for the run (0700, `user`'s) and removed after it; must not exist
  std::string user = {};  ///< unprivileged user that qemu-img runs as
  Isolation isolation = Isolation::required;
  std::chrono::milliseconds timeout{2 * 3600 * 1000};
  std::uint64_t cpu_seconds_limit = 3600;
  OnPercent on_percent = {};
};

struct ConvertResult {
  std::uint64_t disk_bytes = 0;  ///< length of the output
  bool isolated = false;         ///< other user, no network
};

/// qemu-img convert to a sparse raw file, with the format said, as another user without network, 1 GiB of
/// address space, bounded CPU, time and output: 64 KiB of zeros in a row become a hole. `output` is exactly
/// as long as the disk; it is not synced, because it is read once and removed. `virtual_size_bytes`: what
/// inspect() said of the input; not one byte more is written. After an error nothing is left. Errors:
/// invalid_argument (qemu-img refuses the image, or its disk is not as long as it says), exhausted (disk
/// full), too_large, timeout, cancelled, permission_denied, not_found (qemu-img or the user is missing),
/// conflict (`output` exists), internal.
Result<ConvertResult> convert_to_raw(const ConvertRequest& request, std::uint64_t virtual_size_bytes,
                                     std::stop_token stop = {});

/// A raw file of ours to a standalone qcow2, as our own user. `output` must not exist; after an error nothing
/// is left of it. Errors: conflict, not_found, exhausted, cancelled, internal.
Result<> raw_to_qcow2(const std::filesystem::path& raw, const std::filesystem::path& output,
                      const OnPercent& on_percent = {}, std::stop_token stop = {});

}  // namespace educloud::image
