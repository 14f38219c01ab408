#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "clc/app/backups.hpp"
#include "clc/app/views.hpp"
#include "clc/domain/boot_gate.hpp"
#include "clc/domain/planner.hpp"
#include "clc/domain/vm_rules.hpp"
#include "common/base/clock.hpp"
#include "common/base/result.hpp"

namespace educloud::clc {

class EventHub;
class Heartbeats;
class Safety;
namespace store {
class Store;
}

struct CloudOptions {
  std::string version = "0";
  std::string walrus_url;  ///< as users and the CLI reach it
  std::string data_key;    ///< secret: signs grants, checks receipts
  PlacementLimits placement;
  BootGate gate;
  int display_port_first = 5900, display_port_last = 5999;
  int web_port_first = 20000, web_port_last = 20999;
  std::int64_t session_ms = 12 * 3600 * 1000;
  int max_snapshots = 10;                  ///< of one instance
  std::int64_t drain_warning_ms = 60'000;  ///< until what cannot leave a drained node is stopped; 0: at once
  std::int64_t drain_idle_ms = 10 * 60'000;  ///< a desktop idle for so long is stopped too; 0: none is
  BackupOptions backup;
};

struct NewImage {
  std::string name, ostype = "linux", usage = "desktop", description, filename;
  std::int64_t size_bytes = 0;  ///< of the file that will be uploaded; 0: unknown
  std::string format;           ///< qcow2 | raw | vdi | vmdk | vhdx; empty: walrus finds out
  int database_gib = 0;         ///< usage server: of its disk for data; 0: kDatabaseGib
};

/// What is not given stays as it is.
struct ImageChange {
  std::optional<std::string> name, description, usage;
  int database_gib = 0;  ///< of the disk that a server image gets; 0: kDatabaseGib
};
inline constexpr int kDatabaseGib = 10, kMostDatabaseGib = 2048;

struct EditRequest {
  std::string name;             ///< build: of the new image
  std::string vmtype;           ///< empty: vdsmall
  std::int64_t memory_mib = 0;  ///< 0: the type's
  int cpus = 0;
  std::string cluster, node;  ///< pins; empty: any
  int version = 0;            ///< source version; 0: the one in use
  std::string description;
};

struct PruneRequest {
  std::vector<int> versions;  ///< exactly these; or
  int keep = 0;  ///< all but the newest `keep` (>= 1), the one in use, and those an instance needs
};

/// What is not given stays as it is.
struct VmTypeChange {
  std::optional<std::int64_t> memory_mib;
  std::optional<int> cpus;
  LimitsChange limits;  ///< 0: no limit
};
struct OsTypeChange {
  std::optional<std::string> disk_type, nic_type, sound_type, folder_protocol;
};

struct NewVm {
  std::string name;
  std::string imgid;
  std::string kind = "VD";  ///< VD, VS: defined only; TVD: made and run at once
  std::string vmtype;
  std::int64_t memory_mib = 0;
  int cpus = 0;
  std::string cluster, node;
  int version = 0;
  bool lazy = false;                   ///< TVD: see run_vm
  std::optional<bool> autostart = {};  ///< after a reboot of its node; not said: a server does
  std::string folder_protocol;         ///< virtiofs | smb; empty: its OS type's
  NewFirstBoot first_boot = {};
};

/// What is not given stays as it is.
struct VmChange {
  std::optional<std::string> name;
  std::optional<bool> autostart;
  std::optional<std::string> folder_protocol;  ///< virtiofs | smb; empty: its OS type's
  // From its next start on:
  std::optional<std::string> cluster, node;  ///< pins; empty: any
  std::optional<std::string> vmtype;         ///< its memory and cpus too, unless they are given
  std::optional<std::int64_t> memory_mib;    ///< 0: the type's
  std::optional<int> cpus;                   ///< 0: the type's
  std::optional<int> version;                ///< 0: the one in use at each start
};

/// What can be done to a VM that runs, without an argument.
enum class VmOperation { pause, resume, restart };
std::string_view to_string(VmOperation operation);

struct NewSnapshot {
  std::string name;     ///< empty: its id
  bool memory = false;  ///< the guest's memory too, so that it goes on where it was
};

struct PushRequest {
  int version = 0;                 ///< 0: the one in use
  std::string cluster;             ///< all its nodes that take VMs; or
  std::vector<std::string> nodes;  ///< exactly these
};

struct PlanRequest {
  std::string imgid;
  int count = 1;                ///< of VMs, 1 to kMostSeats
  int version = 0;              ///< 0: the one in use
  std::string vmtype;           ///< empty: vdsmall
  std::int64_t memory_mib = 0;  ///< 0: the type's
  int cpus = 0;
  std::string cluster, node;  ///< pins; empty: any
  std::int64_t at = 0;        ///< unix milliseconds; 0: now
};

struct TaskFilter {
  bool open_only = false;
  std::string insid, imgid;
};

/// The use cases behind the HTTP API. Each call checks the caller's right on the object (deny by
/// default), validates its input, and commits state, outgoing command and audit in one transaction.
/// Thread-safe. Errors besides those named: permission_denied, not_found (also for what the caller may
/// not see), unavailable and timeout when the database cannot commit in time.
class Cloud {
 public:
  Cloud(store::Store& store, Heartbeats& heartbeats, EventHub& events, const Clock& clock,
        CloudOptions options);
  ~Cloud();
  Cloud(const Cloud&) = delete;
  Cloud& operator=(const Cloud&) = delete;

  /// Called after each commit that queued a command: wakes the relay.
  void on_outbox(std::function<void()> wake);
  void broker_state(std::function<bool()> is_ready);

  // -- sessions ---------------------------------------------------------------------------------
  /// Errors: unauthenticated (the same for an unknown name and a wrong password, in the same time),
  /// unavailable with the seconds to wait after repeated failures.
  Result<Session> login(std::string_view account, std::string_view password, std::string_view remote);
  /// Errors: unauthenticated.
  Result<Principal> authenticate(std::string_view token);
  Result<> logout(std::string_view token);

  // -- overview ---------------------------------------------------------------------------------
  Result<StatusView> status(const Principal& who);
  Result<Page<NodeView>> nodes(const Principal& who);
  Result<NodeView> node(const Principal& who, std::string_view host);
  /// Drained: its desktops are told to stop, at once and as more come up.
  Result<NodeView> set_node_state(const Principal& who, std::string_view host, NodeState state);
  /// Whether a class finds room, what is short and how long it takes; changes nothing. Errors:
  /// invalid_argument, conflict (no such version).
  Result<PlanView> plan(const Principal& who, const PlanRequest& request);

  Result<Page<ClusterView>> clusters(const Principal& who);
  /// How the cluster's nodes reach database disks, from the next start of a server on. Errors: not_found,
  /// invalid_argument.
  Result<ClusterView> set_database_mode(const Principal& who, std::string_view host, std::string_view mode);

  // -- types ------------------------------------------------------------------------------------
  Result<Page<VmType>> vmtypes(const Principal& who);
  Result<VmType> vmtype(const Principal& who, std::string_view name);
  /// Makes or replaces it. VMs take its limits at their next start; memory and cpus were copied when they
  /// were defined, and stay. Errors: invalid_argument.
  Result<VmType> put_vmtype(const Principal& who, const VmType& type);
  /// Errors: not_found, invalid_argument.
  Result<VmType> change_vmtype(const Principal& who, std::string_view name, const VmTypeChange& change);
  /// Returns what it was. Errors: conflict naming an instance that has it.
  Result<VmType> delete_vmtype(const Principal& who, std::string_view name);
  Result<Page<OsType>> ostypes(const Principal& who);
  Result<OsType> ostype(const Principal& who, std::string_view name);
  /// Makes or replaces it; VMs take it at their next start. Errors: invalid_argument.
  Result<OsType> put_ostype(const Principal& who, const OsType& type);
  /// Errors: not_found, invalid_argument.
  Result<OsType> change_ostype(const Principal& who, std::string_view name, const OsTypeChange& change);
  /// Returns what it was. Errors: conflict naming an image that has it.
  Result<OsType> delete_ostype(const Principal& who, std::string_view name);

  // -- images -----------------------------------------------------------------------------------
  Result<Page<ImageView>> images(const Principal& who, const PageRequest& page);
  Result<ImageView> image(const Principal& who, std::string_view imgid);
  Result<Page<VersionView>> versions(const Principal& who, std::string_view imgid);
  /// A catalogue entry and its import task. Errors: conflict (name taken), invalid_argument.
  Result<ImageCreated> create_image(const Principal& who, const NewImage& request);
  /// Usage server: the image gets a disk for its data, made by a task (the view's tid), and is a server's
  /// when that has ended. Errors: conflict (it has no version yet; servers of it exist), invalid_argument.
  Result<ImageView> change_image(const Principal& who, std::string_view imgid, const ImageChange& change);
  /// Where the file of an import task goes (again). Errors: conflict if it waits for none.
  Result<UploadTarget> upload_target(const Principal& who, std::string_view tid);
  /// A TMP instance on the image itself, prepared and started. There may be several for one image: whoever
  /// submits second is told, and chooses (submit_task). Errors: conflict (it is being imported or deleted),
  /// exhausted naming each node's reason.
  Result<TaskView> modify_image(const Principal& who, std::string_view imgid, const EditRequest& request);
  /// The same on a copy that becomes a new image.
  Result<TaskView> build_image(const Principal& who, std::string_view imgid, const EditRequest& request);
  /// Makes `version` the one in use. Errors: conflict (it is being pruned).
  Result<TaskView> rollback_image(const Principal& who, std::string_view imgid, int version);
  /// Brings a version to nodes ahead of need: a task for each that needs one, which ends by itself. Nodes
  /// that are down, have it or have no room for it are told of, not an error. Errors: conflict (no such
  /// version, no nodes), not_found (cluster or node).
  Result<PushView> push_image(const Principal& who, std::string_view imgid, const PushRequest& request);
  /// A signed URL of a version's bytes at walrus. `valid_s`: 60 to 604800. Errors: not_found, conflict (it is
  /// being pruned).
  Result<VersionUrl> version_url(const Principal& who, std::string_view imgid, int version,
                                 std::int64_t valid_s);
  /// Errors: conflict naming the instance that needs a version asked for.
  Result<TaskView> prune_image(const Principal& who, std::string_view imgid, const PruneRequest& request);
  /// Errors: conflict naming what still uses it.
  Result<TaskView> delete_image(const Principal& who, std::string_view imgid);

  // -- VMs --------------------------------------------------------------------------------------
  Result<Page<VmView>> vms(const Principal& who, const PageRequest& page);
  Result<VmView> vm(const Principal& who, std::string_view insid);
  /// A VS of a server's image, a VD or TVD of a desktop's. Errors: conflict naming the remedy (the image is
  /// for the other, or its disk for data is not made yet), invalid_argument.
  Result<VmView> define_vm(const Principal& who, const NewVm& request);
  /// What runs goes on as it is: size, version, pins and how folders reach it hold from its next start on.
  /// Errors: invalid_argument, not_found (cluster, node or version), conflict (it boots; its database disk is
  /// in another cluster; an edit's or a temporary desktop's that has no next start), permission_denied (its
  /// own limits are more than the new type allows, and no administrator asks).
  Result<VmView> change_vm(const Principal& who, std::string_view insid, const VmChange& change);
  /// `lazy`: the VM may start while its image still arrives. Errors: conflict (already under way), exhausted
  /// naming each node's reason.
  Result<TaskView> run_vm(const Principal& who, std::string_view insid, bool lazy = false);
  Result<TaskView> stop_vm(const Principal& who, std::string_view insid);
  /// At once if it has no task and no disk; else its task is cancelled, or a node removes its disk, and the
  /// rest follows. The view's state tells. `force` as for cancel_task.
  Result<VmView> delete_vm(const Principal& who, std::string_view insid, bool force = false);
  /// Errors: conflict (it does not run, or is busy).
  Result<TaskView> operate_vm(const Principal& who, std::string_view insid, VmOperation operation);
  /// It goes on on `node`, or the one of its cluster that fits best if empty. Errors: conflict (it cannot
  /// move, saying why, or is busy), not_found, exhausted.
  Result<TaskView> move_vm(const Principal& who, std::string_view insid, const std::string& node);
  /// Kept, and sent to the VM if it runs. Errors: invalid_argument, permission_denied (more than its type
  /// allows, and no administrator asks), conflict (it boots, or is busy).
  Result<VmView> limit_vm(const Principal& who, std::string_view insid, const LimitsChange& change);
  Result<Page<SnapshotView>> snapshots(const Principal& who, std::string_view insid);
  /// Errors: conflict (it does not run, or is busy), exhausted (it has CloudOptions::max_snapshots).
  Result<SnapshotView> take_snapshot(const Principal& who, std::string_view insid,
                                     const NewSnapshot& request);
  /// Errors: conflict (not ready, or the VM is not there or busy).
  Result<TaskView> restore_snapshot(const Principal& who, std::string_view insid, std::string_view snapid);
  /// At once if its overlay is gone: the view's state is "deleted" then. Errors: conflict (the VM is busy).
  Result<SnapshotView> delete_snapshot(const Principal& who, std::string_view insid, std::string_view snapid);
  /// `what`: "console" or "screenshot". Errors: conflict (not on a node), unavailable (cc not heard of).
  Result<InstanceFile> instance_file(const Principal& who, std::string_view insid, std::string_view what);

  // -- tasks ------------------------------------------------------------------------------------
  Result<Page<TaskView>> tasks(const Principal& who, const PageRequest& page, const TaskFilter& filter = {});
  /// The open task of this id, else the latest.
  Result<TaskView> task(const Principal& who, std::string_view tid);
  /// The last decision about where it runs, made or refused. `id`: the task's, or its instance's.
  /// Errors: not_found (also for a task that no node was ever chosen for).
  Result<WhyView> why(const Principal& who, std::string_view id);
  Result<TaskView> start_task(const Principal& who, std::string_view tid);
  Result<TaskView> stop_task(const Principal& who, std::string_view tid);
  /// Errors: conflict if the version the change was made from is not in use any more, naming both and what
  /// can be done, unless `replace`: then the change becomes the next version all the same.
  Result<TaskView> submit_task(const Principal& who, std::string_view tid, bool replace = false);
  /// `force`, an administrator's: ends it at once without its node, if that has been silent for 10 minutes or
  /// is not registered any more. Errors: conflict (the node is alive).
  Result<TaskView> cancel_task(const Principal& who, std::string_view tid, bool force = false);

  /// Dead letters and backups.
  Safety& safety();

  /// Rises with every change of what the calls above read from the database.
  std::uint64_t changes() const;
  EventHub& events();
  const CloudOptions& options() const;

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::clc
