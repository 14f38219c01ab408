#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/base/ids.hpp"
#include "common/base/result.hpp"

// Private to cc/disks: where a database disk and what is known of it lie.
namespace educloud::cc {

/// Who may use the disk; space/database/instances/<insid>/disk.json, mode 0600.
struct DiskRecord {
  InstanceId instance;
  std::string build_imgid;     ///< of a BUILD's TMP: the image that is being built; else empty
  std::int64_t epoch = 0;      ///< the highest that opened it; a lower one is refused
  std::string node;            ///< that opened it
  std::string address;         ///< of that node
  std::string mode = "iscsi";  ///< how the node reaches it: iscsi, nbd, copy
  std::string secret;          ///< of CHAP, or the key of TLS; a new one for each epoch
  int port = 0;                ///< nbd: its own; 0: not chosen yet
  bool is_open = false;        ///< exported, now and after a restart
  std::string submitted;       ///< "<cmdid> <imgid>/<version>" of the last submit since it was opened
  std::string receipt;         ///< of that
  // While its VM moves: the node that it goes to reaches the disk too, with the same secret. 0: it does not.
  std::int64_t joining_epoch = 0;
  std::string joining_node, joining_address;
  // Mode copy: the node's file is the disk while its VM runs, and comes back afterwards.
  std::string copy;      ///< which handing out of the disk; a new one for each that a node does not hold yet
  bool is_out = false;   ///< the node's copy may be newer than the disk here
  std::string returned;  ///< the sending of `copy` that became the disk
  std::string spent;     ///< the one before its VM was started again: said once more, it is late
  std::string left;      ///< node whose newer copy was given up when the disk was opened by another
};

/// Not thread-safe per instance.
class DiskFiles {
 public:
  explicit DiskFiles(const std::filesystem::path& prefix) : root_(prefix / "space" / "database") {}

  /// nullopt: no such disk was ever asked for. Errors: corrupt, internal.
  Result<std::optional<DiskRecord>> load(const InstanceId& instance) const;
  /// Atomic and durable; makes the folders.
  Result<> save(const DiskRecord& record) const;
  /// Raw, sparse; there only when it is complete.
  std::filesystem::path disk(const DiskRecord& record) const;
  /// Disk, then record. Idempotent. Durable.
  Result<> remove(const DiskRecord& record) const;
  /// Nobody builds that image here. The grant of a node names none, and the disk of a build lies where its
  /// image says: who came second would be given the disk of whoever builds it. Errors: conflict.
  Result<> check_build(const std::string& imgid) const;
  /// Instances that have a record.
  std::vector<InstanceId> list() const;

 private:
  std::filesystem::path folder(const InstanceId& instance) const {
    return root_ / "instances" / instance.str();
  }

  const std::filesystem::path root_;
};

}  // namespace educloud::cc
