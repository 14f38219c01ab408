#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "common/base/ids.hpp"
#include "common/base/result.hpp"
#include "nc/domain/vm_spec.hpp"

namespace educloud::nc {

/// Spelled as VmData::state on the wire.
enum class VmState { running, paused, shutdown, shutoff, crashed };
std::string_view to_string(VmState state);

/// One VM of ours as the hypervisor reports it now.
struct VmInfo {
  InstanceId insid;
  std::string tid;         ///< from the domain's metadata
  std::string cmdid;       ///< command that started it
  std::int64_t epoch = 0;  ///< of that command; 0: started by a version that did not note it
  bool exclusive = false;  ///< see VmSpec
  bool incoming = false;   ///< see VmSpec; for as long as it lives
  std::string uuid;
  std::int64_t memory_mib = 0;
  std::int64_t resident_mib = 0;  ///< what its process holds now; 0: not known
  int cpus = 0;
  std::uint64_t cpu_time_ns = 0;  ///< since it started
  VmState state = VmState::running;
};

/// Something nobody waits for happened to a VM.
struct VmEvent {
  enum class Kind {
    started,
    stopped,  ///< powered off from inside, or by somebody on the host
    crashed,  ///< QEMU died or the guest panicked
    paused,   ///< its cpus stand still: our order, somebody on the host, or its disk has no room
    resumed,
    rebooted,  ///< it begins again from its firmware
    resync,    ///< events may have been missed (connection lost and found again): compare with list()
  } kind = Kind::resync;
  std::string insid;   ///< empty for resync
  std::string detail;  ///< for a person
};
/// What the agent in a guest says; empty where there is none.
struct GuestFacts {
  std::string hostname;
  std::string ip;  ///< its first IPv4 address that is not of the loopback
  bool operator==(const GuestFacts&) const = default;
};
/// What a qcow2 file keeps of an earlier moment, inside of itself.
struct DiskSnapshot {
  std::string name;
  bool with_memory = false;
};
/// Of one VM, on the host that it leaves or comes to.
struct MovePlaces {
  std::filesystem::path folder;         ///< the disks in here move along; the others are shared
  std::filesystem::path memory;         ///< socket that its memory goes through
  std::filesystem::path disks;          ///< socket where the other side serves its disks
  std::chrono::seconds patience{3600};  ///< with each of the two
};
inline constexpr int kMaxMovedDisks = 4;
/// Descriptors of stream sockets: what leaves the guest comes out of `from_guest` and goes on by `to_net`;
/// what is for it likewise. Each frame is behind its length, 4 bytes, big endian.
struct NetSockets {
  int from_guest = -1, to_net = -1, from_net = -1, to_guest = -1;
};
enum class MoveStep { disks, memory };
struct MoveProgress {
  MoveStep step = MoveStep::disks;
  std::uint64_t done = 0, total = 0;  ///< bytes; the total grows with what the guest writes meanwhile
};
using OnMoved = std::function<void(const MoveProgress&)>;
/// Called on the hypervisor's event thread: hand over and return.
using OnVmEvent = std::function<void(const VmEvent&)>;

/// The machine monitor of this node. All calls are thread-safe and blocking (a worker's job); calls about one
/// VM must come one at a time. VMs live on when this process ends.
class Hypervisor {
 public:
  virtual ~Hypervisor() = default;

  /// Connects and chooses the accelerator. Errors: unavailable, naming the address.
  virtual Result<> start(OnVmEvent on_event) = 0;
  /// Disconnects; no event comes after it. Idempotent.
  virtual void stop() = 0;

  /// "kvm", "qemu" (TCG), "fake"; "" before start.
  virtual std::string kind() const = 0;
  /// What an operator should know: no KVM, no confinement, not connected.
  virtual std::vector<std::string> warnings() const = 0;

  /// What the VM's next start, or a start_again, opens its database disk with. Kept in memory only, and never
  /// shown again. Errors: unavailable.
  virtual Result<> set_disk_secret(const InstanceId& insid, const std::string& secret) = 0;
  /// Not there: success.
  virtual Result<> drop_disk_secret(const InstanceId& insid) = 0;
  /// Starts the VM. Running already for the same task: success, nothing changes.
  /// Errors: conflict (the name runs another task, a port is taken), invalid_argument, exhausted,
  /// unavailable.
  virtual Result<> define_and_start(const VmSpec& spec) = 0;
  /// Presses the power button; returns at once. Errors: not_found, unavailable.
  virtual Result<> shutdown(const InstanceId& insid) = 0;
  /// Ends it now. Not there: success.
  virtual Result<> destroy(const InstanceId& insid) = 0;
  /// Its cpus stand still, its memory stays. Paused already: success. Errors: not_found, unavailable.
  virtual Result<> pause(const InstanceId& insid) = 0;
  /// Running already: success. Errors: not_found, unavailable.
  virtual Result<> resume(const InstanceId& insid) = 0;
  /// Asks the guest to restart; `rebooted` is told when it does. Errors: not_found, unavailable.
  virtual Result<> reboot(const InstanceId& insid) = 0;
  /// Presses the reset button; `rebooted` is told. Errors: not_found, unavailable.
  virtual Result<> reset(const InstanceId& insid) = 0;
  /// From now on; what is 0 is not limited. The network's is not meant: divert_network. Errors: not_found,
  /// unavailable, invalid_argument.
  virtual Result<> set_limits(const InstanceId& insid, const msg::Limits& limits) = 0;
  /// From now on every frame of the VM's network card goes through `sockets`, which stay the caller's; an
  /// earlier way ends. Other calls about the VM may go on meanwhile. Errors: not_found, unavailable,
  /// internal.
  virtual Result<> divert_network(const InstanceId& insid, const NetSockets& sockets);
  /// They take the short way again; they do already: success.
  virtual Result<> undivert_network(const InstanceId& insid);
  /// Asks the guest's agent, for at most some seconds; other calls about the VM may go on meanwhile.
  /// Errors: not_found, unavailable. A guest without an agent has no facts.
  virtual Result<GuestFacts> guest_facts(const InstanceId& insid) = 0;
  /// Those in `disk`, the file that the running VM writes to, oldest first. Errors: not_found, unavailable.
  virtual Result<std::vector<DiskSnapshot>> snapshots(const InstanceId& insid,
                                                      const std::filesystem::path& disk) = 0;
  /// Keeps what `disk` holds now as `name`, which is not taken; with_memory: the guest's memory too, and it
  /// stands still meanwhile. Redone after a kill it waits for what it began. Errors: cancelled, exhausted.
  virtual Result<> take_snapshot(const InstanceId& insid, const std::filesystem::path& disk,
                                 const std::string& name, bool with_memory, std::stop_token stop) = 0;
  /// Disk and memory are as they were then; the VM runs or stands still as before.
  /// Errors: cancelled, corrupt (it cannot be read: the VM may stand still with a broken memory).
  virtual Result<> load_snapshot(const InstanceId& insid, const std::filesystem::path& disk,
                                 const std::string& name, std::stop_token stop) = 0;
  virtual Result<> drop_snapshot(const InstanceId& insid, const std::filesystem::path& disk,
                                 const std::string& name) = 0;
  /// What it takes to start the VM again as it is; holds its display's password.
  virtual Result<std::string> recipe(const InstanceId& insid) = 0;
  /// Starts a VM that does not run from its recipe.
  virtual Result<> start_again(const std::string& recipe) = 0;
  /// The user that guests' processes run as. Errors: unavailable.
  virtual Result<unsigned> guest_uid();
  /// Starts a VM that waits, standing still, for the disks and the memory of the one that runs elsewhere.
  /// Errors: conflict (one of that name is here), and as define_and_start.
  virtual Result<> receive(const VmSpec& spec, const MovePlaces& places) = 0;
  /// True: all that receive() waits for is here. Errors: not_found, unavailable.
  virtual Result<bool> has_arrived(const InstanceId& insid) = 0;
  /// What receive() waited for goes on here; it does already: success. The one elsewhere must stand still for
  /// good. Errors: unavailable (not all of it is here yet), not_found (it was not received).
  virtual Result<> take_over(const InstanceId& insid) = 0;
  /// Copies the VM's disks and memory to where receive() waits. In the end all of it is there and it stands
  /// still here. After any error it may still stand still: keep_here(). Errors: cancelled, unavailable,
  /// timeout.
  virtual Result<> send_away(const InstanceId& insid, const MovePlaces& places, const OnMoved& moved,
                             std::stop_token stop) = 0;
  /// Whatever send_away() came to, the VM goes on here: nobody else may have it. Errors: not_found,
  /// unavailable.
  virtual Result<> keep_here(const InstanceId& insid) = 0;
  /// Every VM that has our metadata. Errors: unavailable (then nothing is known, not "none").
  virtual Result<std::vector<VmInfo>> list() = 0;
  /// Errors: not_found, unavailable.
  virtual Result<VmState> state(const InstanceId& insid) = 0;
  /// PNG of the display. Errors: not_found, conflict (it has no display), too_large, unavailable.
  virtual Result<std::string> screenshot(const InstanceId& insid) = 0;
};

}  // namespace educloud::nc
