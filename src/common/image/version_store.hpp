#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/sys/file.hpp"

namespace educloud::image {

/// One published version of an image: a file that never changes again.
struct VersionInfo {
  std::string image;                     ///< IMG + 8 hex
  int version = 0;                       ///< 1..1e9, chosen by clc
  std::string digest;                    ///< chunk::Manifest::digest() of the disk, 64 hex
  std::uint64_t size_bytes = 0;          ///< of data in the disk, holes not counted; not a file's length
  std::uint64_t virtual_size_bytes = 0;  ///< of the disk
  std::string format = "qcow2";          ///< or "raw"
  std::string parent = {};               ///< "<imgid>/<version>" it was made from; empty: none
  std::int64_t created_at = 0;           ///< unix milliseconds; 0 at publish(): now
  std::string stands_on = {};            ///< "<imgid>/<version>" its payload has as backing file; or empty

  bool operator==(const VersionInfo&) const = default;
};

/// Files that are published beside the payload: name -> content. Names: 1..40 of [a-z0-9._-], the first a
/// letter, neither the payload's nor info.json; at most 8.
using Companions = std::map<std::string, std::string>;

/// A published version that may be removed, least recently used first.
struct EvictionCandidate {
  VersionInfo info;
  std::int64_t last_used_ms = 0;      ///< unix milliseconds of touch(), else of publish()
  std::uint64_t allocated_bytes = 0;  ///< what removing it gives back
};

/// The image files of one daemon (walrus, cc or nc) under its prefix:
///
///   images/<imgid>/versions/<n>/{<payload>,info.json,companions}   published: complete, synced, read-only
///   images/<imgid>/<payload> -> versions/<n>/<payload>             the version in use
///   tmp/staging/<name>                                             the callers' unfinished files
///   tmp/publish/, tmp/trash/                                       this class's own; cleared by open()
///
/// The payload is `machine` where guests run (nc) and `manifest` where chunks are kept (walrus, cc).
///
/// The disk is the truth: nothing but pins is kept in memory, so a daemon may be killed at any
/// instant. A version directory is there complete or not at all. All members may be called from any
/// thread. Every id is checked; a wrong one is invalid_argument. Errors name the path.
class VersionStore {
 public:
  struct Options {
    /// Files in tmp/staging that nobody wrote to for this long are removed by open().
    std::chrono::hours staging_max_age{48};
    /// Everything here can be fetched again: the current version may be removed like any other.
    bool is_cache = false;
    /// Name of the file that makes a version. Versions published under another name are still found.
    std::string payload = "machine";
  };

  /// Makes the directories, takes the prefix's lock, finishes or removes what a killed process left.
  /// Errors: conflict if another process has the prefix open (two stores would evict each other's files),
  /// permission_denied, exhausted, internal.
  static Result<std::unique_ptr<VersionStore>> open(const std::filesystem::path& prefix, Options options);
  static Result<std::unique_ptr<VersionStore>> open(const std::filesystem::path& prefix) {
    return open(prefix, Options{});
  }
  VersionStore(const VersionStore&) = delete;
  VersionStore& operator=(const VersionStore&) = delete;

  const std::filesystem::path& prefix() const { return prefix_; }

  /// Where one of a version's files is or would be: absolute. Needs checked ids; looks at no disk.
  std::filesystem::path file_path(std::string_view image, int version, std::string_view name) const;
  /// The same of its payload.
  std::filesystem::path machine_path(std::string_view image, int version) const;
  /// Path for an unfinished file. `name`: 1..120 of [A-Za-z0-9._-], not starting with '.'. The same name
  /// gives the same path after a restart, so a download can go on. Errors: invalid_argument.
  Result<std::filesystem::path> staging(std::string_view name) const;

  /// All published versions, by image and number. Directories that are not ours are skipped.
  Result<std::vector<VersionInfo>> list() const;
  Result<std::vector<VersionInfo>> list(std::string_view image) const;
  /// Errors: not_found.
  Result<VersionInfo> find(std::string_view image, int version) const;

  /// Moves `staged` (any path on the prefix's file system, closed by its writer) in as that version's
  /// payload, with `companions` beside it. The caller has proven the content. After success `staged` is gone;
  /// the files are 0444 and durable, their lengths recorded: a version whose files have another length is
  /// corrupt. Published already with the same digest: success, `staged` is removed. Errors: conflict (the
  /// number is taken by another digest; what it stands on is not published), invalid_argument, not_found (no
  /// staged file), exhausted, internal. After an error `staged` is still there.
  Result<> publish(const std::filesystem::path& staged, VersionInfo info, const Companions& companions = {});

  /// Puts another form of the same disk in the place of a published version, atomically: `machine` flattened,
  /// for instance. Who has the old files open keeps reading them. `info` must have the digest of the version
  /// that is there; its created_at and last use stay. Errors and `staged` as publish(), not_found (no such
  /// version). Killed in between: the version is the old one or the new one, `staged` may be gone.
  Result<> replace(const std::filesystem::path& staged, VersionInfo info, const Companions& companions = {});

  /// Lets images/<imgid>/<payload> point to `version`, atomically. Errors: not_found.
  Result<> set_current(std::string_view image, int version);
  /// nullopt: none chosen. Errors: invalid_argument.
  Result<std::optional<int>> current(std::string_view image) const;

  /// Removes one version. Not there: success. Errors: conflict if it is pinned, another one stands on it, or
  /// it is the current one and this is no cache.
  Result<> remove(std::string_view image, int version);
  /// Removes all versions, the current one too. Not there: success. Errors: conflict if one is pinned or a
  /// version of another image stands on one.
  Result<> remove_image(std::string_view image);

  /// Keeps a version from being removed while something uses it. Counted; in memory only: after a restart
  /// its users pin again before they remove anything. Errors: not_found.
  Result<> pin(std::string_view image, int version);
  void unpin(std::string_view image, int version);

  /// Notes that the version was used now. Best effort: an error only makes eviction less well informed.
  void touch(std::string_view image, int version) const;
  /// What remove() would remove.
  Result<std::vector<EvictionCandidate>> eviction_candidates() const;
  /// Bytes that all published versions occupy on disk (holes do not count).
  Result<std::uint64_t> allocated_bytes() const;

 private:
  using Key = std::pair<std::string, int>;

  VersionStore(std::filesystem::path prefix, sys::Fd lock, const Options& options)
      : prefix_(std::move(prefix)),
        lock_(std::move(lock)),
        is_cache_(options.is_cache),
        payload_(options.payload) {}
  std::filesystem::path image_dir(std::string_view image) const;
  std::filesystem::path version_dir(std::string_view image, int version) const;
  Result<> recover(const Options& options);
  Result<> recover_publish(const std::filesystem::path& directory);
  Result<std::filesystem::path> prepare(const std::filesystem::path& staged, const VersionInfo& info,
                                        std::uint64_t payload_bytes, const Companions& companions);
  Result<> commit(const std::filesystem::path& directory, const VersionInfo& info);
  Result<> check_stands_on(const VersionInfo& info) const;
  Result<> check_not_stood_on(std::string_view image, std::optional<int> version) const;
  Result<> discard(const std::filesystem::path& path);

  const std::filesystem::path prefix_;
  const sys::Fd lock_;
  const bool is_cache_;
  const std::string payload_;
  mutable std::mutex mutex_;  ///< held over every change of images/ and of pins_, never over long I/O
  std::map<Key, int> pins_;
};

}  // namespace educloud::image
