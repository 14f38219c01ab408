#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "cc/disks/tgt_control.hpp"
#include "common/base/ids.hpp"
#include "common/base/result.hpp"

namespace educloud::cc {

/// A disk as one node may reach it.
struct IscsiTarget {
  InstanceId instance;
  std::filesystem::path file;  ///< raw; its length is the disk's
  std::string address;         ///< of the only initiator that may log in; IPv4 or IPv6
  std::string secret;          ///< CHAP, 12 to 32 characters of [0-9A-Za-z]; the user is the instance's id
  std::string also = {};       ///< of a second one, while the VM moves to it; empty: none

  bool operator==(const IscsiTarget&) const = default;
};

/// iSCSI targets of this host, served by a tgtd of our own: started with the first target, started again
/// whenever it ends (then all targets are made again and initiators log in again by themselves), killed with
/// us. What an initiator was told is written is on the disk (O_SYNC). Thread-safe; all members block.
class IscsiTargets {
 public:
  struct Options {
    std::string listen = "127.0.0.1";  ///< address of the portal
    int port = 3260;
    std::filesystem::path
        run_dir;  ///< for tgtd's management socket; at most 90 characters; made if it is missing
  };
  static constexpr int kLun = 1;

  explicit IscsiTargets(Options options) : options_(std::move(options)), control_(socket()) {}
  ~IscsiTargets() { stop(); }
  IscsiTargets(const IscsiTargets&) = delete;
  IscsiTargets& operator=(const IscsiTargets&) = delete;

  static std::string iqn(const InstanceId& instance) { return "iqn.2026-11.educloud:" + instance.str(); }

  /// The target is there when it returns, and will be again after a restart of tgtd. Idempotent for the same
  /// target, of which it sees to who may log in; conflict if another is open for the instance. Errors:
  /// unavailable, timeout, cancelled.
  Result<> open(const IscsiTarget& target);
  /// No initiator reaches the file any more when it returns: the target is gone with its sessions, or tgtd
  /// is (killed, if it does not let go within 5 s; the other targets are made again). Idempotent.
  void close(const InstanceId& instance);
  bool is_open(const InstanceId& instance) const;
  /// Who may log in to a target that is open is changed, without harm to sessions of those that still may;
  /// when it returns no other has one. After an error the next call does what is left.
  /// Errors: not_found, unavailable.
  Result<> set_initiators(const InstanceId& instance, const std::string& address, const std::string& also);
  /// Ends tgtd. Idempotent.
  void stop();

 private:
  struct Made {
    IscsiTarget target;
    std::int32_t tid = 0;
    bool is_made = false;  ///< at the tgtd that runs now, or tried in vain
    /// Who may log in by what this tgtd was told, whatever is wanted; false: it has not said yes, or not yet
    /// that it forgot him.
    std::map<std::string, bool> bound = {};
  };

  std::filesystem::path socket() const { return options_.run_dir / "tgtd.0"; }
  void supervise(const std::stop_token& stop);
  Result<> run_once(const std::stop_token& stop);
  // These are called with control_mutex_ held.
  Result<> await_ready();
  Result<> make(const Made& made);
  Result<> make_all();
  Result<> remove(const Made& made);
  /// Makes `keep` the only ones in made.bound, and ends the others' sessions.
  Result<> admit(Made& made, const std::vector<std::string>& keep);
  /// What tgtd has not done yet of who may log in to a target that is open.
  Result<> admit_wanted(const InstanceId& instance);
  /// `keep`: addresses whose sessions stay.
  void kick_sessions(const Made& made, const std::vector<std::string>& keep = {});
  /// Ends tgtd and waits until it is gone.
  void kill_tgtd();

  const Options options_;
  const TgtControl control_;

  std::mutex control_mutex_;  ///< one change at tgtd at a time; taken before mutex_
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<InstanceId, Made> wanted_;     // under mutex_
  std::int32_t next_tid_ = 1;             // under mutex_
  bool stopped_ = false;                  // under mutex_
  bool runs_ = false;                     // under mutex_: tgtd was started and has not ended
  std::optional<std::stop_source> kill_;  // under mutex_: of the running one
  std::jthread supervisor_;               // under control_mutex_
};

}  // namespace educloud::cc
