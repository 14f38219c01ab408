#pragma once

#include "common/msg/codec.hpp"

namespace educloud::msg {

struct NetworkCard {
  std::string nic_type;  ///< virtio, e1000
  std::string nic_mac;
  std::string nic_ip;

  static constexpr auto fields() {
    using T = NetworkCard;
    return std::make_tuple(field("nic_type", &T::nic_type, choice("virtio|e1000|rtl8139")),
                           field("nic_mac", &T::nic_mac, text(17, 17)),
                           option("nic_ip", &T::nic_ip, text(0, 45)));
  }
};

struct Disk {
  std::string file;   ///< relative to the prefix, as in CONTRACT.md "Files"
  std::string mtype;  ///< normal: written in place; multiattach: throw-away overlay; writethrough: kept

  static constexpr auto fields() {
    using T = Disk;
    return std::make_tuple(field("file", &T::file, text(1, 200)),
                           field("mtype", &T::mtype, choice("normal|multiattach|writethrough")));
  }
};

/// A shared folder as the guest sees it.
struct Folder {
  std::string name;  ///< the drive: d, e, f; a share's name and a file system's tag
  std::string path;  ///< relative to the prefix: space/software, space/pub-data, space/prv-data/<user>
  int read_only = 0;

  static constexpr auto fields() {
    using T = Folder;
    return std::make_tuple(field("name", &T::name, text(1, 40)), field("path", &T::path, text(1, 200)),
                           option("read_only", &T::read_only, range(0, 1)));
  }
};

struct IptableRule {
  std::string src_ip, dst_ip;
  int src_port = 0, dst_port = 0;  ///< 0 = all
  std::string ins_id;

  static constexpr auto fields() {
    using T = IptableRule;
    return std::make_tuple(field("src_ip", &T::src_ip, text(0, 45)), field("dst_ip", &T::dst_ip, text(0, 45)),
                           field("src_port", &T::src_port, range(0, 65535)),
                           field("dst_port", &T::dst_port, range(0, 65535)),
                           field("ins_id", &T::ins_id, text(0, 20)));
  }
};

/// What one VM may take of its node; 0: as much as it gets.
struct Limits {
  int cpu_percent = 0;  ///< of one cpu, so 200 is two; never less than kCpuFloorPercent
  int cpu_weight = 0;   ///< its share where cpus are short, 100 is the usual one
  std::int64_t disk_iops = 0;
  std::int64_t disk_mib_s = 0;
  std::int64_t net_mbit_s = 0;  ///< each way

  /// Under this a guest does not even shut down.
  static constexpr int kCpuFloorPercent = 10;

  static constexpr auto fields() {
    using T = Limits;
    return std::make_tuple(option("cpu_percent", &T::cpu_percent, range(0, 25600)),
                           option("cpu_weight", &T::cpu_weight, range(0, 10000)),
                           option("disk_iops", &T::disk_iops, range(0, 1e7)),
                           option("disk_mib_s", &T::disk_mib_s, range(0, 1e6)),
                           option("net_mbit_s", &T::net_mbit_s, range(0, 1e6)));
  }
  bool operator==(const Limits&) const = default;
};

/// What a guest is told when it boots for the first time (cloud-init's NoCloud).
struct FirstBoot {
  std::string hostname;
  std::string user;
  std::string ssh_key;        ///< one line of authorized_keys
  std::string password_hash;  ///< crypt(3); secret: never logged
  bool operator==(const FirstBoot&) const = default;

  static constexpr auto fields() {
    using T = FirstBoot;
    return std::make_tuple(option("hostname", &T::hostname, text(0, 63)),
                           option("user", &T::user, text(0, 32)),
                           option("ssh_key", &T::ssh_key, text(0, 1024)),
                           option("password_hash", &T::password_hash, text(0, 256)));
  }
};

/// How a VM is to be run. The predecessor's names.
struct RuntimeOption {
  std::string protocol = "vnc";
  std::string ostype = "linux";
  std::string usage = "desktop";
  std::int64_t memory_mib = 0;
  int cpus = 1;
  std::string disk_type = "virtio";
  std::vector<NetworkCard> networkcards;
  std::vector<Disk> disks;
  std::vector<Folder> folders;
  std::string folder_protocol = "virtiofs";  ///< smb: a guest that has no virtiofs, or is to migrate
  std::string rdp_ip;                        ///< address of the display port: the node's
  int rdp_port = 0;                          ///< display (VNC) port on the node; 0: none
  std::string ex_ip;
  std::string web_ip;
  int web_port = 0;  ///< port on the node forwarded to port 80 of the guest; 0: none
  std::vector<IptableRule> iptable_rules;
  int run_with_snapshot = 1;
  std::string display_password;  ///< secret: never logged
  std::optional<Limits> limits;
  std::optional<FirstBoot> first_boot;

  static constexpr auto fields() {
    using T = RuntimeOption;
    return std::make_tuple(
        field("protocol", &T::protocol, choice("vnc")), field("ostype", &T::ostype, text(1, 40)),
        field("usage", &T::usage, choice("desktop|server")),
        field("memory_mib", &T::memory_mib, range(16, 4.0e6)), field("cpus", &T::cpus, range(1, 256)),
        field("disk_type", &T::disk_type, choice("virtio|sata|ide")),
        option("networkcards", &T::networkcards, list(8)), option("disks", &T::disks, list(8)),
        option("folders", &T::folders, list(8)),
        option("folder_protocol", &T::folder_protocol, choice("virtiofs|smb")),
        option("rdp_ip", &T::rdp_ip, text(0, 45)), option("rdp_port", &T::rdp_port, range(0, 65535)),
        option("ex_ip", &T::ex_ip, text(0, 45)), option("web_ip", &T::web_ip, text(0, 45)),
        option("web_port", &T::web_port, range(0, 65535)),
        option("iptable_rules", &T::iptable_rules, list(64)),
        option("run_with_snapshot", &T::run_with_snapshot, range(0, 1)),
        option("display_password", &T::display_password, text(0, 8)), option("limits", &T::limits),
        option("first_boot", &T::first_boot));
  }
};

/// One immutable version of an image, named so that the receiver can check what it got.
struct ImageVersion {
  std::string imgid;
  int version = 0;
  std::string digest;           ///< SHA-256 of its manifest, hex: proves everything in it
  std::int64_t size_bytes = 0;  ///< of its data, holes not counted
  std::int64_t disk_bytes = 0;  ///< of the guest's disk; 0: not said
  std::string format = "raw";

  static constexpr auto fields() {
    using T = ImageVersion;
    return std::make_tuple(
        field("imgid", &T::imgid, text(11, 11)), field("version", &T::version, range(1, 1e9)),
        field("digest", &T::digest, text(64, 64)), field("size_bytes", &T::size_bytes, range(0, 9.0e15)),
        option("disk_bytes", &T::disk_bytes, range(0, 9.0e15)),
        field("format", &T::format, choice("qcow2|raw")));
  }
};

/// Where a VM that runs is to go on, and what the node there is told by the one that has it.
struct Move {
  std::string nid;                 ///< node that takes it
  std::string address;             ///< its IPv4 address
  int port = 0;                    ///< of its HTTP server
  std::string grant;               ///< query string that node takes PUT "/migrations/<insid>" with
  std::string source_grant;        ///< query string that lets it fetch `source` from its cc
  int rdp_port = 0, web_port = 0;  ///< on it; 0: none
  std::string database_grant;      ///< query string that joins the VM's database disk for it

  static constexpr auto fields() {
    using T = Move;
    return std::make_tuple(field("nid", &T::nid, text(1, 40)), field("address", &T::address, text(7, 45)),
                           field("port", &T::port, range(1, 65535)), field("grant", &T::grant, text(1, 512)),
                           option("source_grant", &T::source_grant, text(0, 512)),
                           option("rdp_port", &T::rdp_port, range(0, 65535)),
                           option("web_port", &T::web_port, range(0, 65535)),
                           option("database_grant", &T::database_grant, text(0, 512)));
  }
};

/// An order: clc -> cc -> nc over `cc_cmd` and `nc_cmd`, clc -> walrus over `walrus_cmd`.
struct Command {
  std::string type = "cmd";
  std::string op;
  std::string tid;
  std::string cmdid;
  std::string nid;   ///< node it is for; empty for walrus
  std::string ccid;  ///< cluster it goes through; empty for walrus
  int v = 1;
  std::int64_t epoch = 0;
  std::int64_t attempt = 0;
  std::int64_t deadline = 0;  ///< unix milliseconds; later it must not be begun
  std::int64_t ts = 0;
  std::optional<RuntimeOption> runtime_option;
  std::optional<ImageVersion> source;  ///< image/prepare, image/run: what the VM starts from
  std::string source_grant;            ///< query string that lets the node fetch `source` from its cc
  std::string target_imgid;            ///< image/submit, image/import: which image gets a version
  int target_version = 0;              ///< and its number, chosen by clc
  std::string target_grant;            ///< query string that lets the node upload it through its cc
  std::string if_current;         ///< image/submit: "<imgid>/<version>" that must be in use still; empty: any
  std::string priority = "user";  ///< image/prepare: who waits for the bytes
  int lazy = 0;                   ///< image/prepare, image/run: 1: start while the image still arrives
  std::vector<int> versions;      ///< image/prune: the versions to remove
  std::int64_t disk_bytes = 0;    ///< image/blank: of the empty disk that is to be made
  std::optional<ImageVersion> database;  ///< server: what the VM's database disk is first made from
  std::string database_mode = "iscsi";   ///< how the node reaches it
  std::string database_grant;  ///< query string that opens that disk at the cc, for this node and epoch
  std::vector<std::string> database_lost;  ///< nodes that are lost: the disk's newer copy there is given up
  std::string database_source_grant;       ///< query string that reads `database`
  std::string database_target_imgid;       ///< image/submit: which image gets a version of the database disk
  int database_target_version = 0;         ///< and its number
  std::string database_target_grant;       ///< query string that makes it
  std::optional<Limits> limits;            ///< instance/limit
  std::string snapshot;                    ///< snapshot/...: its id, `snap-` and 8 hex
  int with_memory = 0;                     ///< snapshot/take: 1: the guest's memory too
  std::optional<Move> move;                ///< instance/migrate

  static constexpr auto fields() {
    using T = Command;
    return std::make_tuple(
        field("type", &T::type, choice("cmd")),
        field("op", &T::op,
              choice("image/prepare|image/run|image/stop|image/submit|task/delete|"
                     "image/import|image/blank|image/use|image/prune|image/delete|"
                     "instance/pause|instance/resume|instance/restart|instance/limit|instance/migrate|"
                     "snapshot/take|snapshot/restore|snapshot/delete")),
        field("tid", &T::tid, text(1, 64)), field("cmdid", &T::cmdid, text(36, 36)),
        option("nid", &T::nid, text(0, 40)), option("ccid", &T::ccid, text(0, 40)),
        option("v", &T::v, range(1, 1000)), field("epoch", &T::epoch, range(0, 9.0e15)),
        field("attempt", &T::attempt, range(0, 9.0e15)), field("deadline", &T::deadline, range(0, 9.0e15)),
        option("ts", &T::ts, range(0, 9.0e15)), option("runtime_option", &T::runtime_option),
        option("source", &T::source), option("source_grant", &T::source_grant, text(0, 512)),
        option("target_imgid", &T::target_imgid, text(0, 11)),
        option("target_version", &T::target_version, range(0, 1e9)),
        option("target_grant", &T::target_grant, text(0, 512)),
        option("if_current", &T::if_current, text(0, 64)),
        option("priority", &T::priority, choice("user|prefetch|replication")),
        option("lazy", &T::lazy, range(0, 1)), option("versions", &T::versions, list(1000)),
        option("database", &T::database),
        option("database_mode", &T::database_mode, choice("iscsi|copy|nbd")),
        option("disk_bytes", &T::disk_bytes, range(0, 9.0e15)),
        option("database_grant", &T::database_grant, text(0, 512)),
        option("database_lost", &T::database_lost, list(1000)),
        option("database_source_grant", &T::database_source_grant, text(0, 512)),
        option("database_target_imgid", &T::database_target_imgid, text(0, 11)),
        option("database_target_version", &T::database_target_version, range(0, 1e9)),
        option("database_target_grant", &T::database_target_grant, text(0, 512)),
        option("limits", &T::limits), option("snapshot", &T::snapshot, text(0, 20)),
        option("with_memory", &T::with_memory, range(0, 1)), option("move", &T::move));
  }
};

}  // namespace educloud::msg
