#pragma once

#include <filesystem>
#include <string_view>

#include "common/base/ids.hpp"
#include "common/base/result.hpp"

namespace educloud::nc {

/// Where a node keeps what (CONTRACT.md "Files"). Made from checked ids only, so nothing leads out of the
/// prefix.
class Layout {
 public:
  explicit Layout(std::filesystem::path prefix) : prefix_(std::move(prefix)) {}
  const std::filesystem::path& prefix() const { return prefix_; }
  std::filesystem::path instances() const { return prefix_ / "VMs"; }
  std::filesystem::path instance(const InstanceId& id) const { return instances() / id.str(); }
  std::filesystem::path overlay(const InstanceId& id) const { return instance(id) / "overlay.qcow2"; }
  std::filesystem::path console(const InstanceId& id) const { return instance(id) / "console.log"; }
  /// What the guest is told at its first boot, 0600.
  std::filesystem::path seed(const InstanceId& id) const { return instance(id) / "seed.img"; }
  /// The order of its snapshots; and how to start it again while one is restored, 0600.
  std::filesystem::path snapshots(const InstanceId& id) const { return instance(id) / "snapshots.json"; }
  std::filesystem::path recipe(const InstanceId& id) const { return instance(id) / "restart.xml"; }
  /// Sockets while it moves; QEMU makes some of them. And how far it got, 0600.
  std::filesystem::path move_folder(const InstanceId& id) const { return instance(id) / "move"; }
  std::filesystem::path move_mark(const InstanceId& id) const { return instance(id) / "move.json"; }
  /// At the other end: there once it was, or was about to be, let run here.
  std::filesystem::path taken_mark(const InstanceId& id) const { return instance(id) / "taken"; }
  /// What the overlay stands on, so that a later start cannot mix versions.
  std::filesystem::path record(const InstanceId& id) const { return instance(id) / "instance.json"; }
  /// Empty: what the guests' scratch disks stand on. And one guest's, thrown away at each start.
  std::filesystem::path data_disk() const { return prefix_ / "images/data"; }
  std::filesystem::path data_overlay(const InstanceId& id) const { return instance(id) / "data.qcow2"; }
  /// How its database disk was opened at the cc, 0600; there for as long as it is not closed.
  std::filesystem::path database_ticket(const InstanceId& id) const { return instance(id) / "database.json"; }
  /// The disk itself, 0600, where its cluster has the node copy it; and copies of servers that began
  /// elsewhere.
  std::filesystem::path database_copy(const InstanceId& id) const { return instance(id) / "database"; }
  std::filesystem::path lost() const { return prefix_ / "lost"; }
  /// Folders that guests share, and those once more that virtiofs is to serve read-only.
  std::filesystem::path space() const { return prefix_ / "space"; }
  std::filesystem::path read_only_space() const { return space() / ".read-only"; }
  /// What a guest's SMB server needs.
  std::filesystem::path smb(const InstanceId& id) const { return instance(id) / "smb"; }
  /// Its key, where it comes over NBD with TLS; and where QEMU reads it then.
  std::filesystem::path database_keys(const InstanceId& id) const { return instance(id) / "database-tls"; }
  std::filesystem::path database_socket(const InstanceId& id) const { return instance(id) / "database.nbd"; }
  std::filesystem::path build_folder(const ImageId& target) const {
    return prefix_ / "tmp/images" / target.str();
  }
  std::filesystem::path build(const ImageId& target) const { return build_folder(target) / "machine"; }
  /// Mbit a second that its network card may use; not there: no limit.
  std::filesystem::path net_limit(const InstanceId& id) const { return instance(id) / "net_limit"; }
  /// Where QEMU reads the VM's image from while it still arrives, and our end of it.
  std::filesystem::path nbd_socket(const InstanceId& id) const { return instance(id) / "disk.nbd"; }
  std::filesystem::path fill_socket(const InstanceId& id) const { return instance(id) / "fill.nbd"; }

 private:
  std::filesystem::path prefix_;
};

/// What a Disk::file of a runtime option names.
struct DiskPath {
  enum class Kind {
    image,              ///< images/<imgid>/machine
    build,              ///< tmp/images/<imgid>/machine
    data,               ///< images/data
    image_database,     ///< space/database/images/<imgid>/database
    build_database,     ///< space/database/tmp/images/<imgid>/database
    instance_database,  ///< space/database/instances/<insid>/database
  } kind = Kind::image;
  ImageId image;        ///< of those with an imgid
  InstanceId instance;  ///< of the last
};

/// Accepts exactly these forms, relative to the prefix. Errors: invalid_argument with key "disks".
Result<DiskPath> parse_disk_path(std::string_view file);

}  // namespace educloud::nc
