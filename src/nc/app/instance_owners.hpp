#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <stop_token>
#include <string>

#include "common/base/ids.hpp"
#include "common/base/result.hpp"

namespace educloud::nc {

/// Who works on an instance's VM and on its files: one at a time. Commands of one task come one after the
/// other already; beside them another node may be sending the same VM. Thread-safe.
class InstanceOwners {
 public:
  /// The instance is its owner's until this is gone.
  class Hold {
   public:
    Hold(Hold&& other) noexcept
        : owners_(std::exchange(other.owners_, nullptr)),
          insid_(std::move(other.insid_)),
          stop_(std::move(other.stop_)) {}
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold();
    /// Requested once a later command wants it.
    std::stop_source stop() const { return stop_; }

   private:
    friend class InstanceOwners;
    Hold(InstanceOwners* owners, std::string insid, std::stop_source stop)
        : owners_(owners), insid_(std::move(insid)), stop_(std::move(stop)) {}
    InstanceOwners* owners_;
    std::string insid_;
    std::stop_source stop_;
  };

  /// For a VM that comes from another node by a command of `epoch`. Errors: conflict, if it has an owner.
  Result<Hold> receive(const InstanceId& insid, std::int64_t epoch);
  /// Waits until it is free; whoever receives it by a command that is not of a later epoch is asked to end.
  /// Errors: cancelled, unavailable after `patience`.
  Result<Hold> take(const InstanceId& insid, std::int64_t epoch, const std::stop_token& stop,
                    std::chrono::milliseconds patience);

 private:
  struct Owner {
    std::stop_source stop;
    bool receives = false;
    std::int64_t epoch = 0;
  };
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, Owner> owners_;  ///< under mutex_
};

}  // namespace educloud::nc
