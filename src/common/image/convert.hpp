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

/// An uploaded image, to become a standalone qcow2.
struct ConvertRequest {
  std::filesystem::path input;  ///< inspected before; becomes readable (not writable) for `user`'s group
  Format input_format = Format::raw;
  std::filesystem::path output;  ///< must not exist; on the same file system as `input` and `workspace`
  std::filesystem::path
      workspace;          ///< made for the run (0700, `user`'s) and removed after it; must not exist
  std::string user = {};  ///< unprivileged user that qemu-img runs as
  Isolation isolation = Isolation::required;
  InspectLimits limits = {};  ///< of the result, and of what qemu-img may write
  std::chrono::milliseconds timeout{2 * 3600 * 1000};
  std::uint64_t cpu_seconds_limit = 3600;
  OnPercent on_percent = {};
};

struct ConvertResult {
  ImageHeader header;     ///< of the output, inspected
  bool isolated = false;  ///< other user, no network
};

/// qemu-img convert with the format said, as another user without network, 1 GiB of address space, bounded
/// CPU, time and output. Its output passes inspect() or is refused. After an error nothing is left.
/// Errors: invalid_argument (qemu-img or the inspector refuses the image), exhausted (disk full),
/// too_large, timeout, cancelled, permission_denied, not_found (qemu-img or the user is missing), internal.
Result<ConvertResult> convert_to_qcow2(const ConvertRequest& request, std::stop_token stop = {});

/// The same to a sparse raw file: 64 KiB of zeros in a row become a hole. `output` is exactly as long as the
/// disk (ConvertResult.header.virtual_size_bytes); it is not synced, because it is read once and removed. Not
/// inspected: what is in it is the guest's. `virtual_size_bytes`: what inspect() said of the input; not one
/// byte more is written.
Result<ConvertResult> convert_to_raw(const ConvertRequest& request, std::uint64_t virtual_size_bytes,
                                     std::stop_token stop = {});

/// A raw file of ours to a standalone qcow2, as our own user. `output` must not exist; after an error nothing
/// is left of it. Errors: conflict, not_found, exhausted, cancelled, internal.
Result<> raw_to_qcow2(const std::filesystem::path& raw, const std::filesystem::path& output,
                      const OnPercent& on_percent = {}, std::stop_token stop = {});

/// Makes `overlay`, an empty qcow2 on top of `base` (absolute path), both formats explicit.
/// `virtual_size_bytes` 0: as large as the base. Replaces nothing.
/// Errors: conflict (`overlay` exists), not_found (base), invalid_argument, exhausted, internal.
Result<> create_overlay(const std::filesystem::path& base, Format base_format,
                        const std::filesystem::path& overlay, std::uint64_t virtual_size_bytes = 0);

/// An overlay whose guest is shut off, to become one flat qcow2. A guest cannot reach its own overlay's
/// header, but a defect or an operator can: the backing chain is checked by our reader first.
struct FlattenRequest {
  std::filesystem::path overlay;
  std::filesystem::path base;  ///< must be exactly what the overlay names; absolute
  Format base_format = Format::qcow2;
  std::filesystem::path output;  ///< must not exist
  std::chrono::milliseconds timeout{2 * 3600 * 1000};
  OnPercent on_percent = {};
};
/// As our own user. Output is synced and inspected; after an error nothing is left of it.
/// Errors: as convert_to_qcow2; conflict if the overlay is not on `base` or the guest still runs (it is
/// locked).
Result<ImageHeader> flatten(const FlattenRequest& request, std::stop_token stop = {});

}  // namespace educloud::image
