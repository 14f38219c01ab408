#pragma once

#include <optional>

#include "clc/app/cloud.hpp"
#include "common/msg/codec.hpp"

/// The JSON bodies of requests, their fields listed once (codec.hpp): unknown keys are ignored, anything else
/// is refused naming the key.
namespace educloud::clc::api {

inline constexpr double kMostMemoryMib = 4.0e6;

struct LoginBody {
  std::string user, password;

  static constexpr auto fields() {
    using T = LoginBody;
    return std::make_tuple(msg::field("user", &T::user, msg::text(1, 128)),
                           msg::field("password", &T::password, msg::text(1, 256)));
  }
};

struct ImageBody : NewImage {
  static constexpr auto fields() {
    using T = ImageBody;
    return std::make_tuple(
        msg::field("name", static_cast<std::string T::*>(&T::name), msg::text(1, 80)),
        msg::option("ostype", static_cast<std::string T::*>(&T::ostype), msg::text(1, 40)),
        msg::option("usage", static_cast<std::string T::*>(&T::usage), msg::choice("desktop|server")),
        msg::option("description", static_cast<std::string T::*>(&T::description), msg::text(0, 1000)),
        msg::option("filename", static_cast<std::string T::*>(&T::filename), msg::text(0, 255)),
        msg::option("size_bytes", static_cast<std::int64_t T::*>(&T::size_bytes), msg::range(0, 9.0e15)),
        msg::option("format", static_cast<std::string T::*>(&T::format), msg::text(0, 10)),
        msg::option("database_gib", static_cast<int T::*>(&T::database_gib),
                    msg::range(1, kMostDatabaseGib)));
  }
};

struct ImageChangeBody {
  std::string name, description, usage;
  int database_gib = 0;
  bool clear_description = false;

  ImageChange change() const {
    ImageChange out;
    if (!name.empty()) out.name = name;
    if (!description.empty() || clear_description) out.description = description;
    if (!usage.empty()) out.usage = usage;
    out.database_gib = database_gib;
    return out;
  }
  static constexpr auto fields() {
    using T = ImageChangeBody;
    return std::make_tuple(msg::option("name", &T::name, msg::text(1, 80)),
                           msg::option("description", &T::description, msg::text(0, 1000)),
                           msg::option("clear_description", &T::clear_description),
                           msg::option("usage", &T::usage, msg::choice("desktop|server")),
                           msg::option("database_gib", &T::database_gib, msg::range(1, kMostDatabaseGib)));
  }
};

struct EditBody : EditRequest {
  static constexpr auto fields() {
    using T = EditBody;
    return std::make_tuple(
        msg::option("name", static_cast<std::string T::*>(&T::name), msg::text(0, 80)),
        msg::option("vmtype", static_cast<std::string T::*>(&T::vmtype), msg::text(0, 40)),
        msg::option("memory_mib", static_cast<std::int64_t T::*>(&T::memory_mib),
                    msg::range(0, kMostMemoryMib)),
        msg::option("cpus", static_cast<int T::*>(&T::cpus), msg::range(0, 256)),
        msg::option("cluster", static_cast<std::string T::*>(&T::cluster), msg::text(0, 40)),
        msg::option("node", static_cast<std::string T::*>(&T::node), msg::text(0, 40)),
        msg::option("version", static_cast<int T::*>(&T::version), msg::range(0, 1e9)),
        msg::option("description", static_cast<std::string T::*>(&T::description), msg::text(0, 1000)));
  }
};

struct NodeBody {
  std::string state;

  static constexpr auto fields() {
    return std::make_tuple(msg::field("state", &NodeBody::state, msg::choice("enabled|no_new|drained")));
  }
};

struct ClusterBody {
  std::string database_mode;

  static constexpr auto fields() {
    return std::make_tuple(
        msg::field("database_mode", &ClusterBody::database_mode, msg::choice("iscsi|nbd|copy")));
  }
};

struct PlanBody : PlanRequest {
  static constexpr auto fields() {
    using T = PlanBody;
    return std::make_tuple(
        msg::field("image", static_cast<std::string T::*>(&T::imgid), msg::text(1, 20)),
        msg::field("count", static_cast<int T::*>(&T::count), msg::range(1, kMostSeats)),
        msg::option("version", static_cast<int T::*>(&T::version), msg::range(0, 1e9)),
        msg::option("vmtype", static_cast<std::string T::*>(&T::vmtype), msg::text(0, 40)),
        msg::option("memory_mib", static_cast<std::int64_t T::*>(&T::memory_mib),
                    msg::range(0, kMostMemoryMib)),
        msg::option("cpus", static_cast<int T::*>(&T::cpus), msg::range(0, 256)),
        msg::option("cluster", static_cast<std::string T::*>(&T::cluster), msg::text(0, 40)),
        msg::option("node", static_cast<std::string T::*>(&T::node), msg::text(0, 40)),
        msg::option("at", static_cast<std::int64_t T::*>(&T::at), msg::range(0, 9.0e15)));
  }
};

struct SubmitBody {
  std::string on_conflict = "fail";

  static constexpr auto fields() {
    return std::make_tuple(msg::option("on_conflict", &SubmitBody::on_conflict, msg::choice("fail|replace")));
  }
};

struct RunBody {
  bool lazy = false;

  static constexpr auto fields() { return std::make_tuple(msg::option("lazy", &RunBody::lazy)); }
};

struct PushBody : PushRequest {
  static constexpr auto fields() {
    using T = PushBody;
    return std::make_tuple(
        msg::option("version", static_cast<int T::*>(&T::version), msg::range(0, 1e9)),
        msg::option("cluster", static_cast<std::string T::*>(&T::cluster), msg::text(0, 40)),
        msg::option("nodes", static_cast<std::vector<std::string> T::*>(&T::nodes), msg::list(1000)));
  }
};

struct UrlBody {
  std::int64_t valid_s = 6 * 3600;

  static constexpr auto fields() {
    return std::make_tuple(msg::option("valid_s", &UrlBody::valid_s, msg::range(60, 604800)));
  }
};

struct RollbackBody {
  int version = 0;

  static constexpr auto fields() {
    return std::make_tuple(msg::field("version", &RollbackBody::version, msg::range(1, 1e9)));
  }
};

struct PruneBody : PruneRequest {
  static constexpr auto fields() {
    using T = PruneBody;
    return std::make_tuple(
        msg::option("versions", static_cast<std::vector<int> T::*>(&T::versions), msg::list(1000)),
        msg::option("keep", static_cast<int T::*>(&T::keep), msg::range(0, 1e6)));
  }
};

struct VmBody : NewVm {
  std::string hostname, user, ssh_key, password;  ///< become its first_boot

  static constexpr auto fields() {
    using T = VmBody;
    return std::make_tuple(
        msg::option("name", static_cast<std::string T::*>(&T::name), msg::text(0, 80)),
        msg::field("imgid", static_cast<std::string T::*>(&T::imgid), msg::text(1, 20)),
        msg::option("kind", static_cast<std::string T::*>(&T::kind), msg::choice("VD|TVD|VS")),
        msg::option("vmtype", static_cast<std::string T::*>(&T::vmtype), msg::text(0, 40)),
        msg::option("memory_mib", static_cast<std::int64_t T::*>(&T::memory_mib),
                    msg::range(0, kMostMemoryMib)),
        msg::option("cpus", static_cast<int T::*>(&T::cpus), msg::range(0, 256)),
        msg::option("cluster", static_cast<std::string T::*>(&T::cluster), msg::text(0, 40)),
        msg::option("node", static_cast<std::string T::*>(&T::node), msg::text(0, 40)),
        msg::option("version", static_cast<int T::*>(&T::version), msg::range(0, 1e9)),
        msg::option("lazy", static_cast<bool T::*>(&T::lazy)),
        msg::option("autostart", static_cast<std::optional<bool> T::*>(&T::autostart)),
        msg::option("folder_protocol", static_cast<std::string T::*>(&T::folder_protocol),
                    msg::choice("virtiofs|smb")),
        msg::option("hostname", &T::hostname, msg::text(0, 63)),
        msg::option("user", &T::user, msg::text(0, 32)),
        msg::option("ssh_key", &T::ssh_key, msg::text(0, 1024)),
        msg::option("password", &T::password, msg::text(0, 128)));
  }
};

struct VmChangeBody : VmChange {
  static constexpr auto fields() {
    using T = VmChangeBody;
    using Text = std::optional<std::string> T::*;
    return std::make_tuple(
        msg::option("name", static_cast<Text>(&T::name), msg::text(1, 80)),
        msg::option("autostart", static_cast<std::optional<bool> T::*>(&T::autostart)),
        msg::option("folder_protocol", static_cast<Text>(&T::folder_protocol), msg::choice("virtiofs|smb")),
        msg::option("cluster", static_cast<Text>(&T::cluster), msg::text(0, 40)),
        msg::option("node", static_cast<Text>(&T::node), msg::text(0, 40)),
        msg::option("vmtype", static_cast<Text>(&T::vmtype), msg::text(1, 40)),
        msg::option("memory_mib", static_cast<std::optional<std::int64_t> T::*>(&T::memory_mib),
                    msg::range(0, kMostMemoryMib)),
        msg::option("cpus", static_cast<std::optional<int> T::*>(&T::cpus), msg::range(0, 256)),
        msg::option("version", static_cast<std::optional<int> T::*>(&T::version), msg::range(0, 1e9)));
  }
};

struct LimitsBody : LimitsChange {
  static constexpr auto fields() {
    using T = LimitsBody;
    using Small = std::optional<int> T::*;
    using Large = std::optional<std::int64_t> T::*;
    return std::make_tuple(
        msg::option("cpu_percent", static_cast<Small>(&T::cpu_percent), msg::range(0, 25600)),
        msg::option("cpu_weight", static_cast<Small>(&T::cpu_weight), msg::range(0, 10000)),
        msg::option("disk_iops", static_cast<Large>(&T::disk_iops), msg::range(0, 1e7)),
        msg::option("disk_mib_s", static_cast<Large>(&T::disk_mib_s), msg::range(0, 1e6)),
        msg::option("net_mbit_s", static_cast<Large>(&T::net_mbit_s), msg::range(0, 1e6)));
  }
};

struct SnapshotBody : NewSnapshot {
  static constexpr auto fields() {
    using T = SnapshotBody;
    return std::make_tuple(msg::option("name", static_cast<std::string T::*>(&T::name), msg::text(0, 80)),
                           msg::option("memory", static_cast<bool T::*>(&T::memory)));
  }
};

struct MoveBody {
  std::string node;

  static constexpr auto fields() {
    return std::make_tuple(msg::option("node", &MoveBody::node, msg::text(0, 40)));
  }
};

struct VmTypeBody {
  std::int64_t memory_mib = 0;
  int cpus = 1;
  msg::Limits limits;

  static constexpr auto fields() {
    using T = VmTypeBody;
    return std::make_tuple(msg::field("memory_mib", &T::memory_mib, msg::range(64, kMostMemoryMib)),
                           msg::field("cpus", &T::cpus, msg::range(1, 256)),
                           msg::option("limits", &T::limits));
  }
};

struct VmTypeChangeBody {
  std::optional<std::int64_t> memory_mib;
  std::optional<int> cpus;
  LimitsBody limits;

  VmTypeChange change() const { return {memory_mib, cpus, limits}; }
  static constexpr auto fields() {
    using T = VmTypeChangeBody;
    return std::make_tuple(msg::option("memory_mib", &T::memory_mib, msg::range(64, kMostMemoryMib)),
                           msg::option("cpus", &T::cpus, msg::range(1, 256)),
                           msg::option("limits", &T::limits));
  }
};

struct OsTypeBody {
  std::string disk, nic, sound = "none", folders = "virtiofs";

  static constexpr auto fields() {
    using T = OsTypeBody;
    return std::make_tuple(msg::field("disk_type", &T::disk, msg::choice("virtio|sata|ide")),
                           msg::field("nic_type", &T::nic, msg::choice("virtio|e1000|rtl8139")),
                           msg::option("sound_type", &T::sound, msg::choice("none|ac97|ich6|ich9")),
                           msg::option("folder_protocol", &T::folders, msg::choice("virtiofs|smb")));
  }
};

struct OsTypeChangeBody : OsTypeChange {
  static constexpr auto fields() {
    using T = OsTypeChangeBody;
    using Text = std::optional<std::string> T::*;
    return std::make_tuple(
        msg::option("disk_type", static_cast<Text>(&T::disk_type), msg::choice("virtio|sata|ide")),
        msg::option("nic_type", static_cast<Text>(&T::nic_type), msg::choice("virtio|e1000|rtl8139")),
        msg::option("sound_type", static_cast<Text>(&T::sound_type), msg::choice("none|ac97|ich6|ich9")),
        msg::option("folder_protocol", static_cast<Text>(&T::folder_protocol), msg::choice("virtiofs|smb")));
  }
};

}  // namespace educloud::clc::api
