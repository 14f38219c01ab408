#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "cc/disks/disk_files.hpp"
#include "cc/disks/disk_fill.hpp"
#include "cc/disks/disk_returns.hpp"
#include "cc/disks/iscsi_targets.hpp"
#include "cc/disks/nbd_targets.hpp"
#include "common/sys/thread_pool.hpp"
#include "common/transfer/chunk_client.hpp"

namespace educloud::cc {

/// The database disks of this cluster's servers. Unlike everything else on a cc they exist nowhere else, so
/// none is ever overwritten, but by its own copy that a node gives back whole; only `remove` deletes one. Who
/// may write is decided by clc: the node with the highest epoch; to open for it ends the session of the one
/// before. Every call is idempotent, answers at once or within half a second, and is to be repeated while it
/// tells of progress; a kill -9 repeats work and loses nothing. Thread-safe.
class DiskStore {
 public:
  struct Options {
    std::filesystem::path prefix;
    IscsiTargets::Options targets;
    NbdTargets::Options nbd;
    std::string portal_host;  ///< where nodes reach the targets
    /// walrus, with leave to make that version.
    std::function<transfer::ChunkRemote(const std::string& imgid, int version)> walrus;
  };
  /// Asked for, not yet done.
  struct Progress {
    std::uint64_t bytes_done = 0;
    std::uint64_t bytes_total = 0;  ///< 0: not known
  };
  struct Opening {
    InstanceId instance;
    std::string node;
    std::string address;  ///< the node's: the only initiator that may log in
    std::int64_t epoch = 0;
    DiskSource source;        ///< of a disk that is not there yet
    std::string build_imgid;  ///< of a BUILD's TMP
    std::string mode = "iscsi";
    bool writes = false;                 ///< copy: its VM starts, so the node's copy may be newer from now on
    std::vector<std::string> lost = {};  ///< nodes whose newer copies are not waited for
  };
  struct Export {
    std::string mode;    ///< iscsi; nbd: over TLS, with `secret` as the user's pre-shared key; copy
    std::string portal;  ///< "10.0.0.1:3260"
    std::string name;    ///< the target's, the export's
    std::string user;
    std::string secret;
    std::string copy = {};  ///< copy: which one; the same for as long as the node holds it
    std::uint64_t disk_bytes = 0, data_bytes = 0;  ///< copy: of the disk here
    bool is_out = false;                           ///< copy: the node had one already that may be newer
    std::string left = {};  ///< lost node that had a newer copy, which this disk has not
  };
  /// Of a copy, as the node that holds it asks.
  struct Holder {
    InstanceId instance;
    std::string node;
    std::int64_t epoch = 0;
    std::string copy;
  };
  struct Piece {
    std::uint64_t at = 0;  ///< where the bytes belong; before it are holes. The disk's end: there are no more
    std::uint64_t disk_bytes = 0;
    std::string bytes;
  };
  struct Submission {
    InstanceId instance;
    std::int64_t epoch = 0;
    std::string imgid;
    int version = 0;
    std::string parent, if_current, cmdid;  ///< as in ChunkClient::Publish
  };
  /// `done`: what was asked for; null while `progress` goes on.
  template <class T>
  struct Answer {
    std::optional<T> done;
    Progress progress;
  };
  struct Done {};

  /// `chunks` outlives this.
  DiskStore(Options options, transfer::ChunkSource& chunks);
  ~DiskStore();

  /// Exports again what was open when this host went down; returns before that is done.
  void start();
  void stop();

  /// Makes the disk if it is not there, and exports it to the node. Errors: conflict (a higher epoch has it;
  /// the same epoch at another node; another instance builds that image), unavailable (another call is under
  /// way), those of fill_disk.
  Result<Answer<Export>> open(const Opening& request);
  // disk_sharing.cpp: while its VM moves from node to node, two reach a disk; its guest runs on one of them.
  /// The node of a higher epoch may reach the open disk too. Errors: conflict (not open, over NBD, a higher
  /// epoch has it), unavailable.
  Result<Answer<Export>> join(const Opening& request);
  /// It is the joined node's alone from now on: the one before has no session any more when it is done.
  /// Errors: conflict (that epoch has not joined, or from another `address`), unavailable.
  Result<Answer<Done>> keep(const InstanceId& instance, std::int64_t epoch, const std::string& address);
  /// The joined node does not come. Has not joined: done.
  Result<Answer<Done>> leave(const InstanceId& instance, std::int64_t epoch);
  // disk_copies.cpp: mode copy. Errors of all: conflict (the copy is not the node's any more).
  /// The next data of the disk from `at` on.
  Result<Piece> read(const Holder& holder, std::uint64_t at);
  /// One block of the node's copy, which comes back; see DiskReturns::put.
  Result<std::uint64_t> put(const Holder& holder, const std::string& give, DiskReturns::Block block);
  /// The copy is the disk when it is done. False: send it again.
  Result<Answer<bool>> take_back(const Holder& holder, const std::string& give, DiskReturns::Block last);
  /// Nobody reaches the disk any more when it is done. Of an epoch that is over: done already. Errors:
  /// conflict (a node's newer copy is not back).
  Result<Answer<Done>> close(const InstanceId& instance, std::int64_t epoch);
  /// Publishes the disk; done: the receipt. Errors: conflict (open; a higher epoch has it), not_found.
  Result<Answer<std::string>> submit(const Submission& request);
  /// Errors: conflict (a higher epoch has it).
  Result<Answer<Done>> remove(const InstanceId& instance, std::int64_t epoch);

 private:
  struct Job;
  using Work = std::function<Result<>(Job&, const std::stop_token&)>;

  /// Begins or finds the job; waits a moment for it. Null `outcome`: it goes on.
  struct Seen {
    std::shared_ptr<Job> job;
    std::optional<Result<>> outcome;
    Progress progress;
  };
  Result<Seen> run(sys::ThreadPool& pool, const InstanceId& instance, const std::string& what, Work work);
  Result<std::shared_ptr<Job>> find_or_begin(sys::ThreadPool& pool, const InstanceId& instance,
                                             const std::string& what, Work work);
  bool is_there(const InstanceId& instance) const;
  Result<> do_open(Job& job, const Opening& request, const std::stop_token& stop);
  Result<> do_submit(Job& job, const Submission& request, const std::stop_token& stop);
  Result<> do_close(const InstanceId& instance, std::int64_t epoch);
  Result<> do_remove(const InstanceId& instance, std::int64_t epoch);
  Result<> do_join(const Opening& request);
  Result<> do_keep(const InstanceId& instance, std::int64_t epoch, const std::string& address);
  Result<> do_leave(const InstanceId& instance, std::int64_t epoch);
  Result<> check_copy(DiskRecord& record, const Opening& request) const;
  Result<DiskRecord> held(const Holder& holder) const;
  Result<> do_take_back(Job& job, const Holder& holder, const std::string& give, DiskReturns::Block last);
  Result<> export_disk(DiskRecord record);
  void withdraw(const InstanceId& instance);
  bool is_exported(const InstanceId& instance) const;
  Export told(const DiskRecord& record) const;

  const Options options_;
  transfer::ChunkSource& chunks_;
  const DiskFiles files_;
  IscsiTargets targets_;
  NbdTargets nbd_;
  DiskReturns returns_;
  std::mutex mutex_;
  std::map<InstanceId, std::shared_ptr<Job>> jobs_;  // under mutex_
  std::mutex builds_mutex_;  ///< held from the look at whose a build's disk is until the record is there
  sys::ThreadPool copying_;  ///< moves bytes of disks
  sys::ThreadPool quick_;    ///< all else: a fence must not wait for a copy
};

}  // namespace educloud::cc
