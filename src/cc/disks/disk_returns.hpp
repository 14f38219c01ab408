#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <string>

#include "common/base/ids.hpp"
#include "common/base/result.hpp"
#include "common/sys/file.hpp"

// Private to cc/disks: copies of disks on their way back from a node.
namespace educloud::cc {

/// A copy that comes back block by block into `<disk>.back`, and becomes the disk when it is whole: until
/// then, and if it never is, the disk is what it was. How far one came is known in memory only; after a
/// restart it is begun again. Thread-safe.
class DiskReturns {
 public:
  /// `sync`: fdatasync, or what a test has in its place.
  explicit DiskReturns(std::function<int(int)> sync = {});

  /// Which sending of a copy, as its node calls it. Another one of the same instance begins anew.
  struct Name {
    InstanceId instance;
    std::string give;
  };
  struct Block {
    std::filesystem::path disk;  ///< the whole old one
    std::uint64_t size = 0;      ///< of the disk that is sent; must be that of `disk`
    std::uint64_t data = 0;      ///< how many bytes of it hold data, for there must be room for them
    std::uint64_t after = 0;     ///< where the block before ended; 0: it is the first
    std::uint64_t at = 0;        ///< where it belongs; what is between is a hole
    std::span<const char> bytes;
  };

  /// Writes it if it follows on what is there. Returns where the next one must follow on, which is not the
  /// end of this one if it did not. Errors: invalid_argument, exhausted, internal; unavailable: one is just
  /// becoming the disk.
  Result<std::uint64_t> put(const Name& name, const Block& block);
  /// The copy, which ends with the block that ended at `after`, is the disk when it returns. False: what is
  /// here ends elsewhere; send it again. May take as long as the disk takes to sync.
  Result<bool> finish(const Name& name, const Block& last);
  /// What came so far goes. Idempotent.
  void drop(const InstanceId& instance, const std::filesystem::path& disk);
  static std::filesystem::path beside(const std::filesystem::path& disk) { return disk.string() + ".back"; }

 private:
  struct Coming {
    std::string give;
    sys::Fd file;
    std::uint64_t size = 0;
    std::uint64_t end = 0;
    bool is_finishing = false;  ///< `file` is at work elsewhere, and what lies beside the disk is not touched
  };
  Result<Coming*> find_or_begin(const Name& name, const Block& block);
  Result<> replace(int fd, const std::filesystem::path& disk) const;

  const std::function<int(int)> sync_;
  std::mutex mutex_;
  std::map<InstanceId, Coming> coming_;  // under mutex_
};

}  // namespace educloud::cc
