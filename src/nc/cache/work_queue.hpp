#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "nc/cache/fill_plan.hpp"

namespace educloud::nc {

/// What is still to be fetched, from whom, in which order. Each group belongs to the source that is its home:
/// a neighbour, or the cc (named "") if it is this node. Workers take pieces, write what comes and close the
/// piece; what did not come is given to somebody else. Thread-safe.
class WorkQueue {
 public:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;
  static inline const std::string kCc;

  /// Signs of life of a source or of one piece of work: the last one, in milliseconds of steady clock, and
  /// how many chunks came.
  struct Pulse {
    std::atomic<std::int64_t> at_ms{0};
    std::atomic<std::uint64_t> chunks{0};
    void beat(Time now) {
      at_ms.store(to_ms(now), std::memory_order_relaxed);
      chunks.fetch_add(1, std::memory_order_relaxed);
    }
    static std::int64_t to_ms(Time time) {
      return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
    }
  };
  /// A piece of work: chunks of one source, rising unless urgent.
  struct Unit {
    std::uint64_t id = 0;
    std::string source;
    std::vector<std::uint64_t> chunks;
    std::shared_ptr<Pulse> pulse, source_pulse;
    void beat(Time now) const {
      pulse->beat(now);
      source_pulse->beat(now);
    }
  };

  WorkQueue(std::uint32_t groups, std::string self);

  /// Adds chunks to be fetched.
  void need(const std::vector<std::uint64_t>& chunks, Time now);
  /// Neighbours to fetch from; all groups nobody has begun are dealt out anew.
  void set_peers(std::vector<std::string> peers, Time now);
  bool is_home(std::uint64_t chunk) const;

  /// The next piece from `source`, of about `max_chunks`; small when little is left, so that all end
  /// together.
  std::optional<Unit> take(const std::string& source, std::size_t max_chunks, Time now);
  /// A piece somebody waits for, to be fetched from the cc.
  std::optional<Unit> take_urgent(Time now);
  /// For a worker of the cc with nothing else to do: work of a neighbour that is slow, or has gone quiet with
  /// it (then it is fetched twice).
  std::optional<Unit> steal(Time now);
  /// The neighbour with most to give, at most `max_active` pieces of it being worked on.
  std::optional<std::string> busiest_peer(int max_active, Time now) const;
  /// Nothing is taken from it for a while.
  void pause(const std::string& source, Time until);

  /// It is in the file: nobody need fetch it any more.
  void written(const std::vector<std::uint64_t>& chunks);
  /// The piece is no longer worked on.
  void close(const Unit& unit, Time now);

  /// Somebody waits for this chunk. `again`: though it is being fetched already.
  void urge(std::uint64_t chunk, bool again);
  /// A neighbour waits for it: next in line at the cc, if nobody has begun.
  void to_front(std::uint64_t chunk);

  /// Chunks not written yet.
  std::uint64_t left() const;
  bool has_urgent() const;

 private:
  struct Source {
    std::deque<std::uint32_t> groups;
    int active = 0;
    Time since, not_before;
    std::shared_ptr<Pulse> pulse = std::make_shared<Pulse>();
  };
  struct Flight {
    Unit unit;
    bool doubled = false;
  };

  std::uint64_t open_bits(std::uint32_t group) const { return needed_[group] & ~claimed_[group]; }
  void enqueue(std::uint32_t group, bool front, Time now);
  Source& source_of(const std::string& name, Time now);
  void claim_group(std::uint32_t group, Unit& unit);
  Unit begin(Unit unit, Time now);
  bool is_slow(const Source& source, Time now) const;
  std::optional<Unit> steal_queued(Time now);
  std::optional<Unit> steal_flying(Time now);

  const std::string self_;
  mutable std::mutex mutex_;
  ChunkBits needed_, claimed_;
  std::vector<bool> queued_;
  std::vector<std::string> nodes_;  ///< peers and self
  std::map<std::string, Source> sources_;
  std::list<Flight> flights_;
  std::deque<std::pair<std::uint64_t, bool>> urgent_;
  std::uint64_t left_ = 0;
  std::uint64_t next_id_ = 1;
};

}  // namespace educloud::nc
