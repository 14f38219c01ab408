#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <stop_token>

#include "common/base/clock.hpp"
#include "common/inbox/inbox.hpp"
#include "nc/app/cc_disks.hpp"
#include "nc/app/database_ticket.hpp"
#include "nc/app/image_tools.hpp"
#include "nc/app/instance_owners.hpp"
#include "nc/app/instance_record.hpp"
#include "nc/app/lazy_disks.hpp"
#include "nc/app/move_link.hpp"
#include "nc/app/net_shaper.hpp"
#include "nc/app/snapshots.hpp"
#include "nc/domain/task_queue.hpp"
#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

struct OperationOptions {
  Layout layout{"/storage"};
  NodeLimits limits;
  std::chrono::milliseconds stop_grace{60'000};
  std::uint64_t min_free_disk_bytes = 1ull << 30;
  LazyOptions lazy = {};
  std::filesystem::path state_dir = {};  ///< VMs that end with the lease are noted there; empty: nowhere
  /// Whether something new may start by the node's lease; may wait a while.
  std::function<Result<>(std::stop_token)> may_start = {};
  /// True, once, if the VM was ended for want of a lease; none: none is.
  std::function<bool(const InstanceId&)> was_fenced = {};
  /// Folders::prepare; none: VMs get no folders.
  std::function<Result<std::string>(VmSpec&, std::stop_token)> folders = {};
  MoveLinkOptions moves = {};
  std::chrono::milliseconds give_back_again{5'000};  ///< between attempts to give a database disk back
  CcDisks* disks = nullptr;  ///< outlives the operations; null: VMs with a database disk are refused
};

/// What the commands do. Each is idempotent: after a kill at any instant it is done again from its beginning.
/// It ends with a final status, or without any if it was interrupted (a newer command took the task over, or
/// the daemon stops and redoes it at its next start).
class Operations {
 public:
  Operations(OperationOptions options, inbox::Inbox& inbox, Hypervisor& hypervisor, ImageTools& images)
      : options_(std::move(options)),
        inbox_(inbox),
        hypervisor_(hypervisor),
        images_(images),
        lazy_(options_.layout, images, options_.lazy),
        snapshots_(options_.layout, hypervisor),
        networks_(options_.layout, hypervisor) {}

  /// Before anything else: tells the cache what is in use, and serves the images that guests of before our
  /// restart still read over their sockets.
  void recover();
  /// Guests that read over a socket wait from now on. Idempotent.
  void stop() {
    lazy_.stop();
    networks_.stop();
  }
  /// Once a second: network limits that came off hold again.
  void tend_networks() { networks_.tend(); }

  /// What is returned is to be run in its lane: it was put off.
  std::optional<Job> run(const Job& job, std::stop_token stop);
  /// For a command that cannot be begun: reports `error` as the operation would.
  void report_failure(const msg::Command& command, const Error& error);
  /// Removes the folder and the sockets of an instance without a task and without a VM. Errors: conflict, if
  /// it has one by now.
  Result<> forget(const InstanceId& insid);
  /// The VM began again; from the hypervisor's event thread.
  void rebooted(const std::string& insid);
  const OperationOptions& options() const { return options_; }

  // move_target.cpp
  /// Makes ready what `command`, which runs a VM that is on its way here, needs; the VM then waits for it.
  Result<> receive(const msg::Command& command, const OnCopied& tell, std::stop_token stop);
  /// All of it is here and stands still where it came from: it goes on here. Errors: not_found (it is not
  /// here), unavailable (not yet).
  Result<> take_over(const InstanceId& insid);
  /// It does not come: what receive() made goes. Errors: conflict (it runs here, or clc has taken it over).
  Result<> give_up(const InstanceId& insid);
  MovePlaces places(const InstanceId& insid) const;

 private:
  /// One run of one command.
  struct Call {
    const msg::Command& command;
    TaskId tid;
    std::stop_token stop;
    bool may_give_back = false;  ///< a database disk, which takes its time
    bool* is_put_off = nullptr;  ///< set if it may not, or did not succeed yet
  };
  using Final = Result<inbox::Report>;

  Final prepare(const Call& call);
  Result<std::string> prepare_machine(const Call& call, const FillRequest& request);
  bool has_relative(const std::string& imgid);
  Result<> need_room(const FillRequest& request);
  Result<> fetch(const Call& call, const FillRequest& request);
  Result<> prepare_build(const Call& call, const msg::ImageVersion& source);
  Final start(const Call& call);
  Result<BaseDisk> base_of_vm(const Call& call, InstanceRecord& record);
  Result<BaseDisk> lazy_base(const Call& call, const InstanceRecord& record);
  Result<> make_disk(const Call& call, VmSpec& spec);
  Result<> make_scratch(VmSpec& spec);
  Result<CcDisks*> cc_disks() const;
  Result<CcDisks::Opened> open_database(const Call& call, const OnCopied& tell, bool writes = false);
  Result<> prepare_database(const Call& call);
  /// What is to be told of it, if anything.
  Result<std::string> connect_database(const Call& call, VmSpec& spec);
  Result<> join_database(const Call& call, VmSpec& spec);
  Result<> keep_database(const InstanceId& insid);
  void note_leave(const Call& call);
  void disconnect_database(const InstanceId& insid);
  void close_database(const Call& call);
  void close_database(const InstanceId& insid, const msg::Command& command, const std::stop_token& stop);
  Result<> remove_database(const Call& call);
  Result<> check_database_target(const msg::Command& command) const;
  Result<std::string> submit_database(const Call& call);
  bool has_open_database(const InstanceId& insid) const;
  // local_database.cpp: mode copy
  /// Event and state that tell how it gets on; none: nothing may be told.
  using Telling = std::optional<std::pair<task::Event, task::TaskState>>;
  Result<> have_copy(const Call& call, const DatabaseTicket& before, const CcDisks::Copy& copy,
                     const OnCopied& tell);
  Result<> note_newer(const InstanceId& insid);
  bool has_newer_copy(const InstanceId& insid) const;
  /// A copy that may be newer than the cc's disk is back there, or set aside since another node has the disk.
  /// What does not succeed is put off, for as long as it takes.
  Result<> return_copy(const Call& call, const Telling& telling);
  Result<> bring_back(const Call& call, const Telling& telling);
  /// return_copy() and close_database() of a VM that has ended.
  Result<> end_database(const Call& call, const Telling& telling);
  void end_start(const Call& call);
  Result<> set_aside(const InstanceId& insid, std::int64_t epoch);
  Result<> drop_copy(const InstanceId& insid) const;
  /// Errors: conflict, if its VM runs on a copy.
  Result<> has_no_copy(const InstanceId& insid) const;
  Result<> renew_disk_secret(const InstanceId& insid);
  Result<> make_seed(const Call& call, VmSpec& spec) const;
  Result<std::string> prepare_folders(const Call& call, VmSpec& spec) const;
  Result<> may_start(const Call& call) const;
  /// Ends a VM of this name that an earlier epoch of the task left running. True: there was one.
  Result<bool> end_older(const Call& call);
  /// True if the VM that is here came from another node by a command later than this one.
  Result<bool> is_outdone(const Call& call);
  /// It was received, and its other node has not let it go yet.
  bool is_arriving(const VmInfo& vm) const;
  Result<std::optional<VmInfo>> find_vm(const InstanceId& insid);
  Final stop(const Call& call);
  Final submit(const Call& call);
  Result<SubmitJob> submit_job(const Call& call);
  Final remove(const Call& call);
  std::optional<Job> vm_ended(const Job& job, std::stop_token stop);
  void vm_changed(const Job& job);

  Final operate(const Call& call);
  Final pause_vm(const Call& call);
  Final resume_vm(const Call& call);
  Final restart_vm(const Call& call);
  Final limit_vm(const Call& call);
  /// What a person should know of it; nothing if it holds.
  std::string limit_network(const Call& call, const msg::Limits& limits);
  // move_source.cpp
  Final move_vm(const Call& call);
  Result<> make_ready(const Call& call, VmSpec& spec);
  Result<> is_free(const InstanceId& insid);
  /// Errors: conflict, if a task of this node's has the VM.
  Result<> is_no_task_of_ours(const InstanceId& insid) const;
  Result<> may_leave(const Call& call);
  Result<> leave(const Call& call, MoveLink& link);
  Final hand_over(const Call& call, MoveLink& link);
  Result<> stay(const InstanceId& insid, MoveLink& link);
  Result<> let_go(const Call& call);
  Result<> make_move_folder(const InstanceId& insid) const;
  Result<> remove_instance(const InstanceId& insid);
  std::optional<Job> run_owned(const Job& job, std::stop_token stop);
  /// Another node may have it: it must not run here until that is known.
  bool is_handed_over(const InstanceId& insid) const;
  Final on_snapshot(const Call& call);
  Result<std::uint64_t> memory_of(const InstanceId& insid);
  /// An operation found that the VM is gone.
  inbox::Report gone_report(const Call& call);
  /// True once the VM began again within `grace`. Errors: cancelled, not_found (it ended instead).
  Result<bool> restarts(const Call& call, std::chrono::milliseconds grace);
  /// Where a task stands after its operation `op` failed (CONTRACT.md "Phases and states").
  task::TaskState after_failure(const msg::Command& command);

  /// Presses the power button, waits `grace`, then ends it. True if it had to be ended.
  Result<bool> end_vm(const Call& call, std::chrono::milliseconds grace);
  /// hypervisor_.state, which waits a while for a hypervisor that is being restarted.
  Result<VmState> state_of(const Call& call);
  /// The VM is gone: so is its way to an image that still arrives, and a desktop's overlay.
  Result<> drop_overlay(const InstanceId& insid);
  Result<> need_disk(std::uint64_t bytes, std::string_view what);
  void make_room(std::uint64_t wanted);
  Result<Versions> versions_in_use() const;
  void update_in_use();
  void progress(const Call& call, task::Event event, task::TaskState at, int percent, std::uint64_t done,
                std::uint64_t total, std::string prompt);
  /// Tells how `what` gets on; with its rate, how long it will take.
  OnCopied teller(const Call& call, task::Event event, task::TaskState at, std::string what);
  inbox::Report final_report(const Call& call, task::Event event, task::TaskState at,
                             std::string prompt) const;

  const OperationOptions options_;
  inbox::Inbox& inbox_;
  Hypervisor& hypervisor_;
  ImageTools& images_;
  LazyDisks lazy_;
  Snapshots snapshots_;
  NetShaper networks_;
  InstanceOwners owners_;
  std::mutex room_mutex_;  ///< held while versions are evicted
  std::mutex reboot_mutex_;
  std::condition_variable_any rebooted_;
  std::map<std::string, int> reboots_;  ///< under reboot_mutex_: of VMs whose restart is waited for
};

/// True if the node last told that the task's VM is there, running or paused.
bool is_up(const inbox::Entry& entry);

/// What the cache needs to know to have `source` here. Errors: invalid_argument.
Result<FillRequest> make_fill_request(const msg::ImageVersion& source, std::string grant,
                                      const std::string& priority);

}  // namespace educloud::nc
