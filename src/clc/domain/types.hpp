#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/ids.hpp"
#include "common/base/result.hpp"
#include "common/msg/command.hpp"
#include "common/task/state.hpp"

/// What clc knows, as plain values. Times are unix milliseconds, 0 = never; sizes carry their unit.
namespace educloud::clc {

/// Who makes a request, as proved by a token.
struct Principal {
  std::string account;
  bool admin = false;
};

struct Account {
  std::string name;
  bool admin = false;
  std::string password_hash;  ///< argon2id, libsodium's string form
  std::int64_t created_at = 0;
};

struct Image {
  std::string imgid;
  std::string name;  ///< unique in the cloud
  std::string owner;
  std::string ostype;
  std::string usage =
      "desktop";  ///< desktop | server; database: hidden, the versions of a server's second disk
  std::string description;
  int current_version = 0;     ///< 0: nothing published yet
  int next_version = 1;        ///< a number once given to a submit is never given again
  int database_gib = 0;        ///< server: size of the disk that is made for it
  std::string database_imgid;  ///< server: whose versions its second disk is; empty: it has none (yet)
  bool deleting = false;
  std::int64_t created_at = 0;
};

struct Version {
  std::string imgid;
  int version = 0;
  std::string digest;                   ///< SHA-256 of its manifest, hex: proves everything in it
  std::int64_t size_bytes = 0;          ///< data in the disk, holes not counted
  std::int64_t virtual_size_bytes = 0;  ///< of the guest's disk
  std::string format = "raw";           ///< what is chunked: the disk as the guest sees it
  int parent = 0;                       ///< the version it was made from; 0: none, or one of another image
  int database_version = 0;             ///< of the image's database_imgid; 0: it has no second disk
  bool pruning = false;
  std::int64_t created_at = 0;
  std::string receipt;  ///< walrus' signed statement, as it came
};

struct VmType {
  std::string name;
  std::int64_t memory_mib = 0;
  int cpus = 1;
  msg::Limits limits;
};

struct OsType {
  std::string name;
  std::string disk_type;                     ///< virtio | sata | ide
  std::string nic_type;                      ///< virtio | e1000 | rtl8139
  std::string sound_type = "none";           ///< none | ac97 | ich6 | ich9
  std::string folder_protocol = "virtiofs";  ///< virtiofs | smb: how shared folders reach a guest
};

struct Cluster {
  std::string host;                     ///< name of the cc's host
  std::string database_mode = "iscsi";  ///< iscsi | nbd | copy: how its nodes reach database disks
};

/// What an administrator lets a node do. Whether it is up is another thing: its lease.
enum class NodeState {
  enabled,
  no_new,   ///< what runs there runs on, nothing new starts
  drained,  ///< as no_new, and what runs there is brought to an end
};
std::string_view to_string(NodeState state);
/// Errors: invalid_argument naming the three.
Result<NodeState> parse_node_state(std::string_view text);

struct Node {
  std::string host;
  std::string cluster;
  NodeState state = NodeState::enabled;
  std::int64_t lease_epoch = 1;  ///< rises when it is declared lost
  std::int64_t lost_at = 0;      ///< since when it is lost; 0: it is not
  std::int64_t booted_at = 0;    ///< of its host, as it told last; rises with each reboot
};

/// A VM as defined. A VD or VS outlives its runs; TVD and TMP live as long as their task.
struct Instance {
  std::string insid;
  std::string name;
  std::string owner;
  std::string imgid;
  int version = 0;  ///< pinned version; 0: the one in use at each start
  std::string vmtype;
  std::int64_t memory_mib = 0;
  int cpus = 1;
  std::string cluster_pin, node_pin;  ///< empty: any
  msg::Limits limits;                 ///< its type's where they are 0
  msg::FirstBoot first_boot;
  std::string
      disk_cluster;  ///< VS: where its database disk lies, so it runs there only; empty: it has none yet
  std::string folder_protocol;  ///< empty: its OS type's
  bool autostart = false;       ///< starts again when its node comes back after a reboot
  bool deleting = false;        ///< removed as soon as its task is gone
  std::int64_t created_at = 0;
};

/// A moment of an instance's system disk, kept inside its overlay: it goes when that does.
struct Snapshot {
  std::string snapid, insid, name;
  std::string state = "taking";  ///< taking | ready | failed
  bool with_memory = false;
  std::string node;   ///< where the overlay is
  std::string error;  ///< failed: why
  std::int64_t created_at = 0;
};

/// What a task is for. `push` brings a version to a node before anybody waits for it; it has no instance. The
/// last three are walrus' upkeep of an image.
enum class TaskKind { import, modify, build, run, push, use, prune, remove };
std::string_view to_string(TaskKind kind);
TaskKind task_kind(std::string_view text);
/// Answered by walrus, not by a node.
bool is_walrus_task(TaskKind kind);
bool is_maintenance(TaskKind kind);

/// One run of a task. Several rows may share a `tid`, at most one of them open (not `gone`).
struct Task {
  std::int64_t id = 0;
  std::string tid;
  TaskKind kind = TaskKind::run;
  std::string owner;
  std::string src, dst, insid;
  task::TaskState state;
  int progress = 0;
  std::int64_t bytes_done = 0, bytes_total = 0;
  std::int64_t bytes_per_s = 0;  ///< as its host measured it over the last seconds
  std::string prompt, errormsg;
  bool failed = false;
  bool achieved = false;  ///< what it was for has been reached (running, published, pruned ...)
  std::string cluster, node;
  int source_version = 0, target_version = 0;
  bool lazy = false;      ///< run: the VM may start while its image still arrives
  bool replace = false;   ///< modify: the next submit is published whatever version is in use
  std::string placement;  ///< why this node: one line per node considered
  // the command that is being carried out, or was last
  std::string op, cmdid, command;  ///< `command` is its JSON
  bool op_open = false;            ///< not answered to the end yet: sent again when nothing is heard
  std::int64_t epoch = 1, attempt = 1, seq = -1;
  std::int64_t cmd_sent_at = 0, news_at = 0, deadline_at = 0;
  std::int64_t gated_at = 0;   ///< waits since then for its node's boot gate; 0: does not
  std::int64_t leaves_at = 0;  ///< when its VM is, or was, stopped because its node is drained; 0: it is not
  std::int64_t resends = 0;    ///< of the present command
  std::int64_t created_at = 0, updated_at = 0, ended_at = 0;
};

/// How to reach a running VM. Address is the node's.
struct Access {
  std::string address;
  int display_port = 0;
  int web_port = 0;
  std::string display_password;  ///< secret: only for the owner and admins
};

}  // namespace educloud::clc
