#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/base/result.hpp"
#include "common/image/version_store.hpp"
#include "common/transfer/receipt.hpp"
#include "walrus/store/importer.hpp"

namespace educloud::walrus {

/// New disks for data: an ext4 file system named "database" on a disk of its own, or the administrator's
/// template. A guest's system formats it anew if it wants another one.
class BlankDisks {
 public:
  /// `disk_template`: raw or qcow2, of any size; empty: mke2fs makes one.
  BlankDisks(image::VersionStore& store, Importer& importer, std::filesystem::path disk_template)
      : store_(store), importer_(importer), template_(std::move(disk_template)) {}

  /// Makes and publishes the version. `disk_bytes` does not count for a template, which has its own size.
  /// Blocks for seconds; again after a crash from its beginning. Errors: as Importer::run; not_found
  /// (mke2fs, the template).
  Result<transfer::Receipt> make(const std::string& imgid, int version, const std::string& cmdid,
                                 std::uint64_t disk_bytes);

 private:
  image::VersionStore& store_;
  Importer& importer_;
  const std::filesystem::path template_;
};

}  // namespace educloud::walrus
